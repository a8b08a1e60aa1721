/* The connection loop: one thread, epoll, hard caps on connections, header bytes, body bytes and time.
 *
 * A connection is READING a head, then its BODY (which is dropped), then WAITING for an endpoint that takes longer,
 * then WRITING; one that is refused is DRAINING for a moment, as closing with unread input would destroy the answer.
 */
#include "server/connections.h"

#include "common/clock.h"
#include "common/files.h"
#include "http/request.h"
#include "http/response.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CONNECTIONS 512
#define MAX_HEAD 8192
#define MAX_RESPONSE 8192
#define MAX_BODY 65536
#define REQUEST_NS (10 * NS_PER_S)     /* for one request, and for the pause before the next */
#define CONNECTION_NS (600 * NS_PER_S) /* after which the next answer closes it */
#define DRAIN_NS (1 * NS_PER_S)
#define ACCEPTS_PER_TURN 64
#define SWEEP_MS 500
#define LISTENER MAX_CONNECTIONS /* the first of LISTENERS, told by what follows the slots */

enum state { FREE, READING, BODY, WAITING, WRITING, DRAINING };

struct connection {
    int fd;
    enum state state;
    bool keep_alive, refused;
    uint32_t interest; /* the epoll events asked for */
    uint64_t opened_ns, deadline_ns, body_left;
    size_t head, in_length, out_length, out_sent;
    char in[MAX_HEAD], out[MAX_RESPONSE];
};

/* In .bss: only the pages of slots in use ever become resident, and the lowest free slot is taken first. */
static struct connection connections[MAX_CONNECTIONS];
static const struct launch *launched;
static const struct handlers *handed;
static int epoll_fd, listener_fds[LISTENERS], active;
static bool listener_paused;
static uint64_t served_so_far;
static volatile sig_atomic_t child_ended;

static void child_signal(int signal)
{
    (void)signal;
    child_ended = 1;
}

static void listen_to(struct connection *connection, uint32_t interest)
{
    if (connection->interest != interest) {
        struct epoll_event event = {.events = interest, .data.u32 = (uint32_t)(connection - connections)};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
        connection->interest = interest;
    }
}

static void listener_interest(bool on)
{
    for (uint32_t i = 0; i < LISTENERS; i++) {
        struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.u32 = LISTENER + i};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, listener_fds[i], &event); /* -1, where there is none, changes nothing */
    }
    listener_paused = !on;
}

static void drop(struct connection *connection)
{
    int slot = (int)(connection - connections);
    if (connection->state == WAITING) {
        handed->forget(slot);
    }
    /* Taken out by hand: where a child holds a copy of the descriptor, closing alone would not. */
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    close(connection->fd);
    connection->state = FREE;
    active--;
    if (listener_paused) {
        listener_interest(true);
    }
}

static void drain(struct connection *connection)
{
    shutdown(connection->fd, SHUT_WR);
    connection->state = DRAINING;
    connection->deadline_ns = clock_ns(CLOCK_MONOTONIC) + DRAIN_NS;
    listen_to(connection, EPOLLIN);
}

/* Sends what is left; true when the connection is ready for its next request. */
static bool flush(struct connection *connection)
{
    while (connection->out_sent < connection->out_length) {
        ssize_t sent = send(connection->fd, connection->out + connection->out_sent,
                            connection->out_length - connection->out_sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && errno == EAGAIN) {
            listen_to(connection, EPOLLOUT);
            return false;
        }
        if (sent < 0) {
            drop(connection);
            return false;
        }
        connection->out_sent += (size_t)sent;
    }
    if (connection->refused || (!connection->keep_alive && connection->in_length > connection->head)) {
        drain(connection);
        return false;
    }
    if (!connection->keep_alive) {
        drop(connection);
        return false;
    }
    connection->in_length -= connection->head;
    memmove(connection->in, connection->in + connection->head, connection->in_length);
    connection->head = 0;
    connection->state = READING;
    connection->deadline_ns = clock_ns(CLOCK_MONOTONIC) + REQUEST_NS;
    listen_to(connection, EPOLLIN);
    return true;
}

static void put_response(struct connection *connection, int status, const char *headers, const char *json)
{
    if (clock_ns(CLOCK_MONOTONIC) - connection->opened_ns > CONNECTION_NS) {
        connection->keep_alive = false;
    }
    connection->out_length = format_response(launched, connection->out, MAX_RESPONSE, status, connection->keep_alive,
                                             headers, json);
    if (connection->out_length == 0) {
        connection->out_length = format_response(launched, connection->out, MAX_RESPONSE, 500, connection->keep_alive,
                                                 NULL, "{\"error\":\"the answer is too large\"}");
    }
    connection->out_sent = 0;
    connection->state = WRITING;
    connection->deadline_ns = clock_ns(CLOCK_MONOTONIC) + REQUEST_NS;
}

static void refuse(struct connection *connection, int status)
{
    connection->keep_alive = false;
    connection->refused = true;
    served_so_far++;
    put_response(connection, status, NULL, status == 408 ? "{\"error\":\"too slow\"}" : "{\"error\":\"refused\"}");
}

/* Moves a connection on as far as its input allows. */
static void advance(struct connection *connection)
{
    struct request request;
    for (;;) {
        if (connection->state == READING) {
            size_t skip = 0; /* empty lines between requests, which RFC 9112 asks to ignore */
            while (skip < connection->in_length && (connection->in[skip] == '\r' || connection->in[skip] == '\n')) {
                skip++;
            }
            connection->in_length -= skip;
            memmove(connection->in, connection->in + skip, connection->in_length);
            connection->head = head_length(connection->in, connection->in_length);
            if (connection->head == 0 && connection->in_length < MAX_HEAD) {
                return;
            }
            int status = connection->head ? parse_request(connection->in, connection->head, &request) : 431;
            if (status == 0 && request.content_length > MAX_BODY) {
                status = 413;
            }
            if (status) {
                refuse(connection, status);
            } else {
                size_t behind = connection->in_length - connection->head;
                size_t body = behind < request.content_length ? behind : (size_t)request.content_length;
                connection->body_left = request.content_length - body;
                connection->in_length -= body;
                memmove(connection->in + connection->head, connection->in + connection->head + body, behind - body);
                connection->state = BODY;
            }
        }
        if (connection->state == BODY) {
            if (connection->body_left > 0) {
                return;
            }
            parse_request(connection->in, connection->head, &request);
            connection->keep_alive = request.keep_alive;
            connection->state = WAITING;
            served_so_far++;
            handed->answer(launched, (int)(connection - connections), &request);
            if (connection->state == WAITING) {
                /* An endless touch of memory may last; the endpoint bounds it. Only a hang-up is of interest. */
                connection->deadline_ns = UINT64_MAX;
                listen_to(connection, 0);
            }
        }
        if (connection->state != WRITING || !flush(connection)) {
            return;
        }
    }
}

uint64_t served(void)
{
    return served_so_far;
}

void respond(int slot, int status, const char *headers, const char *json)
{
    bool asynchronous = connections[slot].interest == 0;
    put_response(&connections[slot], status, headers, json);
    if (asynchronous && flush(&connections[slot])) {
        advance(&connections[slot]);
    }
}

void hand_over(int slot)
{
    drop(&connections[slot]);
}

int take_over(int slot)
{
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        if (connections[i].state != FREE && i != slot) {
            close(connections[i].fd);
        }
    }
    for (size_t i = 0; i < LISTENERS; i++) {
        if (listener_fds[i] >= 0) {
            close(listener_fds[i]);
        }
    }
    close(epoll_fd);
    return connections[slot].fd;
}

static void readable(struct connection *connection)
{
    static char dropped[16384];
    for (;;) {
        bool head = connection->state == READING;
        size_t room = head ? MAX_HEAD - connection->in_length : sizeof dropped;
        if (connection->state == BODY && connection->body_left < room) {
            room = (size_t)connection->body_left;
        }
        ssize_t got = recv(connection->fd, head ? connection->in + connection->in_length : dropped, room, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got <= 0) {
            drop(connection);
            return;
        }
        if (connection->state == DRAINING) {
            return;
        }
        if (head) {
            connection->in_length += (size_t)got;
        } else {
            connection->body_left -= (uint64_t)got;
        }
        advance(connection);
        return; /* level-triggered: what is left comes in the next turn, after others had theirs */
    }
}

static void add_connection(int fd)
{
    int on = 1;
    int slot = 0;
    while (slot < MAX_CONNECTIONS && connections[slot].state != FREE) {
        slot++;
    }
    if (slot == MAX_CONNECTIONS) {
        static char full[512];
        size_t length = format_response(launched, full, sizeof full, 503, false, NULL, "{\"error\":\"connections\"}");
        (void)!send(fd, full, length, MSG_NOSIGNAL | MSG_DONTWAIT); /* best effort: the cap holds either way */
        close(fd);
        return;
    }
    struct connection *connection = &connections[slot];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)slot};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->fd = fd;
    connection->state = READING;
    connection->interest = EPOLLIN;
    connection->keep_alive = connection->refused = false;
    connection->head = connection->in_length = 0;
    connection->opened_ns = clock_ns(CLOCK_MONOTONIC);
    connection->deadline_ns = connection->opened_ns + REQUEST_NS;
    active++;
    readable(connection); /* the request is usually there already */
}

static void accept_connections(int listener_fd)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            add_connection(fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            /* Without a descriptor to spare, a level-triggered listener would spin: wait for a close or the sweep. */
            listener_interest(false);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void sweep(void)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        struct connection *connection = &connections[i];
        if (connection->state == FREE || now < connection->deadline_ns) {
            continue;
        }
        if (connection->state == BODY || (connection->state == READING && connection->in_length > 0)) {
            refuse(connection, 408);
            flush(connection);
        } else {
            drop(connection);
        }
    }
    if (listener_paused) {
        listener_interest(true);
    }
}

static void reap(void)
{
    int status;
    siginfo_t ended = {0};
    child_ended = 0;
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid > 0) {
        handed->child_ended(ended.si_pid);
        if (waitpid(ended.si_pid, &status, 0) == ended.si_pid) {
            handed->child_reaped(ended.si_pid, status);
        }
        ended.si_pid = 0;
    }
}

static bool has_children(void)
{
    siginfo_t any = {0};
    return waitid(P_ALL, 0, &any, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* How long the next look may wait. */
static int patience_ms(uint64_t idle_ns, uint64_t quiet_since_ns)
{
    if (handed->busy()) {
        return 0;
    }
    if (active > 0 || listener_paused) {
        return SWEEP_MS;
    }
    if (idle_ns == 0) {
        return -1;
    }
    uint64_t passed_ns = clock_ns(CLOCK_MONOTONIC) - quiet_since_ns;
    uint64_t left_ms = passed_ns < idle_ns ? (idle_ns - passed_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return left_ms < SWEEP_MS ? (int)left_ms : SWEEP_MS;
}

int serve(const struct launch *launch, const struct handlers *handlers, const int listeners[LISTENERS],
          uint64_t idle_ns)
{
    struct sigaction action = {.sa_handler = child_signal, .sa_flags = SA_NOCLDSTOP};
    sigset_t blocked, waiting;
    uint64_t swept_ns = 0, quiet_since_ns = clock_ns(CLOCK_MONOTONIC);

    launched = launch;
    handed = handlers;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < LISTENERS; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTENER + i};
        listener_fds[i] = listeners[i];
        if (epoll_fd < 0 || (listeners[i] >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listeners[i], &event) < 0)) {
            complain("epoll", strerror(errno));
            return 1;
        }
    }
    /* SIGCHLD comes only inside epoll_pwait, so that no child's end is missed between the look and the wait. */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &waiting);
    sigdelset(&waiting, SIGCHLD);
    sigaction(SIGCHLD, &action, NULL);
    reap();

    for (;;) {
        static struct epoll_event events[64];
        int count = epoll_pwait(epoll_fd, events, 64, patience_ms(idle_ns, quiet_since_ns), &waiting);
        if (child_ended) {
            reap();
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 >= LISTENER) {
                accept_connections(listener_fds[events[i].data.u32 - LISTENER]);
                continue;
            }
            struct connection *connection = &connections[events[i].data.u32];
            if (connection->state == FREE) {
                continue;
            }
            if (connection->state == WAITING) {
                drop(connection); /* only a hang-up or an error can have come */
            } else if (connection->state == WRITING) {
                if (flush(connection)) {
                    advance(connection);
                }
            } else {
                readable(connection);
            }
        }
        if (handed->busy()) {
            handed->step();
        }
        if (active > 0 || listener_paused) {
            uint64_t now = clock_ns(CLOCK_MONOTONIC);
            if (now - swept_ns > SWEEP_MS * NS_PER_MS) {
                swept_ns = now;
                sweep();
            }
        }
        if (idle_ns > 0) {
            uint64_t now = clock_ns(CLOCK_MONOTONIC);
            /* A child answers a request that was taken, and would end with this process. */
            if (count > 0 || active > 0 || handed->busy() || has_children()) {
                quiet_since_ns = now;
            } else if (now - quiet_since_ns >= idle_ns) {
                return 0;
            }
        }
    }
}
