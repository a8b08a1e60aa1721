/* JSON (RFC 8259) read in place, by one pass without recursion: what nests deeper than 64 is refused. */
#include "function/scan.h"

#include <string.h>

#define MAX_DEPTH 64

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r')) {
        scan->at++;
    }
}

static bool fail(struct scan *scan)
{
    scan->at = NULL;
    return false;
}

static bool take(struct scan *scan, char wanted)
{
    skip_space(scan);
    if (scan->at < scan->end && *scan->at == wanted) {
        scan->at++;
        return true;
    }
    return false;
}

static bool pass_string(struct scan *scan)
{
    for (scan->at++; scan->at < scan->end; scan->at++) {
        if (*scan->at == '\\') {
            scan->at++;
        } else if (*scan->at == '"') {
            scan->at++;
            return true;
        } else if ((unsigned char)*scan->at < ' ') {
            return false;
        }
    }
    return false;
}

static bool pass_word(struct scan *scan)
{
    const char *start = scan->at;
    while (scan->at < scan->end && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE", *scan->at) && *scan->at) {
        scan->at++;
    }
    return scan->at > start;
}

bool scan_value(struct scan *scan, struct slice *value)
{
    char closing[MAX_DEPTH];
    size_t depth = 0;
    skip_space(scan);
    const char *start = scan->at;
    do {
        skip_space(scan);
        if (scan->at >= scan->end) {
            return fail(scan);
        }
        if (*scan->at == '{' || *scan->at == '[') {
            if (depth == MAX_DEPTH) {
                return fail(scan);
            }
            closing[depth++] = *scan->at++ == '{' ? '}' : ']';
        } else if (depth > 0 && *scan->at == closing[depth - 1]) {
            depth--;
            scan->at++;
        } else if (depth > 0 && (*scan->at == ',' || *scan->at == ':')) {
            scan->at++;
        } else if (!(*scan->at == '"' ? pass_string(scan) : pass_word(scan))) {
            return fail(scan);
        }
    } while (depth > 0);
    *value = (struct slice){start, (size_t)(scan->at - start)};
    return true;
}

bool scan_object(struct scan *scan)
{
    return take(scan, '{');
}

bool scan_member(struct scan *scan, bool *first, struct slice *name)
{
    if (take(scan, '}')) {
        return false;
    }
    if (!*first && !take(scan, ',')) {
        return fail(scan);
    }
    *first = false;
    skip_space(scan);
    const char *start = scan->at;
    if (start >= scan->end || *start != '"' || !pass_string(scan)) {
        return fail(scan);
    }
    *name = (struct slice){start + 1, (size_t)(scan->at - start) - 2};
    return take(scan, ':') || fail(scan);
}

static bool hex4(const char *at, const char *end, uint32_t *code)
{
    *code = 0;
    if (end - at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        const char *digit = strchr("0123456789abcdef", at[i] >= 'A' && at[i] <= 'F' ? at[i] + 32 : at[i]);
        if (!at[i] || !digit) {
            return false;
        }
    }
    for (int i = 0; i < 4; i++) {
        char c = at[i] >= 'A' && at[i] <= 'F' ? (char)(at[i] + 32) : at[i];
        *code = *code * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

static size_t utf8(uint32_t code, char *into)
{
    if (code < 0x80) {
        into[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        into[0] = (char)(0xc0 | code >> 6);
        into[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        into[0] = (char)(0xe0 | code >> 12);
        into[1] = (char)(0x80 | (code >> 6 & 0x3f));
        into[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    into[0] = (char)(0xf0 | code >> 18);
    into[1] = (char)(0x80 | (code >> 12 & 0x3f));
    into[2] = (char)(0x80 | (code >> 6 & 0x3f));
    into[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* The character that stands behind a backslash at *at, which moves behind it; 0 bytes where there is none such. */
static size_t escaped(const char **at, const char *end, char *into)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *found = *at < end && **at ? strchr(names, **at) : NULL;
    uint32_t code, low;
    if (found) {
        (*at)++;
        into[0] = values[found - names];
        return 1;
    }
    if (*at >= end || **at != 'u' || !hex4(*at + 1, end, &code)) {
        return 0;
    }
    *at += 5;
    if (code >= 0xd800 && code < 0xdc00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u' &&
        hex4(*at + 2, end, &low) && low >= 0xdc00 && low < 0xe000) {
        *at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xd800 && code < 0xe000) {
        code = 0xfffd; /* half of a pair is no character */
    }
    return utf8(code, into);
}

bool unquote(struct slice text, char *into, size_t *length)
{
    if (text.length < 2 || text.at[0] != '"') {
        return false;
    }
    const char *at = text.at + 1, *end = text.at + text.length - 1;
    size_t count = 0;
    while (at < end) {
        char bytes[4];
        size_t got = 1;
        if (*at == '\\') {
            at++;
            if (!(got = escaped(&at, end, bytes))) {
                return false;
            }
        } else {
            bytes[0] = *at++;
        }
        if (into) {
            memcpy(into + count, bytes, got);
        }
        count += got;
    }
    *length = count;
    return true;
}
