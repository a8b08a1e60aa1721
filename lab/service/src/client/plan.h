/* The client's plan, and what became of each request. */
#ifndef LAB_PLAN_H
#define LAB_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

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
    uint64_t begun_ns, sent_ns, done_ns; /* just before its first byte left, and after its last; 0: never */
    int16_t status;
    bool late;       /* the client itself was late at some time between the request's instant and its end */
    uint8_t version; /* an index into the names of versions seen; 0 is none */
};

#endif
