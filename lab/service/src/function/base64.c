/* Base64 (RFC 4648), with padding. */
#include "function/base64.h"

#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void text_base64(struct text *text, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = (uint32_t)(unsigned char)bytes[i] << 16;
        three |= i + 1 < length ? (uint32_t)(unsigned char)bytes[i + 1] << 8 : 0;
        three |= i + 2 < length ? (uint32_t)(unsigned char)bytes[i + 2] : 0;
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], digits[three >> 6 & 63], digits[three & 63]};
        if (i + 1 >= length) {
            four[2] = '=';
        }
        if (i + 2 >= length) {
            four[3] = '=';
        }
        text_bytes(text, four, sizeof four);
    }
}

bool from_base64(char *bytes, size_t length, size_t *decoded)
{
    static signed char values[256];
    size_t count = 0, padding = 0;
    if (!values['A'] && !values['B']) {
        memset(values, -1, sizeof values);
        for (int i = 0; i < 64; i++) {
            values[(unsigned char)digits[i]] = (signed char)i;
        }
    }
    if (length % 4 != 0) {
        return false;
    }
    while (padding < 2 && padding < length && bytes[length - 1 - padding] == '=') {
        padding++;
    }
    for (size_t i = 0; i < length; i += 4) {
        uint32_t three = 0;
        for (size_t j = i; j < i + 4; j++) {
            int value = j >= length - padding ? 0 : values[(unsigned char)bytes[j]];
            if (value < 0) {
                return false;
            }
            three = three << 6 | (uint32_t)value;
        }
        bytes[count++] = (char)(three >> 16);
        bytes[count++] = (char)(three >> 8);
        bytes[count++] = (char)three;
    }
    *decoded = count - padding;
    return true;
}
