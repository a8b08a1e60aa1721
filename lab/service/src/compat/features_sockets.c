/* Sockets: of every family that services use, within this process or on its own loopback. */
#include "compat/features.h"

#include <errno.h>
#include <linux/if_alg.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#define LOW_PORT 1023
#define AWAY 0x7f4d4d4d /* 127.77.77.77, where nobody listens */

/* A byte through a connection to `listener`, which is bound. */
static int served(int family, int listener, const struct sockaddr *address, socklen_t length)
{
    char byte = 0;
    int client = socket(family, SOCK_STREAM, 0), server;
    if (listen(listener, 1) != 0 || client < 0 || connect(client, address, length) != 0 ||
        (server = accept(listener, NULL, NULL)) < 0 || write(client, "x", 1) != 1 || read(server, &byte, 1) != 1) {
        return outcome_of(false);
    }
    return byte == 'x' ? 0 : WRONG;
}

static int tcp(struct text *given)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    (void)given;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        return outcome_of(false);
    }
    return served(AF_INET, listener, (struct sockaddr *)&address, length);
}

static int tcp6(struct text *given)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET6, SOCK_STREAM, 0);
    (void)given;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        return outcome_of(false);
    }
    return served(AF_INET6, listener, (struct sockaddr *)&address, length);
}

static int udp(struct text *given)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char byte = 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    (void)given;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0 ||
        sendto(fd, "x", 1, 0, (struct sockaddr *)&address, length) != 1 || recv(fd, &byte, 1, 0) != 1) {
        return outcome_of(false);
    }
    return byte == 'x' ? 0 : WRONG;
}

static int unix_path(struct text *given)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)given;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0) {
        return outcome_of(false);
    }
    return served(AF_UNIX, listener, (struct sockaddr *)&address, sizeof address);
}

/* A name that the kernel chooses: unix(7), autobind. */
static int unix_abstract(struct text *given)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof address;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)given;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        return outcome_of(false);
    }
    return served(AF_UNIX, listener, (struct sockaddr *)&address, length);
}

static int descriptor_passing(struct text *given)
{
    int pair[2], fd = -1;
    char byte = 'x', room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    (void)given;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        return outcome_of(false);
    }
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &pair[0], sizeof fd);
    if (sendmsg(pair[0], &message, 0) != 1 || recvmsg(pair[1], &message, 0) != 1) {
        return outcome_of(false);
    }
    header = CMSG_FIRSTHDR(&message);
    return header && header->cmsg_type == SCM_RIGHTS ? 0 : WRONG;
}

static int peer_credentials(struct text *given)
{
    struct ucred who;
    socklen_t length = sizeof who;
    int pair[2];
    (void)given;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 ||
        getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &who, &length) != 0) {
        return outcome_of(false);
    }
    return who.pid == getpid() && who.uid == geteuid() ? 0 : WRONG;
}

static int made(int family, int kind, int protocol)
{
    return outcome_of(socket(family, kind, protocol) >= 0);
}

static int sequenced(struct text *given)
{
    int pair[2];
    (void)given;
    return outcome_of(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
}

static int raw(struct text *given)
{
    (void)given;
    return made(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static int ping(struct text *given)
{
    (void)given;
    return made(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
}

/* With no protocol, so that it is given no packet. */
static int packet(struct text *given)
{
    (void)given;
    return made(AF_PACKET, SOCK_RAW, 0);
}

static int netlink(struct text *given)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    (void)given;
    return outcome_of(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
}

static int vsock(struct text *given)
{
    (void)given;
    return made(AF_VSOCK, SOCK_STREAM, 0);
}

static int alg(struct text *given)
{
    struct sockaddr_alg address = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
    int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
    (void)given;
    return outcome_of(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
}

/* Bound and never listened at, so that nobody can take it for a service's. */
static int low_port(struct text *given)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(LOW_PORT), .sin_addr.s_addr = htonl(AWAY)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)given;
    return outcome_of(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
}

static int option(int level, int name, int value)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return outcome_of(fd >= 0 && setsockopt(fd, level, name, &value, sizeof value) == 0);
}

static int reuse_port(struct text *given)
{
    (void)given;
    return option(SOL_SOCKET, SO_REUSEPORT, 1);
}

static int zero_copy(struct text *given)
{
    (void)given;
    return option(SOL_SOCKET, SO_ZEROCOPY, 1);
}

static int transparent(struct text *given)
{
    (void)given;
    return option(IPPROTO_IP, IP_TRANSPARENT, 1);
}

static int mark(struct text *given)
{
    (void)given;
    return option(SOL_SOCKET, SO_MARK, 1);
}

static int congestion(struct text *given)
{
    char name[16] = "";
    socklen_t length = sizeof name - 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool done = fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0;
    text_add(given, name);
    return outcome_of(done);
}

static const struct feature list[] = {
    {"sockets: TCP", tcp},
    {"sockets: TCP over IPv6", tcp6},
    {"sockets: UDP", udp},
    {"sockets: Unix, by path", unix_path},
    {"sockets: Unix, abstract", unix_abstract},
    {"sockets: Unix, sequenced packets", sequenced},
    {"sockets: descriptors passed on", descriptor_passing},
    {"sockets: credentials of the peer", peer_credentials},
    {"sockets: raw", raw},
    {"sockets: ping", ping},
    {"sockets: packets", packet},
    {"sockets: netlink", netlink},
    {"sockets: vsock", vsock},
    {"sockets: the kernel's crypto", alg},
    {"sockets: a port below 1024", low_port},
    {"sockets: one port, several listeners", reuse_port},
    {"sockets: sending without a copy", zero_copy},
    {"sockets: transparent proxy", transparent},
    {"sockets: firewall marks", mark},
    {"sockets: congestion control", congestion},
};

const struct features features_sockets = FEATURES(list);
