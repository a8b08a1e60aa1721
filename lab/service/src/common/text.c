/* Bounded text, without stdio and without the heap. */
#include "common/text.h"

#include <string.h>

void text_bytes(struct text *text, const char *bytes, size_t length)
{
    if (text->full || length > text->capacity - text->length) {
        text->full = true;
        return;
    }
    memcpy(text->at + text->length, bytes, length);
    text->length += length;
}

void text_add(struct text *text, const char *string)
{
    text_bytes(text, string, strlen(string));
}

void text_number(struct text *text, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    text_bytes(text, digits + at, sizeof digits - at);
}
