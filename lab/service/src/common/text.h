/* Bounded text. No heap, no stdio: a started service stays in a few pages. */
#ifndef LAB_TEXT_H
#define LAB_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A bounded text; `full` once something did not fit, and from then on nothing is added. */
struct text {
    char *at;
    size_t length, capacity;
    bool full;
};

void text_add(struct text *text, const char *string);
void text_bytes(struct text *text, const char *bytes, size_t length);
void text_number(struct text *text, uint64_t number);

#endif
