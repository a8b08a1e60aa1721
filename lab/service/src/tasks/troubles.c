/* What a workload does that harms whoever is not protected from it; each until `amount`, then holding what it has. */
#include "common/clock.h"
#include "common/files.h"
#include "common/text.h"
#include "machine/memory.h"
#include "tasks/kinds.h"
#include "tasks/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define TMPFS 0x01021994 /* linux/magic.h */
#define RETRY_NS 10000000
#define MAX_FILES 4096

static void run_memory(struct task *task)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint64_t mib = 0; mib < task->amount; mib++) {
        char *at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) {
            task_refused(task, errno);
            return;
        }
        for (uint64_t done = 0; done < MIB; done += page_bytes) {
            /* A different word in every page, lest same-page merging takes them back. */
            uint64_t word = (uint64_t)(uintptr_t)(at + done) ^ clock_ns(CLOCK_MONOTONIC);
            memcpy(at + done, &word, sizeof word);
            task_count(&task->page->bytes, page_bytes);
        }
    }
}

/* Goes on where the kernel refuses, as a bomb does, though not faster than it must to show that it would. */
static void run_forks(struct task *task)
{
    while (task->page->made < task->amount && !task_over(task)) {
        pid_t child = task_fork(task);
        if (child == 0) {
            for (;;) {
                pause();
            }
        }
        if (child > 0) {
            task_count(&task->page->made, 1);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
        }
    }
}

/* The limit is the task's own, so that it takes no descriptor from anybody else; it is never raised. */
static const char *prove_files(struct task *task)
{
    struct rlimit now, set = {.rlim_cur = task->amount, .rlim_max = task->amount};
    if (getrlimit(RLIMIT_NOFILE, &now) < 0 || now.rlim_cur < task->amount) {
        return "the limit on open files is below amount already";
    }
    if (setrlimit(RLIMIT_NOFILE, &set) < 0 || getrlimit(RLIMIT_NOFILE, &now) < 0 || now.rlim_cur != task->amount ||
        now.rlim_max != task->amount) {
        return "the limit on open files is not in place";
    }
    return NULL;
}

static void run_files(struct task *task)
{
    for (;;) {
        if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0) {
            task_refused(task, errno);
            return;
        }
        task_count(&task->page->made, 1);
    }
}

/* Only into a tmpfs whose size was read back: a file system without a quota is the host's to lose. */
static const char *prove_disk(struct task *task)
{
    struct statfs about;
    int directory = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fstatfs(directory, &about) < 0) {
        return "there is no /tmp";
    }
    if (((uint64_t)about.f_type & 0xffffffff) != TMPFS) {
        return "/tmp is no tmpfs, whose size could be proven";
    }
    if (about.f_blocks == 0) {
        return "/tmp is a tmpfs without a limit on its size";
    }
    if ((uint64_t)about.f_blocks * (uint64_t)about.f_bsize > task->amount * MIB) {
        return "/tmp is a tmpfs of more MiB than amount";
    }
    unlinkat(directory, ".lab-task", 0);
    task->fd = openat(directory, ".lab-task", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (task->fd < 0) {
        return "no file can be made in /tmp";
    }
    unlinkat(directory, ".lab-task", 0); /* without a name it is gone with this process, however that ends */
    return NULL;
}

static void run_disk(struct task *task)
{
    static char block[65536];
    memset(block, 1, sizeof block);
    ssize_t written;
    while ((written = write(task->fd, block, sizeof block)) > 0) {
        task_count(&task->page->bytes, (uint64_t)written);
    }
    task_refused(task, written < 0 ? errno : ENOSPC);
}

static const char *prove_cpu(struct task *task)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (task->amount == 0) {
        task->amount = online < 1 ? 1 : (uint64_t)online > task->kind->most ? task->kind->most : (uint64_t)online;
    }
    return NULL;
}

static void run_cpu(struct task *task)
{
    task_together(task, task_spin);
}

static const char *prove_kill(struct task *task)
{
    return task->service == 1 ? "the service is pid 1, which its own kernel lets nobody kill from within" : NULL;
}

static void run_kill(struct task *task)
{
    if (kill(task->service, SIGKILL) < 0) {
        task_refused(task, errno);
    } else {
        task_count(&task->page->made, 1);
    }
}

/* Only a guest of the lab's own shows this launch's nonce on its kernel's command line. */
static const char *prove_panic(struct task *task)
{
    static char line[4096];
    char wanted[160];
    struct text text = {wanted, 0, sizeof wanted, false};
    text_add(&text, "lab.panic=");
    text_add(&text, task->nonce);
    text_bytes(&text, "", 1);
    read_text("/proc/cmdline", line, sizeof line);
    for (char *rest = line, *word; (word = strsep(&rest, " "));) {
        if (!text.full && task->nonce[0] && strcmp(word, wanted) == 0) {
            return NULL;
        }
    }
    return "this is no guest that was started with leave to panic";
}

static void run_panic(struct task *task)
{
    if (kill(1, SIGUSR2) < 0) {
        task_refused(task, errno);
    } else {
        task_count(&task->page->made, 1);
    }
}

/* Amounts: MiB, processes, descriptors, MiB of the tmpfs at most, processes. */
const struct task_kind troubles[] = {{"memory", 256, 4096, false, NULL, run_memory},
                                     {"forks", 256, 4096, false, NULL, run_forks},
                                     {"files", 256, MAX_FILES, false, prove_files, run_files},
                                     {"disk", 64, 1024, false, prove_disk, run_disk},
                                     {"cpu", 0, 64, false, prove_cpu, run_cpu},
                                     {"kill", 0, 0, false, prove_kill, run_kill},
                                     {"panic", 0, 0, false, prove_panic, run_panic},
                                     {0}};
