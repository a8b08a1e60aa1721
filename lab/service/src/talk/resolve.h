/* A name's IPv4 address, as the first resolver of /etc/resolv.conf tells it. */
#ifndef LAB_RESOLVE_H
#define LAB_RESOLVE_H

#include <netinet/in.h>
#include <stdint.h>

/* NULL, or why there is none; `took_ns` is from the question to the answer's end. */
const char *resolve(const char *name, struct in_addr *found, uint64_t *took_ns);

#endif
