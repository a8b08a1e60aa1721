/* The connection loop, and the answers on its connections, each known by its slot. */
#ifndef LAB_CONNECTIONS_H
#define LAB_CONNECTIONS_H

#include "common/launch.h"
#include "http/request.h"

/* The network's listening socket, a Unix one and one of vsock; -1 where there is none. */
#define LISTENERS 3

/* What the loop is handed, since it knows no endpoint, nor whose children end. */
struct handlers {
    /* Answers by `respond` or `hand_over`, now or later. */
    void (*answer)(const struct launch *launch, int slot, const struct request *request);
    void (*forget)(int slot); /* the one who waits for an answer is gone */
    /* What goes on between requests: whether there is any, and a bounded piece of it. */
    bool (*busy)(void);
    void (*step)(void);
    void (*child_ended)(int pid); /* not yet waited for */
    void (*child_reaped)(int pid, int status);
};

/* The requests that were answered so far, the one that is being answered included. */
uint64_t served(void);
/* Returns 0 once nothing was open or went on for `idle_ns`, where that is not 0: whoever holds the listening socket as
 * well starts it anew. Else it returns only where it cannot serve. */
int serve(const struct launch *launch, const struct handlers *handlers, const int listeners[LISTENERS],
          uint64_t idle_ns);
void respond(int slot, int status, const char *headers, const char *json);
/* Another process answers on this connection; forget it here. */
void hand_over(int slot);
/* In that process: close every descriptor of the server's but this connection's, which is returned. */
int take_over(int slot);

#endif
