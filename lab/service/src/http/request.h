/* Heads of HTTP/1.1, and requests. */
#ifndef LAB_REQUEST_H
#define LAB_REQUEST_H

#include "common/parse.h"

/* A request as the parser hands it on. */
struct request {
    struct slice method, path, query, nonce;
    bool has_query, keep_alive;
    uint64_t content_length;
};

/* The length of a head, its empty line included; 0 while it is incomplete. */
size_t head_length(const char *bytes, size_t length);
/* 0, or the status with which to refuse what cannot be served. */
int parse_request(const char *head, size_t length, struct request *request);
/* The value of `name` in a query of `name=value` pairs joined by '&'; false when it is not there. */
bool query_value(const struct request *request, const char *name, struct slice *value);
/* Whether the query is exactly `name=N`, N being at most `max`. */
bool query_number(const struct request *request, const char *name, uint64_t max, uint64_t *number);

#endif
