/* Base64 (RFC 4648). */
#ifndef LAB_BASE64_H
#define LAB_BASE64_H

#include "common/text.h"

void text_base64(struct text *text, const char *bytes, size_t length);
/* Decodes in place; false where it is none. White space is none. */
bool from_base64(char *bytes, size_t length, size_t *decoded);

#endif
