/* The client's connections before they are used. */
#include "client/connect.h"

#include "common/clock.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#define EACH_MS 100

int new_socket(const struct plan *plan)
{
    int on = 1;
    int fd = socket(plan->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}

int connected_socket(const struct plan *plan, uint64_t until_ns)
{
    int problem = 0, fd = clock_ns(CLOCK_MONOTONIC) < until_ns ? new_socket(plan) : -1;
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    socklen_t length = sizeof problem;
    if (fd < 0) {
        return -1;
    }
    connect(fd, (const struct sockaddr *)&plan->address, plan->address_length); /* how it went, SO_ERROR tells */
    bool in_time = poll(&ready, 1, EACH_MS) > 0;
    if (in_time && getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &length) == 0 && problem == 0 &&
        !(ready.revents & (POLLERR | POLLHUP))) {
        return fd;
    }
    close(fd);
    return -1;
}
