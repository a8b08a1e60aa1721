/* What a workload does that is its right and takes from its neighbours; each ends by itself at its deadline. */
#include "machine/disk.h"
#include "machine/memory.h"
#include "tasks/kinds.h"
#include "tasks/processes.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 64
#define BATCH 4096
#define USUAL_CACHE_MIB 32
#define MIN_CACHE_MIB 4
#define MAX_CACHE_MIB 64
#define RETRY_NS 1000000
#define MESSAGE_BYTES 65536

static void run_busy(struct task *task)
{
    task_together(task, task_spin);
}

static const char *take_memory(struct task *task)
{
    if (!memory_is_free(task->amount * MIB)) {
        return "there is less free memory than that";
    }
    task->words = mmap(NULL, task->amount * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return task->words == MAP_FAILED ? "the kernel has no such memory" : NULL;
}

static void touch_memory(const struct task *task)
{
    for (uint64_t mib = 0; mib < task->amount && !task_over(task); mib++) {
        memset((char *)task->words + mib * MIB, 0x5a, MIB);
    }
}

/* One half is copied to the other, a MiB at a time, so that none lasts beyond the end. */
static void run_bandwidth(struct task *task)
{
    uint64_t half_words = task->amount * MIB / 2 / sizeof *task->words, piece = MIB / 2 / sizeof *task->words;
    touch_memory(task);
    for (uint64_t at = 0; !task_over(task); at = (at + piece) % half_words) {
        copy_words(task->words + at, task->words + half_words + at, piece);
        task_count(&task->page->bytes, MIB / 2);
        task_count(&task->page->operations, 1);
    }
}

static const char *prove_cache(struct task *task)
{
    if (task->amount == 0) {
        uint64_t mib = task_cache_bytes() / MIB;
        mib = mib ? mib : USUAL_CACHE_MIB;
        task->amount = mib < MIN_CACHE_MIB ? MIN_CACHE_MIB : mib > MAX_CACHE_MIB ? MAX_CACHE_MIB : mib;
    }
    return take_memory(task);
}

/* Writes to lines in no order that a prefetcher could know (xorshift64, Marsaglia 2003). */
static void run_cache(struct task *task)
{
    uint64_t lines = task->amount * MIB / LINE_BYTES, at = UINT64_C(88172645463325252);
    touch_memory(task);
    while (!task_over(task)) {
        for (int i = 0; i < BATCH; i++) {
            at ^= at << 13;
            at ^= at >> 7;
            at ^= at << 17;
            task->words[at % lines * (LINE_BYTES / sizeof *task->words)]++;
        }
        task_count(&task->page->operations, BATCH);
        task_count(&task->page->bytes, BATCH * LINE_BYTES);
    }
}

static const char *appended_to; /* for the handler */

static void take_file_away(int signal)
{
    (void)signal;
    unlink(appended_to);
    _exit(0);
}

/* The file has a name while it is written. It is taken away by this process where that is ended, by the service where
 * this process could not. */
static const char *prove_fsync(struct task *task)
{
    struct sigaction action = {.sa_handler = take_file_away};
    if (!open_on_disk(".lab-task", &task->disk)) {
        return "no disk";
    }
    memcpy(task->page->file, task->disk.path, sizeof task->page->file);
    appended_to = task->page->file;
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != task->service) {
        take_file_away(0);
    }
    return NULL;
}

static void run_fsync(struct task *task)
{
    uint64_t blocks = task->amount * MIB / BLOCK_BYTES, written = 0;
    while (!task_over(task)) {
        if (written == blocks) {
            written = 0;
            if (ftruncate(task->disk.fd, 0) < 0) {
                task_refused(task, errno);
                break;
            }
        }
        if (!append_blocks(task->disk.fd, 1)) {
            task_refused(task, errno);
            break;
        }
        written++;
        task_count(&task->page->operations, 1);
        task_count(&task->page->bytes, BLOCK_BYTES);
    }
    unlink(task->disk.path);
}

/* Both ends of a TCP connection over the loopback of this network namespace, with nobody else at either. */
static bool connect_pair(int pair[2])
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, mine, theirs;
    socklen_t length = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || pair[0] < 0 || bind(listener, (struct sockaddr *)&here, sizeof here) < 0 ||
        listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&here, &length) < 0 ||
        connect(pair[0], (struct sockaddr *)&here, sizeof here) < 0) {
        return false;
    }
    pair[1] = accept4(listener, (struct sockaddr *)&theirs, &length, SOCK_CLOEXEC);
    close(listener);
    length = sizeof mine;
    return pair[1] >= 0 && getsockname(pair[0], (struct sockaddr *)&mine, &length) == 0 &&
           mine.sin_port == theirs.sin_port;
}

static const char *prove_network(struct task *task)
{
    for (uint64_t i = 0; i < task->amount; i++) {
        if (!connect_pair(task->pairs[i])) {
            return "no connection over this network namespace's loopback";
        }
    }
    return NULL;
}

static void flood(struct task *task, uint64_t which)
{
    static char message[MESSAGE_BYTES];
    int *pair = task->pairs[which];
    for (uint64_t i = 0; i < task->amount; i++) {
        if (i != which) { /* or their ends would not be seen */
            close(task->pairs[i][0]);
            close(task->pairs[i][1]);
        }
    }
    pid_t sender = task_fork(task);
    if (sender == 0) {
        close(pair[1]);
        while (!task_over(task) && send(pair[0], message, sizeof message, MSG_NOSIGNAL) > 0) {
        }
        _exit(0);
    }
    close(pair[0]);
    task_count(&task->page->made, sender > 0);
    ssize_t got;
    while (!task_over(task) && (got = recv(pair[1], message, sizeof message, 0)) > 0) {
        task_count(&task->page->bytes, (uint64_t)got);
        task_count(&task->page->operations, 1);
    }
    close(pair[1]);
    if (sender > 0) {
        waitpid(sender, NULL, 0);
    }
}

static void run_network(struct task *task)
{
    task_together(task, flood);
}

static const char *prove_execs(struct task *task)
{
    (void)task;
    return access("/proc/self/exe", X_OK) < 0 ? "/proc/self/exe cannot be run" : NULL;
}

static void storm(struct task *task, uint64_t which)
{
    (void)which;
    while (!task_over(task)) {
        int status;
        pid_t child = task_fork(task);
        if (child == 0) {
            execve("/proc/self/exe", (char *[]){"service", "nothing", NULL}, (char *[]){NULL});
            task_refused(task, errno);
            _exit(1);
        }
        if (child < 0) {
            nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
        } else if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            task_count(&task->page->operations, 1);
        }
    }
}

static void run_execs(struct task *task)
{
    task_together(task, storm);
}

/* Amounts: processes, MiB of both buffers, MiB, MiB of the file at most, connections, processes that start others. */
const struct task_kind antagonists[] = {{"busy", 1, 64, true, NULL, run_busy},
                                        {"bandwidth", 48, 1024, true, take_memory, run_bandwidth},
                                        {"cache", 0, 1024, true, prove_cache, run_cache},
                                        {"fsync", 8, 64, true, prove_fsync, run_fsync},
                                        {"network", 1, MAX_PAIRS, true, prove_network, run_network},
                                        {"execs", 1, 16, true, prove_execs, run_execs},
                                        {0}};
