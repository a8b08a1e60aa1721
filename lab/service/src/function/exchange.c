/* One HTTP/1.1 request and its answer: a body by length, by chunks (decoded where it lies), or to the connection's
 * end. */
#include "function/exchange.h"

#include "common/clock.h"
#include "common/files.h"
#include "http/request.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* What is read: `filled` bytes from `at` on. */
struct reading {
    int fd;
    char *at;
    size_t filled, capacity;
    uint64_t deadline_ns; /* 0: none */
};

/* The number of bytes that came; 0 at the end, or one of `enum exchanged`. */
static ssize_t more(struct reading *reading)
{
    if (reading->filled == reading->capacity) {
        return TOO_LARGE;
    }
    while (true) {
        int left_ms = -1;
        if (reading->deadline_ns) {
            uint64_t now = clock_ns(CLOCK_MONOTONIC);
            if (now >= reading->deadline_ns) {
                return TOO_LATE;
            }
            left_ms = (int)((reading->deadline_ns - now) / NS_PER_MS) + 1;
        }
        struct pollfd one = {.fd = reading->fd, .events = POLLIN};
        int ready = left_ms < 0 ? 1 : poll(&one, 1, left_ms);
        if (ready == 0 || (ready < 0 && errno == EINTR)) {
            continue;
        }
        ssize_t got = read(reading->fd, reading->at + reading->filled, reading->capacity - reading->filled);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got > 0) {
            reading->filled += (size_t)got;
        }
        return got < 0 ? NOBODY : got;
    }
}

bool dial(struct peer *peer)
{
    int on = 1;
    if (peer->fd >= 0) {
        return true;
    }
    peer->fd = socket(peer->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer->fd < 0) {
        return false;
    }
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int tried;
    do {
        tried = connect(peer->fd, (struct sockaddr *)&peer->address, peer->address_length);
    } while (tried < 0 && errno == EINTR);
    if (tried < 0) {
        hang_up(peer);
    }
    return tried == 0;
}

void hang_up(struct peer *peer)
{
    if (peer->fd >= 0) {
        close(peer->fd);
    }
    peer->fd = -1;
}

bool header_line(const char **at, const char *end, struct slice *name, struct slice *value)
{
    const char *start = *at, *newline = memchr(start, '\n', (size_t)(end - start));
    if (!newline) {
        return false;
    }
    const char *stop = newline > start && newline[-1] == '\r' ? newline - 1 : newline;
    const char *colon = memchr(start, ':', (size_t)(stop - start));
    *at = newline + 1;
    if (stop == start || !colon) {
        return false;
    }
    *name = (struct slice){start, (size_t)(colon - start)};
    for (colon++; colon < stop && (*colon == ' ' || *colon == '\t'); colon++) {
    }
    while (stop > colon && (stop[-1] == ' ' || stop[-1] == '\t')) {
        stop--;
    }
    *value = (struct slice){colon, (size_t)(stop - colon)};
    return true;
}

bool answer_header(const struct answer *answer, const char *name, struct slice *value)
{
    const char *end = answer->head.at + answer->head.length, *at = memchr(answer->head.at, '\n', answer->head.length);
    struct slice found;
    for (at = at ? at + 1 : end; header_line(&at, end, &found, value);) {
        if (slice_is_nocase(found, name)) {
            return true;
        }
    }
    return false;
}

static int read_head(struct reading *reading, struct answer *answer)
{
    size_t length;
    uint64_t status;
    while (!(length = head_length(reading->at, reading->filled))) {
        ssize_t got = more(reading);
        if (got <= 0) {
            return got < 0 ? (int)got : NOBODY;
        }
    }
    if (length < 12 || memcmp(reading->at, "HTTP/1.", 7) != 0 || reading->at[8] != ' ' ||
        !parse_number(reading->at + 9, 3, 599, &status)) {
        return NO_HTTP;
    }
    answer->status = (int)status;
    answer->head = (struct slice){reading->at, length};
    answer->body = reading->at + length;
    answer->body_length = 0;
    return ANSWERED;
}

/* A line of the chunks' own from *at on, which moves behind it; NULL with what `more` says once nothing comes. */
static int chunk_line(struct reading *reading, size_t *at, struct slice *line)
{
    const char *newline;
    while (!(newline = memchr(reading->at + *at, '\n', reading->filled - *at))) {
        ssize_t got = more(reading);
        if (got <= 0) {
            return got < 0 ? (int)got : NOBODY;
        }
    }
    size_t length = (size_t)(newline - (reading->at + *at));
    *line = (struct slice){reading->at + *at, length > 0 && newline[-1] == '\r' ? length - 1 : length};
    *at += length + 1;
    return ANSWERED;
}

static bool chunk_size(struct slice line, size_t *size)
{
    size_t digits = 0;
    *size = 0;
    for (; digits < line.length && digits < 8; digits++) {
        char c = line.at[digits];
        int value = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (value < 0) {
            break;
        }
        *size = *size * 16 + (size_t)value;
    }
    return digits > 0 && (digits == line.length || line.at[digits] == ';' || line.at[digits] == ' ');
}

static int read_chunks(struct reading *reading, struct answer *answer)
{
    size_t at = answer->head.length, size;
    struct slice line;
    int problem;
    while (true) {
        if ((problem = chunk_line(reading, &at, &line))) {
            return problem;
        }
        if (!chunk_size(line, &size)) {
            return NO_HTTP;
        }
        if (size == 0) {
            break;
        }
        while (reading->filled - at < size + 2) {
            ssize_t got = more(reading);
            if (got <= 0) {
                return got < 0 ? (int)got : NOBODY;
            }
        }
        memmove(answer->body + answer->body_length, reading->at + at, size);
        answer->body_length += size;
        at += size;
        if ((problem = chunk_line(reading, &at, &line)) || line.length) {
            return problem ? problem : NO_HTTP;
        }
    }
    do { /* trailers, and the empty line */
        problem = chunk_line(reading, &at, &line);
    } while (!problem && line.length);
    return problem;
}

static int read_body(struct reading *reading, struct answer *answer, bool *kept)
{
    struct slice value;
    uint64_t length = 0;
    *kept = !(answer_header(answer, "Connection", &value) && slice_is_nocase(value, "close"));
    if (answer->status == 204 || answer->status == 304) {
        return ANSWERED;
    }
    if (answer_header(answer, "Transfer-Encoding", &value)) {
        return slice_is_nocase(value, "chunked") ? read_chunks(reading, answer) : NO_HTTP;
    }
    bool told = answer_header(answer, "Content-Length", &value);
    if (told && !parse_number(value.at, value.length, UINT64_MAX / 2, &length)) {
        return NO_HTTP;
    }
    if (told && length > reading->capacity - answer->head.length) {
        return TOO_LARGE;
    }
    *kept = *kept && told;
    while (!told || reading->filled - answer->head.length < length) {
        ssize_t got = more(reading);
        if (got < 0 || (got == 0 && told)) {
            return got < 0 ? (int)got : NOBODY;
        }
        if (got == 0) {
            break;
        }
    }
    answer->body_length = told ? (size_t)length : reading->filled - answer->head.length;
    return ANSWERED;
}

enum exchanged exchange(struct peer *peer, struct slice request, struct slice body, char *into, size_t capacity,
                        uint64_t timeout_ms, struct answer *answer)
{
    uint64_t deadline_ns = timeout_ms ? clock_ns(CLOCK_MONOTONIC) + timeout_ms * NS_PER_MS : 0;
    bool reused, kept = false;
    int problem;
    do {
        reused = peer->fd >= 0;
        if (!dial(peer)) {
            return NOBODY;
        }
        struct reading reading = {peer->fd, into, 0, capacity, deadline_ns};
        bool sent = write_all(peer->fd, request.at, request.length) && write_all(peer->fd, body.at, body.length);
        /* Who refuses a body answers before it is all sent, and closes. */
        problem = read_head(&reading, answer);
        problem = problem ? problem : read_body(&reading, answer, &kept);
        if (problem || !sent || !kept) {
            hang_up(peer);
        }
        reused = reused && problem == NOBODY && reading.filled == 0;
    } while (reused);
    return (enum exchanged)problem;
}
