/* The open-loop schedule: every request has its instant, whatever became of those before it.
 *
 * One thread, epoll, and a timer on absolute time. A request whose instant finds no free connection is missed and
 * counted, never queued: queueing would hide the very stall that is to be seen.
 */
#include "client/schedule.h"

#include "client/connect.h"
#include "client/versions.h"
#include "common/clock.h"
#include "common/parse.h"
#include "http/request.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_ANSWER_HEAD 8192
#define TIMER MAX_CLIENT_CONNECTIONS
#define UNTIL_CLOSED UINT64_MAX
#define EARLY_NS (1 * NS_PER_S) /* the most that opening connections beforehand may take */
#define START_DELAY_NS (5 * NS_PER_MS)

enum state { FREE, IDLE, CONNECTING, SENDING, HEAD, BODY };

struct connection {
    int fd;
    enum state state;
    bool keep;
    uint64_t request, deadline_ns, body_left;
    size_t sent, length;
    int status;
    uint8_t version;
    char head[MAX_ANSWER_HEAD];
};

static struct connection connections[MAX_CLIENT_CONNECTIONS];
static volatile sig_atomic_t stopping;

static const struct plan *plan;
static struct record *records;
static int epoll_fd;
static uint64_t outstanding, earliest_deadline_ns;

void stop_schedule(int signal)
{
    (void)signal;
    stopping = 1;
}

uint64_t intended_ns(const struct plan *of, uint64_t start_ns, uint64_t index)
{
    return start_ns + index * of->spacing_ns / of->spacing_of; /* at most 1e6 * 60e9: no overflow */
}

static bool busy(const struct connection *connection)
{
    return connection->state > IDLE;
}

static void disconnect(struct connection *connection)
{
    close(connection->fd);
    connection->state = FREE;
}

/* The request of `connection` has ended; `status` is HTTP's or an outcome. */
static void done(struct connection *connection, int status, bool reusable)
{
    struct record *record = &records[connection->request];
    record->done_ns = clock_ns(CLOCK_MONOTONIC);
    record->status = (int16_t)status;
    record->version = status > 0 ? connection->version : 0;
    outstanding--;
    if (reusable) {
        connection->state = IDLE;
    } else {
        disconnect(connection);
    }
}

static void watch_for(struct connection *connection, int operation, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.u32 = (uint32_t)(connection - connections)};
    if (epoll_ctl(epoll_fd, operation, connection->fd, &event) < 0) {
        done(connection, BROKEN, false);
    }
}

static void send_request(struct connection *connection)
{
    if (connection->sent == 0) {
        records[connection->request].begun_ns = clock_ns(CLOCK_MONOTONIC);
    }
    while (connection->sent < plan->request_length) {
        ssize_t sent = send(connection->fd, plan->request + connection->sent, plan->request_length - connection->sent,
                            MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && errno == EAGAIN) {
            connection->state = SENDING;
            watch_for(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        if (sent < 0) {
            done(connection, connection->state == CONNECTING ? REFUSED : CLOSED, false);
            return;
        }
        connection->sent += (size_t)sent;
    }
    records[connection->request].sent_ns = clock_ns(CLOCK_MONOTONIC);
    if (connection->state != HEAD) {
        connection->state = HEAD;
        watch_for(connection, EPOLL_CTL_MOD, EPOLLIN);
    }
}

/* A connection for one more request: an idle one, or a new one; NULL when there is none to have. */
static struct connection *take_connection(void)
{
    struct connection *unused = NULL;
    for (uint64_t i = 0; i < plan->connections; i++) {
        if (connections[i].state == IDLE) {
            return &connections[i];
        }
        if (connections[i].state == FREE && !unused) {
            unused = &connections[i];
        }
    }
    return unused && (unused->fd = new_socket(plan)) >= 0 ? unused : NULL;
}

static void start_request(uint64_t index, bool late)
{
    struct connection *connection = take_connection();
    records[index].late = late;
    if (!connection) {
        records[index].status = MISSED;
        return;
    }
    bool fresh = connection->state == FREE;
    connection->request = index;
    connection->deadline_ns = clock_ns(CLOCK_MONOTONIC) + plan->timeout_ns;
    connection->sent = connection->length = 0;
    connection->version = 0;
    if (outstanding++ == 0 || connection->deadline_ns < earliest_deadline_ns) {
        earliest_deadline_ns = connection->deadline_ns;
    }
    if (!fresh) {
        connection->state = HEAD;
        send_request(connection);
        return;
    }
    connection->state = CONNECTING;
    if (connect(connection->fd, (const struct sockaddr *)&plan->address, plan->address_length) < 0 &&
        errno != EINPROGRESS) {
        done(connection, REFUSED, false);
        return;
    }
    watch_for(connection, EPOLL_CTL_ADD, EPOLLOUT);
}

/* The value of a header in an answer's head, trimmed; false when it is not there. */
static bool header(const struct connection *connection, size_t head, const char *name, struct slice *value)
{
    const char *at = connection->head, *end = connection->head + head;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        const char *colon = memchr(at, ':', (size_t)(stop - at));
        if (colon && slice_is_nocase((struct slice){at, (size_t)(colon - at)}, name)) {
            const char *from = colon + 1;
            while (from < stop && (*from == ' ' || *from == '\t')) {
                from++;
            }
            while (stop > from && (stop[-1] == ' ' || stop[-1] == '\r')) {
                stop--;
            }
            *value = (struct slice){from, (size_t)(stop - from)};
            return true;
        }
        at = newline ? newline + 1 : end;
    }
    return false;
}

/* Reads a complete head: 0 when it is understood, else the outcome. */
static int read_head(struct connection *connection, size_t head)
{
    struct slice value;
    uint64_t status;
    const char *at = connection->head;
    if (head < 13 || memcmp(at, "HTTP/1.", 7) != 0 || at[8] != ' ' || !parse_number(at + 9, 3, 999, &status) ||
        status < 100) {
        return BROKEN;
    }
    connection->status = (int)status;
    connection->keep = plan->reuse && at[7] == '1';
    if (header(connection, head, "Connection", &value) && slice_is_nocase(value, "close")) {
        connection->keep = false;
    }
    if (header(connection, head, "X-Lab-Version", &value)) {
        connection->version = version_number(value.at, value.length);
    }
    if (status == 204 || status == 304) {
        connection->body_left = 0;
    } else if (header(connection, head, "Transfer-Encoding", &value) ||
               !header(connection, head, "Content-Length", &value)) {
        /* Its end is the connection's; where that is kept open, the end cannot be told here. */
        if (connection->keep) {
            return BROKEN;
        }
        connection->body_left = UNTIL_CLOSED;
    } else if (!parse_number(value.at, value.length, UINT64_MAX - 1, &connection->body_left)) {
        return BROKEN;
    }
    return 0;
}

static void take_body(struct connection *connection, size_t length)
{
    if (connection->body_left == UNTIL_CLOSED) {
        return;
    }
    if (length > connection->body_left) {
        done(connection, BROKEN, false);
        return;
    }
    connection->body_left -= length;
    if (connection->body_left == 0) {
        done(connection, connection->status, connection->keep);
    }
}

static void take_head(struct connection *connection)
{
    size_t head = head_length(connection->head, connection->length);
    if (head == 0) {
        if (connection->length == MAX_ANSWER_HEAD) {
            done(connection, BROKEN, false);
        }
        return;
    }
    int problem = read_head(connection, head);
    if (problem) {
        done(connection, problem, false);
        return;
    }
    connection->state = BODY;
    take_body(connection, connection->length - head);
}

static void receive(struct connection *connection)
{
    static char dropped[65536];
    bool head = connection->state != BODY;
    ssize_t got = recv(connection->fd, head ? connection->head + connection->length : dropped,
                       head ? MAX_ANSWER_HEAD - connection->length : sizeof dropped, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (connection->state == IDLE) {
        disconnect(connection); /* the server's end of a pause, or bytes that nobody asked for */
    } else if (got <= 0) {
        bool whole = got == 0 && connection->state == BODY && connection->body_left == UNTIL_CLOSED;
        done(connection, whole ? connection->status : CLOSED, false);
    } else if (head) {
        connection->length += (size_t)got;
        take_head(connection);
    } else {
        take_body(connection, (size_t)got);
    }
}

static void handle(struct connection *connection, uint32_t events)
{
    if (connection->state == CONNECTING) {
        int problem = 0;
        socklen_t length = sizeof problem;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &problem, &length);
        if (problem) {
            done(connection, REFUSED, false);
        } else {
            send_request(connection);
        }
    } else if (connection->state == SENDING && (events & EPOLLOUT)) {
        send_request(connection);
    } else if (connection->state != FREE) {
        receive(connection);
    }
}

static void abandon_overdue(uint64_t now)
{
    uint64_t next = UINT64_MAX;
    if (outstanding == 0 || now < earliest_deadline_ns) {
        return;
    }
    for (uint64_t i = 0; i < plan->connections; i++) {
        if (busy(&connections[i]) && now >= connections[i].deadline_ns) {
            done(&connections[i], TIMED_OUT, false);
        } else if (busy(&connections[i]) && connections[i].deadline_ns < next) {
            next = connections[i].deadline_ns;
        }
    }
    earliest_deadline_ns = next;
}

/* The client slept when it should not have: what was under way then is not to be believed. */
static void mark_late(void)
{
    for (uint64_t i = 0; i < plan->connections; i++) {
        if (busy(&connections[i])) {
            records[connections[i].request].late = true;
        }
    }
}

static void set_timer(int timer, uint64_t at_ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ns / NS_PER_S), .tv_nsec = (long)(at_ns % NS_PER_S)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void open_early(void)
{
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + EARLY_NS;
    for (uint64_t i = 0; i < plan->early; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        int fd = connections[i].fd = connected_socket(plan, until_ns);
        if (fd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) {
            connections[i].state = IDLE;
        } else if (fd >= 0) {
            close(fd);
        }
    }
}

bool run_schedule(const struct plan *given, struct record *into, uint64_t *first_ns)
{
    static struct epoll_event events[256];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = TIMER};
    sigset_t waiting;
    uint64_t next = 0;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    plan = given;
    records = into;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (timer < 0 || epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event) < 0) {
        return false;
    }
    open_early();
    uint64_t start_ns = *first_ns = clock_ns(CLOCK_MONOTONIC) + START_DELAY_NS;
    sigprocmask(SIG_BLOCK, NULL, &waiting);
    sigdelset(&waiting, SIGTERM);
    sigdelset(&waiting, SIGINT);

    while (!stopping && (next < plan->count || outstanding > 0)) {
        uint64_t wake_ns = next < plan->count ? intended_ns(plan, start_ns, next) : UINT64_MAX;
        if (outstanding > 0 && earliest_deadline_ns < wake_ns) {
            wake_ns = earliest_deadline_ns;
        }
        set_timer(timer, wake_ns);
        int count = epoll_pwait(epoll_fd, events, sizeof events / sizeof *events, -1, &waiting);
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        if (now > wake_ns && now - wake_ns > plan->late_ns) {
            mark_late();
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 != TIMER) {
                handle(&connections[events[i].data.u32], events[i].events);
            }
        }
        abandon_overdue(now);
        for (; next < plan->count && !stopping; next++) {
            uint64_t due = intended_ns(plan, start_ns, next);
            now = clock_ns(CLOCK_MONOTONIC);
            if (due > now) {
                break;
            }
            start_request(next, now - due > plan->late_ns);
        }
    }
    for (uint64_t i = 0; i < plan->connections; i++) {
        if (busy(&connections[i])) {
            done(&connections[i], CUT_OFF, false);
        }
    }
    return true;
}
