/* One HTTP/1.1 request and its answer, on a connection that is kept. */
#ifndef LAB_EXCHANGE_H
#define LAB_EXCHANGE_H

#include "common/parse.h"

/* Where to ask; `fd` is -1 while nothing is connected. */
struct peer {
    struct sockaddr_storage address;
    socklen_t address_length;
    int fd;
};

/* An answer, in the memory that it was read into; `head` are its lines, the empty one included. */
struct answer {
    int status;
    struct slice head;
    char *body;
    size_t body_length;
};

enum exchanged {
    ANSWERED = 0,
    NOBODY = -1,    /* no connection, or it ended before the answer did */
    TOO_LATE = -2,  /* no whole answer in time */
    TOO_LARGE = -3, /* more than there is room for */
    NO_HTTP = -4,
};

/* Sends `request`, which is whole but for its body, and reads the answer into `into`. `timeout_ms` 0 waits for ever. A
 * kept connection that the other side had closed meanwhile is replaced once. */
enum exchanged exchange(struct peer *peer, struct slice request, struct slice body, char *into, size_t capacity,
                        uint64_t timeout_ms, struct answer *answer);
/* Whether it is connected, or can be now. */
bool dial(struct peer *peer);
void hang_up(struct peer *peer);
/* The value of the header `name` in an answer's head. */
bool answer_header(const struct answer *answer, const char *name, struct slice *value);
/* The header line that starts at *at, which moves behind it; false at the head's end. */
bool header_line(const char **at, const char *end, struct slice *name, struct slice *value);

#endif
