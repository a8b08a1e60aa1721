/* JSON objects in bounded text, written a member at a time. */
#include "common/json.h"

void text_json(struct text *text, const char *string)
{
    static const char hex[] = "0123456789abcdef";
    text_add(text, "\"");
    for (const unsigned char *c = (const unsigned char *)string; *c; c++) {
        if (*c == '"' || *c == '\\') {
            text_bytes(text, (char[]){'\\', (char)*c}, 2);
        } else if (*c < 0x20 || *c >= 0x7f) {
            /* Bytes beyond ASCII as Latin-1: always valid JSON, whatever the file held. */
            text_bytes(text, (char[]){'\\', 'u', '0', '0', hex[*c >> 4], hex[*c & 15]}, 6);
        } else {
            text_bytes(text, (const char *)c, 1);
        }
    }
    text_add(text, "\"");
}

void json_key(struct text *text, const char *name)
{
    if (text->length > 1) {
        text_add(text, ",");
    }
    text_json(text, name);
    text_add(text, ":");
}

void json_number(struct text *text, const char *name, uint64_t number)
{
    json_key(text, name);
    text_number(text, number);
}

void json_string(struct text *text, const char *name, const char *string)
{
    json_key(text, name);
    text_json(text, string);
}

const char *json_end(struct text *text)
{
    text_add(text, "}");
    text_bytes(text, "", 1);
    return text->full ? "{\"error\":\"the answer is too large\"}" : text->at;
}
