/* What the two parts of the client mode share: the plan, and what became of each request. */
#ifndef LAB_CLIENT_H
#define LAB_CLIENT_H

#include "common/service.h"

#define MAX_CLIENT_CONNECTIONS 1024

struct plan {
    struct sockaddr_storage address;
    socklen_t address_length;
    const char *request; /* the bytes of every request */
    size_t request_length;
    uint64_t count, connections, timeout_ns, late_ns;
    uint64_t spacing_ns, spacing_of; /* `spacing_of` requests every `spacing_ns` */
    uint64_t early; /* connections to open before the first request, to be kept */
    bool reuse;     /* keep connections open between requests */
};

/* A status of HTTP, or one of these. */
enum outcome {
    UNSENT = 0,     /* its instant was not reached: the client was stopped */
    MISSED = -1,    /* at its instant every connection was taken, or none could be made */
    TIMED_OUT = -2, /* abandoned without a complete answer */
    REFUSED = -3,   /* no connection */
    CLOSED = -4,    /* the connection ended before the answer did */
    BROKEN = -5,    /* the answer was not understood */
    CUT_OFF = -6,   /* the client was stopped before the answer */
};

struct record {
    uint64_t sent_ns, done_ns; /* 0: never */
    int16_t status;
    bool late;       /* the client itself was late at some time between the request's instant and its end */
    uint8_t version; /* an index into the names of versions seen; 0 is none */
};

/* schedule.c: opens the early connections, sets the instant of the first request, and runs the plan from there on; false
 * when the kernel refuses what that takes. */
bool run_schedule(const struct plan *plan, struct record *records, uint64_t *start_ns);
uint64_t intended_ns(const struct plan *plan, uint64_t start_ns, uint64_t index);
void stop_schedule(int signal);

/* versions.c: 0 is no version, and 1 any beyond the first 62. */
const char *version_name(uint8_t version);
uint8_t version_number(const char *at, size_t length);

/* connect.c: a socket for one connection; -1 when there is none to have. */
int new_socket(const struct plan *plan);
/* One that is connected already; -1 where that takes 100 ms or longer, or goes beyond `until_ns`. */
int connected_socket(const struct plan *plan, uint64_t until_ns);

#endif
