/* The microservice that the lab launches on every platform: one static binary.
 *
 *     service            serve, as the environment says (below)
 *     service load ...   bounded open-loop load on a service (client/load_and_watch.c)
 *     service watch ...  bounded health watch of a service (the same)
 *     service ask ...    one request to the service of the same environment (client/ask.c)
 *     service bridge ... serve as a function, by the Lambda Runtime API (function/bridge.c)
 *     service nothing    ends at once: what a task that starts processes starts (tasks/antagonists.c)
 *
 * Environment:
 *     LAB_PORT     port to listen on; 0 lets the kernel choose; required unless LAB_NETWORK is `none`
 *     LAB_HOST     numeric address to bind, 127.0.0.1 unless given
 *     LAB_UNIX     also listen at this name in the abstract namespace of Unix sockets (unix(7)), of the same network
 *                  namespace's processes only
 *     LAB_VSOCK    also listen by vsock (vsock(7)), at the port of the network's socket: `any`, to whoever reaches this
 *                  kernel, which of a guest is its host; or `host`, to the guests of this host. Where the kernel has no
 *                  such transport, the service goes on without
 *     LAB_NONCE    the launch's secret: admits to every endpoint but /healthz; without it they always refuse
 *     LAB_VERSION  given back in an X-Lab-Version header on every answer
 *     LAB_NETWORK  `none`: there is no network but loopback, so listen there, on LAB_PORT or any port
 *     LISTEN_PID, LISTEN_FDS  by sd_listen_fds(3): descriptor 3 is the listening socket, whatever LAB_PORT says
 *     LAB_IDLE_MS  with such a socket: end after so many milliseconds without an open connection; 0 or absent: never
 *
 * Exit status: 0 after SIGTERM, SIGINT or LAB_IDLE_MS, 1 when the address cannot be had, 2 for a bad environment.
 */
#include "client/ask.h"
#include "client/load_and_watch.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/launch.h"
#include "common/parse.h"
#include "common/text.h"
#include "function/bridge.h"
#include "server/connections.h"
#include "service/routes.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

#ifndef GRND_INSECURE
#define GRND_INSECURE 0x0004 /* Linux 5.6; older headers do not name it */
#endif
#define MAX_VALUE 128
#define BACKLOG 1024
#define INHERITED 3          /* SD_LISTEN_FDS_START */
#define MAX_IDLE_MS 86400000 /* a day */

static void stop(int signal)
{
    (void)signal;
    _exit(0);
}

/* Each line is one write(), at once: behind a pipe or a console the reader dates it by its arrival. */
static void tell(const struct launch *launch, const char *phase, uint64_t ns)
{
    char line[MAX_VALUE + 64];
    struct text text = {line, 0, sizeof line, false};
    text_add(&text, "lab ");
    text_add(&text, launch->nonce[0] ? launch->nonce : "-");
    text_add(&text, " ");
    text_add(&text, phase);
    text_add(&text, " ");
    text_number(&text, ns);
    text_add(&text, "\n");
    /* A closed stdout must not end a service that still answers. */
    (void)!write(STDOUT_FILENO, line, text.length);
}

/* Never waits: early in a guest's life its kernel may have no good numbers yet, and these need only differ. Empty where
 * there are none at all, which proves nothing. */
static void make_token(char *into, size_t capacity)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char bytes[16];
    size_t count = (capacity - 1) / 2;
    if (count > sizeof bytes || (getrandom(bytes, count, GRND_INSECURE) != (ssize_t)count &&
                                 getrandom(bytes, count, GRND_NONBLOCK) != (ssize_t)count)) {
        into[0] = '\0';
        return;
    }
    for (size_t i = 0; i < count; i++) {
        into[2 * i] = hex[bytes[i] >> 4];
        into[2 * i + 1] = hex[bytes[i] & 15];
    }
    into[2 * count] = '\0';
}

static const char *environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* Printable ASCII without spaces: it becomes part of a line and of a header. */
static bool plain(const char *value)
{
    size_t length = 0;
    for (; value[length]; length++) {
        if (value[length] <= ' ' || value[length] > '~' || length >= MAX_VALUE) {
            return false;
        }
    }
    return true;
}

static int listen_at(const char *host, uint16_t port, int *listener)
{
    struct sockaddr_storage address;
    socklen_t length;
    if (!parse_address(host, port, &address, &length)) {
        complain("LAB_HOST", "not a numeric IPv4 or IPv6 address");
        return 2;
    }
    int on = 1;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        complain("socket", strerror(errno));
        return 1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, length) < 0) {
        complain("bind", strerror(errno));
        return 1;
    }
    if (listen(fd, BACKLOG) < 0) {
        complain("listen", strerror(errno));
        return 1;
    }
    *listener = fd;
    return 0;
}

/* A second socket, in the abstract namespace: it has no file, and so leaves none. -1 where it is not asked for. */
static int listen_unix(const char *name, int *listener)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    *listener = -1;
    if (length == 0) {
        return 0;
    }
    if (!plain(name) || length >= sizeof address.sun_path) {
        complain("LAB_UNIX", "must be at most 107 printable characters without spaces");
        return 2;
    }
    memcpy(address.sun_path + 1, name, length);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, BACKLOG) < 0) {
        complain("LAB_UNIX", strerror(errno));
        return 1;
    }
    *listener = fd;
    return 0;
}

/* A third, by vsock; -1 where it is not asked for, or cannot be had: who calls by it then finds nobody. */
static int listen_vsock(const char *whom, uint16_t port, int *listener)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = port};
    *listener = -1;
    if (whom[0] == '\0') {
        return 0;
    }
    /* Bound to the host's CID, the socket takes no calls that come from a host above this machine. */
    address.svm_cid = strcmp(whom, "host") == 0 ? VMADDR_CID_HOST : VMADDR_CID_ANY;
    if ((address.svm_cid == VMADDR_CID_ANY && strcmp(whom, "any") != 0) || port == 0) {
        complain("LAB_VSOCK", "must be any or host, and needs a LAB_PORT");
        return 2;
    }
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0) {
        complain("LAB_VSOCK", strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return 0;
    }
    *listener = fd;
    return 0;
}

/* The listening socket that whoever started this keeps as well; -1 where there is none. */
static int inherited(void)
{
    const char *pid_text = environment("LISTEN_PID", ""), *count_text = environment("LISTEN_FDS", "");
    uint64_t pid, count;
    int on = 0;
    socklen_t length = sizeof on;
    if (!parse_number(pid_text, strlen(pid_text), INT32_MAX, &pid) || pid != (uint64_t)getpid() ||
        !parse_number(count_text, strlen(count_text), 1, &count) || count != 1 ||
        getsockopt(INHERITED, SOL_SOCKET, SO_ACCEPTCONN, &on, &length) < 0 || !on) {
        return -1;
    }
    fcntl(INHERITED, F_SETFD, FD_CLOEXEC);
    fcntl(INHERITED, F_SETFL, O_NONBLOCK);
    return INHERITED;
}

int main(int argc, char **argv)
{
    struct launch launch = {.main_ns = clock_ns(CLOCK_MONOTONIC), .main_boottime_ns = clock_ns(CLOCK_BOOTTIME)};
    if (argc == 2 && strcmp(argv[1], "nothing") == 0) {
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "bridge") == 0) {
        return bridge(argc, argv);
    }
    if (argc > 1) {
        return strcmp(argv[1], "ask") == 0 ? ask(argc, argv) : load_and_watch(argc, argv);
    }
    launch.nonce = environment("LAB_NONCE", "");
    launch.version = environment("LAB_VERSION", "");
    if (!plain(launch.nonce)) {
        complain("LAB_NONCE", "must be at most 128 printable characters without spaces");
        return 2;
    }
    /* As pid 1 a signal without a handler is ignored, SIGTERM too: hence handlers, before anything can wait. */
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    /* Written before listen(), though it costs a microsecond of it: where only the arrival of the line can be dated,
     * it must not wait for the next phase, and it must come even when the next phase does not. */
    tell(&launch, "main", launch.main_ns);

    bool alone = strcmp(environment("LAB_NETWORK", ""), "none") == 0;
    const char *port_text = environment("LAB_PORT", alone ? "0" : "");
    uint64_t port;
    if (!plain(launch.version)) {
        complain("LAB_VERSION", "must be at most 128 printable characters without spaces");
        return 2;
    }
    if (!parse_number(port_text, strlen(port_text), 65535, &port)) {
        complain("LAB_PORT", "must be a number from 0 to 65535");
        return 2;
    }
    const char *idle_text = environment("LAB_IDLE_MS", "0");
    uint64_t idle_ms;
    int listener = inherited(), unix_listener = -1, vsock_listener = -1, failed = 0;
    if (!parse_number(idle_text, strlen(idle_text), MAX_IDLE_MS, &idle_ms) || (idle_ms > 0 && listener < 0)) {
        complain("LAB_IDLE_MS", "must be a number of at most a day, and needs a socket by LISTEN_PID and LISTEN_FDS");
        return 2;
    }
    if (listener < 0) {
        failed = listen_at(alone ? "127.0.0.1" : environment("LAB_HOST", "127.0.0.1"), (uint16_t)port, &listener);
    }
    failed = failed ? failed : listen_unix(environment("LAB_UNIX", ""), &unix_listener);
    failed = failed ? failed : listen_vsock(environment("LAB_VSOCK", ""), (uint16_t)port, &vsock_listener);
    if (failed) {
        return failed;
    }
    launch.listening_ns = clock_ns(CLOCK_MONOTONIC);
    launch.listening_boottime_ns = clock_ns(CLOCK_BOOTTIME);
    tell(&launch, "listening", launch.listening_ns);
    make_token(launch.token, sizeof launch.token);
    return serve(&launch, &routes, (const int[LISTENERS]){listener, unix_listener, vsock_listener}, idle_ms * NS_PER_MS);
}
