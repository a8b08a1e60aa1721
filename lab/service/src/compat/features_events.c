/* Waiting: events, timers, watches, and asynchronous input and output. */
#include "compat/features.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_io_uring_setup /* these three: Linux 5.1, on every machine */
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#define URING_BYTES 120        /* struct io_uring_params */
#define IORING_OFF_SQES_BYTES 0x10000000
#define SOON_MS 1000

/* What becomes readable soon. */
static int readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    int count = fd < 0 ? -1 : poll(&ready, 1, SOON_MS);
    return count < 0 ? outcome_of(false) : count == 1 ? 0 : WRONG;
}

static int event(struct text *given)
{
    int fd = eventfd(1, EFD_CLOEXEC);
    (void)given;
    return readable(fd);
}

static int polled(struct text *given)
{
    struct epoll_event wanted = {.events = EPOLLIN}, found;
    int epoll = epoll_create1(EPOLL_CLOEXEC), fd = eventfd(1, EFD_CLOEXEC);
    (void)given;
    if (epoll < 0 || fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) != 0) {
        return outcome_of(false);
    }
    int count = epoll_wait(epoll, &found, 1, SOON_MS);
    return count < 0 ? outcome_of(false) : count == 1 ? 0 : WRONG;
}

static int timer(struct text *given)
{
    struct itimerspec soon = {.it_value = {0, 1000000}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    (void)given;
    return fd < 0 || timerfd_settime(fd, 0, &soon, NULL) != 0 ? outcome_of(false) : readable(fd);
}

/* Made and not set: it would wake a machine that sleeps. */
static int alarm_timer(struct text *given)
{
    (void)given;
    return outcome_of(timerfd_create(CLOCK_BOOTTIME_ALARM, TFD_CLOEXEC) >= 0);
}

static int posix_timer(struct text *given)
{
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    timer_t made;
    (void)given;
    return outcome_of(timer_create(CLOCK_MONOTONIC, &none, &made) == 0);
}

static int signals(struct text *given)
{
    sigset_t set;
    (void)given;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    return fd < 0 || raise(SIGUSR1) != 0 ? outcome_of(false) : readable(fd);
}

static int process(struct text *given)
{
    pid_t child = fork();
    (void)given;
    if (child == 0) {
        _exit(0);
    }
    int fd = child < 0 ? -1 : (int)syscall(SYS_pidfd_open, child, 0);
    return readable(fd);
}

static int inotify(struct text *given)
{
    int fd = inotify_init1(IN_CLOEXEC);
    (void)given;
    if (fd < 0 || inotify_add_watch(fd, ".", IN_CREATE) < 0 || open("new", O_CREAT | O_WRONLY, 0600) < 0) {
        return outcome_of(false);
    }
    return readable(fd);
}

static int fanotify(struct text *given)
{
    int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY);
    (void)given;
    if (fd < 0 || fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, ".") != 0 ||
        open("new", O_CREAT | O_WRONLY, 0600) < 0) {
        return outcome_of(false);
    }
    return readable(fd);
}

/* One operation that does nothing, through its two rings (io_uring(7)). */
static int uring(struct text *given)
{
    uint32_t parameters[URING_BYTES / 4];
    (void)given;
    memset(parameters, 0, sizeof parameters);
    int fd = (int)syscall(SYS_io_uring_setup, 1, parameters);
    if (fd < 0) {
        return outcome_of(false);
    }
    const uint32_t *submit = parameters + 10, *complete = parameters + 20; /* the two structs of offsets */
    size_t ring_bytes = submit[6] + parameters[0] * 4;
    unsigned char *ring = mmap(NULL, ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    unsigned char *entry = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES_BYTES);
    (void)complete;
    if (ring == MAP_FAILED || entry == MAP_FAILED) {
        return outcome_of(false);
    }
    memset(entry, 0, 64); /* IORING_OP_NOP */
    *(volatile uint32_t *)(ring + submit[6]) = 0;
    __atomic_store_n((uint32_t *)(ring + submit[1]), 1, __ATOMIC_RELEASE);
    long done = syscall(SYS_io_uring_enter, fd, 1, 1, 1 /* IORING_ENTER_GETEVENTS */, NULL, 0);
    return done < 0 ? outcome_of(false) : done == 1 ? 0 : WRONG;
}

static int aio(struct text *given)
{
    aio_context_t context = 0;
    (void)given;
    return outcome_of(syscall(SYS_io_setup, 1, &context) == 0);
}

static const struct feature list[] = {
    {"events: epoll", polled},         {"events: eventfd", event},       {"events: signalfd", signals},
    {"events: pidfd", process},        {"events: inotify", inotify},     {"events: fanotify", fanotify},
    {"events: io_uring", uring},       {"events: Linux AIO", aio},       {"timers: timerfd", timer},
    {"timers: POSIX", posix_timer},    {"timers: that wake a machine", alarm_timer},
};

const struct features features_events = FEATURES(list);
