/* Responses of HTTP/1.1, whose body is JSON. */
#ifndef LAB_RESPONSE_H
#define LAB_RESPONSE_H

#include "common/launch.h"

#include <stdbool.h>
#include <stddef.h>

/* A whole response; 0 when it does not fit. `headers` are extra lines, each ending in CRLF, or NULL. */
size_t format_response(const struct launch *launch, char *into, size_t capacity, int status, bool keep_alive,
                       const char *headers, const char *json);

#endif
