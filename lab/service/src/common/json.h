/* JSON objects in bounded text. */
#ifndef LAB_JSON_H
#define LAB_JSON_H

#include "common/text.h"

/* Begins an object of its own in static memory; json_end gives the whole of it. */
#define JSON_TEXT(name, capacity)                                                                                      \
    static char name##_bytes[capacity];                                                                                \
    struct text name = {name##_bytes, 0, capacity, false};                                                             \
    text_add(&name, "{")

void text_json(struct text *text, const char *string); /* quoted and escaped */
/* One more member of the object that `text` holds. */
void json_key(struct text *text, const char *name);
void json_number(struct text *text, const char *name, uint64_t number);
void json_string(struct text *text, const char *name, const char *string);
const char *json_end(struct text *text);

#endif
