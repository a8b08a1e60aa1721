/* JSON read in place: nothing is copied until a string is wanted. */
#ifndef LAB_SCAN_H
#define LAB_SCAN_H

#include "common/parse.h"

struct scan {
    const char *at, *end;
};

/* Steps into the object that begins here; false where none does. */
bool scan_object(struct scan *scan);
/* The next member's name, as it is written; the scan then stands at its value, which `scan_value` must pass. False at
 * the object's end, and where it is no JSON: `scan->at` is then NULL. */
bool scan_member(struct scan *scan, bool *first, struct slice *name);
/* Passes one value; false where it is none. `value` is its text, quotes included. */
bool scan_value(struct scan *scan, struct slice *value);
/* A quoted string's bytes, at most as many as the text has; false where the text is no string. `into` may be NULL: then
 * only its length is told. */
bool unquote(struct slice text, char *into, size_t *length);

#endif
