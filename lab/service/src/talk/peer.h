/* Another instance of the service, as a query names it. */
#ifndef LAB_PEER_H
#define LAB_PEER_H

#include "client/plan.h"
#include "http/request.h"

#define MAX_PEER_TEXT 256

/* By `host` (numeric), `name` (of DNS) or `vsock` (a CID of vsock(7)), each with `port`, or by `unix` (a name in the
 * abstract namespace);
 * `nonce` is what it admits. */
struct peer {
    char host[MAX_PEER_TEXT], name[MAX_PEER_TEXT], unix_name[MAX_PEER_TEXT], nonce[MAX_PEER_TEXT];
    uint64_t port, vsock; /* 0: not by it */
};

/* NULL, or what is wrong with the query. */
const char *read_peer(const struct request *request, struct peer *peer);
/* Its address into `plan`; a name is asked for, which took `resolve_ns`, 0 where there is none. NULL, or why not. */
const char *find_peer(const struct peer *peer, struct plan *plan, uint64_t *resolve_ns);
/* The value of a number in the query; `otherwise` where it is not there. False where it is none, or above `max`. */
bool read_number(const struct request *request, const char *name, uint64_t max, uint64_t otherwise, uint64_t *number);
/* The value of a text of printable characters; empty where it is not there. False where it is too long. */
bool read_word(const struct request *request, const char *name, char *into, size_t capacity);

#endif
