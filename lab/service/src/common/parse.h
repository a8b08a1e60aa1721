/* Parts of texts, and what they mean. */
#ifndef LAB_PARSE_H
#define LAB_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A part of a text, not NUL-terminated. */
struct slice {
    const char *at;
    size_t length;
};

bool slice_is(struct slice slice, const char *string);
bool slice_is_nocase(struct slice slice, const char *string);
/* A decimal number of at most `max`, the whole of `string`. */
bool parse_number(const char *string, size_t length, uint64_t max, uint64_t *number);
/* A numeric IPv4 or IPv6 address: no name is ever looked up. */
bool parse_address(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *length);

#endif
