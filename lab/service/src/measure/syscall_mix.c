/* A fixed mix of system calls, each made by number and a known number of times, so that who traces this host's kernel
 * can tell whether they saw them all.
 *
 * None of these numbers is used by the service to answer a request, nor by the child that makes them: what is seen of
 * them is the mix's. What they need beside (a page, closing) is made by others, or left to the child's end. All of
 * them only read, or write to /dev/null and to a socket pair of the child's own.
 */
#include "measure/syscall_mix.h"

#include "common/json.h"
#include "server/children.h"
#include "server/connections.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Machines of 32 bits, whose calls have names of their own. */
#ifndef SYS_clock_getres
#define SYS_clock_getres SYS_clock_getres_time64
#endif
#ifndef SYS_newfstatat
#define SYS_newfstatat SYS_fstatat64
#endif

#define MOST_OPENED 40

static char byte[1];
static char *page;
static int opened[MOST_OPENED], pair[2];
static struct stat about;
static struct iovec part = {byte, 1};
static struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

static long group(size_t turn)
{
    (void)turn;
    return syscall(SYS_getpgid, 0);
}

static long priority(size_t turn)
{
    (void)turn;
    return syscall(SYS_getpriority, 0, 0);
}

static long resolution(size_t turn)
{
    struct timespec step;
    (void)turn;
    return syscall(SYS_clock_getres, CLOCK_MONOTONIC, &step);
}

static long status(size_t turn)
{
    (void)turn;
    return syscall(SYS_newfstatat, AT_FDCWD, "/", &about, 0);
}

static long open_file(size_t turn)
{
    static const char *const paths[] = {"/proc/self/stat", "/dev/zero", "/dev/null"};
    opened[turn] = (int)syscall(SYS_openat, AT_FDCWD, paths[turn % 3], turn % 3 == 2 ? O_WRONLY : O_RDONLY, 0);
    return opened[turn];
}

static long read_file(size_t turn)
{
    return syscall(SYS_pread64, opened[turn % 2], byte, sizeof byte, 0);
}

static long write_nothing(size_t turn)
{
    (void)turn;
    return syscall(SYS_pwrite64, opened[2], byte, sizeof byte, 0);
}

static long make_pair(size_t turn)
{
    (void)turn;
    return syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
}

static long send_byte(size_t turn)
{
    (void)turn;
    return syscall(SYS_sendmsg, pair[0], &message, 0);
}

static long receive_byte(size_t turn)
{
    (void)turn;
    return syscall(SYS_recvmsg, pair[1], &message, 0);
}

static long forget_page(size_t turn)
{
    page[0] = (char)turn; /* a fault, as the page was given back */
    return syscall(SYS_madvise, page, (size_t)sysconf(_SC_PAGESIZE), MADV_DONTNEED);
}

static const struct {
    const char *name;
    long number;
    size_t count;
    long (*call)(size_t turn);
} mixed[] = {{"getpgid", SYS_getpgid, 100, group},
             {"getpriority", SYS_getpriority, 50, priority},
             {"clock_getres", SYS_clock_getres, 50, resolution},
             {"newfstatat", SYS_newfstatat, 30, status},
             {"openat", SYS_openat, MOST_OPENED, open_file},
             {"pread64", SYS_pread64, 60, read_file},
             {"pwrite64", SYS_pwrite64, 50, write_nothing},
             {"socketpair", SYS_socketpair, 10, make_pair},
             {"sendmsg", SYS_sendmsg, 20, send_byte},
             {"recvmsg", SYS_recvmsg, 20, receive_byte},
             {"madvise", SYS_madvise, 30, forget_page}};

static int mix(struct text *json, uint64_t argument)
{
    size_t failed[sizeof mixed / sizeof *mixed] = {0};
    (void)argument;
    page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        json_string(json, "error", strerror(errno));
        return 500;
    }
    for (size_t i = 0; i < sizeof mixed / sizeof *mixed; i++) {
        for (size_t turn = 0; turn < mixed[i].count; turn++) {
            if (mixed[i].call(turn) < 0) {
                failed[i]++;
            }
        }
    }
    json_key(json, "calls");
    for (size_t i = 0; i < sizeof mixed / sizeof *mixed; i++) {
        text_add(json, i == 0 ? "[{\"name\":" : ",{\"name\":");
        text_json(json, mixed[i].name);
        text_add(json, ",\"number\":");
        text_number(json, (uint64_t)mixed[i].number);
        text_add(json, ",\"count\":");
        text_number(json, mixed[i].count);
        text_add(json, ",\"failed\":");
        text_number(json, failed[i]);
        text_add(json, "}");
    }
    text_add(json, "]");
    return 200;
}

void answer_mix(const struct launch *launch, int slot, const struct request *request)
{
    if (request->has_query) {
        respond(slot, 400, NULL, "{\"error\":\"the mix is fixed\"}");
        return;
    }
    work_apart(launch, slot, mix, 0);
}
