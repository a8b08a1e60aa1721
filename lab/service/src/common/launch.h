/* The launch that a service is of. */
#ifndef LAB_LAUNCH_H
#define LAB_LAUNCH_H

#include <stdint.h>

/* The launch, as its environment tells it, and the instants that the service itself has seen. */
struct launch {
    const char *nonce;   /* empty: every endpoint but /healthz refuses */
    const char *version; /* empty: no X-Lab-Version header */
    uint64_t main_ns, main_boottime_ns;
    uint64_t listening_ns, listening_boottime_ns;
    char token[33]; /* random, and in this process's memory only: whoever tells it again was not started anew */
};

#endif
