/* activator LISTENER TELL [backend=HOST:PORT PROXY ARGS... --] PROGRAM ARGS...
 *
 * Keeps the listening socket LISTENER, starts PROGRAM at the first connection with the socket as descriptor 3 by the
 * protocol of sd_listen_fds(3) (LISTEN_PID, LISTEN_FDS), waits until it ends, and starts it anew at the next one: what
 * systemd does for a .socket unit, where systemd is not PID 1. It never takes a connection itself, and keeps the socket
 * open, so that what comes while PROGRAM ends waits in the kernel's queue for the next.
 *
 * With `backend`, PROGRAM gets no socket and listens there itself; PROXY gets the socket once PROGRAM takes
 * connections, since systemd-socket-proxyd(8) does not retry one that does not yet; they end together.
 *
 * Each event is one line on the descriptor TELL: `created WHAT PID TICKS` (forked), `started WHAT PID TICKS` (exec
 * succeeded), `ended WHAT PID TICKS exited|killed NUMBER`; WHAT is program or proxy, TICKS its start (proc_pid_stat(5)).
 *
 * SIGTERM and SIGINT end PROGRAM, then this. Exit status 0 after these, 1 when PROGRAM failed too often, 2 for a bad
 * call.
 */
#include "common/clock.h"
#include "common/files.h"
#include "common/parse.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define INHERITED 3 /* SD_LISTEN_FDS_START */
#define BACKEND "backend="
#define MAX_FAILURES 5
#define FAILURES_NS (10 * NS_PER_S)
#define AT_ONCE_NS (50 * NS_PER_MS)
#define BACKEND_NS (10 * NS_PER_S)
#define MAX_VARIABLES 1024

struct child {
    const char *what;
    char **argv;
    pid_t pid; /* 0: there is none */
    uint64_t ticks, started_ns;
};

static int listener_fd, tell_fd;
static struct child program = {.what = "program"}, proxy = {.what = "proxy"};
static struct sockaddr_storage backend;
static socklen_t backend_length;
static sigset_t before;
static uint64_t failures_ns[MAX_FAILURES];

/* When the process started, by its 22nd field, which the kernel counts from behind the name. */
static uint64_t ticks_of(pid_t pid)
{
    char path[48], content[1024];
    struct text text = {path, 0, sizeof path, false};
    text_add(&text, "/proc/");
    text_number(&text, (uint64_t)pid);
    text_add(&text, "/stat");
    text_bytes(&text, "", 1);
    read_text(path, content, sizeof content);
    const char *at = strrchr(content, ')');
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    uint64_t ticks = 0;
    return at && parse_number(at + 1, strcspn(at + 1, " "), INT64_MAX, &ticks) ? ticks : 0;
}

static void tell(const char *event, const struct child *child, const char *how, uint64_t number)
{
    char line[128];
    struct text text = {line, 0, sizeof line, false};
    text_add(&text, event);
    text_add(&text, " ");
    text_add(&text, child->what);
    text_add(&text, " ");
    text_number(&text, (uint64_t)child->pid);
    text_add(&text, " ");
    text_number(&text, child->ticks);
    if (how) {
        text_add(&text, " ");
        text_add(&text, how);
        text_add(&text, " ");
        text_number(&text, number);
    }
    text_add(&text, "\n");
    (void)!write(tell_fd, line, text.length); /* whoever listened may be dead, and this goes on */
}

/* In the child: becomes its program, or ends with the number of what went wrong written to `failed`. */
static void become(const struct child *child, bool with_socket, int failed)
{
    static char *variables[MAX_VARIABLES + 3];
    static char pid_variable[40];
    size_t count = 0;
    for (char **at = environ; *at && count < MAX_VARIABLES; at++) {
        if (strncmp(*at, "LISTEN_", 7) != 0) {
            variables[count++] = *at;
        }
    }
    if (with_socket) {
        struct text text = {pid_variable, 0, sizeof pid_variable, false};
        text_add(&text, "LISTEN_PID=");
        text_number(&text, (uint64_t)getpid());
        text_bytes(&text, "", 1);
        variables[count++] = pid_variable;
        variables[count++] = (char *)"LISTEN_FDS=1";
        if (listener_fd == INHERITED) {
            fcntl(INHERITED, F_SETFD, 0);
        } else if (dup2(listener_fd, INHERITED) < 0) {
            _exit(126);
        }
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    signal(SIGPIPE, SIG_DFL);
    execve(child->argv[0], child->argv, variables);
    int problem = errno;
    (void)!write(failed, &problem, sizeof problem);
    _exit(127);
}

static bool waiting(void)
{
    struct pollfd look = {.fd = listener_fd, .events = POLLIN};
    return poll(&look, 1, 0) > 0;
}

static void ended(struct child *child, int status, bool asked)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    tell("ended", child, WIFEXITED(status) ? "exited" : "killed",
         (uint64_t)(WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
    child->pid = 0;
    if (asked || (good && (now - child->started_ns >= AT_ONCE_NS || !waiting()))) {
        return;
    }
    /* What fails again and again is given up, as systemd does at its start limit: the connection would wait for ever,
     * and the processor with it. */
    memmove(failures_ns, failures_ns + 1, sizeof failures_ns - sizeof *failures_ns);
    failures_ns[MAX_FAILURES - 1] = now;
    if (failures_ns[0] != 0 && now - failures_ns[0] < FAILURES_NS) {
        complain(child->argv[0], "ended 5 times within 10 s, and is not started again");
        if (proxy.pid) {
            kill(proxy.pid, SIGKILL);
        }
        _exit(1);
    }
}

static bool start(struct child *child, bool with_socket)
{
    int failed[2], problem = 0;
    if (pipe2(failed, O_CLOEXEC) < 0) {
        complain("pipe", strerror(errno));
        return false;
    }
    /* Out of the way of the socket's number, which the child puts there. */
    int far = fcntl(failed[1], F_DUPFD_CLOEXEC, INHERITED + 1);
    close(failed[1]);
    child->started_ns = clock_ns(CLOCK_MONOTONIC);
    child->pid = fork();
    if (child->pid == 0) {
        become(child, with_socket, far);
    }
    if (far >= 0) {
        close(far);
    }
    if (child->pid < 0) {
        complain("fork", strerror(errno));
        child->pid = 0;
    } else {
        child->ticks = ticks_of(child->pid);
        tell("created", child, NULL, 0);
        if (read(failed[0], &problem, sizeof problem) > 0) {
            int status;
            complain(child->argv[0], strerror(problem));
            waitpid(child->pid, &status, 0);
            ended(child, status, false);
        } else {
            tell("started", child, NULL, 0);
        }
    }
    close(failed[0]);
    return child->pid > 0 && problem == 0;
}

static void end(struct child *child)
{
    int status;
    if (child->pid == 0) {
        return;
    }
    kill(child->pid, SIGTERM);
    kill(child->pid, SIGCONT);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
    }
    ended(child, status, true);
}

/* Others' processes may become this one's children where it is a subreaper's; they are waited for and forgotten. */
static void reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == program.pid) {
            ended(&program, status, false);
            end(&proxy);
        } else if (pid == proxy.pid) {
            ended(&proxy, status, false);
            end(&program);
        }
    }
}

/* Whether the program takes connections at the backend's address; false when it ended, or does not in time. */
static bool backend_taken(void)
{
    uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + BACKEND_NS;
    while (program.pid && clock_ns(CLOCK_MONOTONIC) < deadline) {
        int fd = socket(backend.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool taken = fd >= 0 && connect(fd, (struct sockaddr *)&backend, backend_length) == 0;
        if (fd >= 0) {
            close(fd);
        }
        if (taken) {
            return true;
        }
        struct timespec pause = {.tv_nsec = (long)NS_PER_MS};
        nanosleep(&pause, NULL);
        reap();
    }
    return false;
}

static void wake(void)
{
    bool taken = start(&program, !proxy.argv);
    if (taken && proxy.argv) {
        taken = backend_taken() && start(&proxy, true);
    }
    if (!taken) {
        end(&program); /* the connection still waits: tried again, and not without a rest */
        struct timespec rest = {.tv_nsec = 50 * (long)NS_PER_MS};
        nanosleep(&rest, NULL);
    }
}

static bool descriptor(const char *word, int *fd)
{
    uint64_t number;
    bool good = parse_number(word, strlen(word), 1 << 20, &number) && fcntl((int)number, F_GETFD) >= 0;
    *fd = good ? (int)number : -1;
    return good && fcntl(*fd, F_SETFD, FD_CLOEXEC) == 0;
}

static bool address(const char *word)
{
    char host[64];
    uint64_t port;
    const char *colon = strrchr(word, ':');
    size_t length = colon ? (size_t)(colon - word) : sizeof host;
    if (length >= sizeof host || !parse_number(colon + 1, strlen(colon + 1), 65535, &port)) {
        return false;
    }
    memcpy(host, word, length);
    host[length] = '\0';
    return parse_address(host, (uint16_t)port, &backend, &backend_length);
}

static bool understood(int argc, char **argv)
{
    int at = 3;
    if (argc < 4 || !descriptor(argv[1], &listener_fd) || !descriptor(argv[2], &tell_fd)) {
        return false;
    }
    if (strncmp(argv[at], BACKEND, strlen(BACKEND)) == 0) {
        if (!address(argv[at] + strlen(BACKEND))) {
            return false;
        }
        proxy.argv = argv + at + 1;
        while (at < argc && strcmp(argv[at], "--") != 0) {
            at++;
        }
        if (at + 1 >= argc || argv + at == proxy.argv) {
            return false;
        }
        argv[at++] = NULL;
    }
    program.argv = argv + at;
    return true;
}

int main(int argc, char **argv)
{
    sigset_t told;
    if (!understood(argc, argv)) {
        complain("activator", "needs LISTENER TELL [backend=HOST:PORT PROXY ARGS... --] PROGRAM ARGS...");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    fcntl(tell_fd, F_SETFL, O_NONBLOCK);
    sigemptyset(&told);
    sigaddset(&told, SIGCHLD);
    sigaddset(&told, SIGTERM);
    sigaddset(&told, SIGINT);
    sigprocmask(SIG_BLOCK, &told, &before);
    int signals = signalfd(-1, &told, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        complain("signalfd", strerror(errno));
        return 1;
    }
    for (;;) {
        struct pollfd looked[] = {{.fd = signals, .events = POLLIN}, {.fd = listener_fd, .events = POLLIN}};
        struct signalfd_siginfo got;
        /* While it runs, connections are the program's: this looks at the socket only when there is none. */
        if (poll(looked, program.pid ? 1 : 2, -1) < 0 && errno != EINTR) {
            complain("poll", strerror(errno));
            return 1;
        }
        while (read(signals, &got, sizeof got) == sizeof got) {
            if (got.ssi_signo != SIGCHLD) {
                close(listener_fd);
                end(&proxy);
                end(&program);
                return 0;
            }
        }
        reap();
        if (program.pid == 0 && waiting()) {
            wake();
        }
    }
}
