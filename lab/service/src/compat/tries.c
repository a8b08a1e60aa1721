/* What of what services do works here: GET /compat tries each feature of compat/features.h once.
 *
 * Each probe runs in a process of its own, in a group of its own, and has PROBE_NS: one that hangs is told as such, and one
 * that a signal ends, by its number; the others go on, and so does the service. */
#include "compat/tries.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "compat/features.h"
#include "server/children.h"
#include "server/connections.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PROBE_NS
#define PROBE_NS (2 * NS_PER_S)
#endif
#define ALL_NS (50 * NS_PER_S) /* after which the rest is told as not tried */
#define DEADLINE_S 58
#define GIVEN_BYTES 120

static const struct features *const groups[] = {&features_sockets, &features_files,     &features_events,
                                                &features_memory,  &features_processes, &features_kernel};
#define GROUPS (sizeof groups / sizeof *groups)

struct answer {
    int outcome;
    char given[GIVEN_BYTES];
};

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about;
    (void)kind;
    (void)where;
    return remove(path);
}

static _Noreturn void try_alone(const struct feature *feature, int fd, pid_t parent, const char *directory)
{
    struct answer answer = {0, ""};
    struct text given = {answer.given, 0, sizeof answer.given - 1, false};
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* of a crash nobody is to keep a core */
    if (getppid() != parent || chdir(directory) != 0) {
        _exit(1);
    }
    /* As a program would find it: the service ignores a broken pipe, and holds SIGCHLD back. */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    errno = 0;
    answer.outcome = feature->try(&given);
    answer.given[given.length] = '\0';
    _exit(write_all(fd, (const char *)&answer, sizeof answer) ? 0 : 1);
}

static void told(struct text *json, const char *kind, int number, const char *given)
{
    text_add(json, ",");
    text_json(json, kind);
    text_add(json, ",");
    text_number(json, (uint64_t)number);
    text_add(json, ",");
    text_json(json, given);
}

static void try_feature(struct text *json, const struct feature *feature)
{
    struct answer answer = {0, ""};
    char directory[] = "/tmp/lab-compat-XXXXXX";
    int ends[2], status = 0;
    if (!mkdtemp(directory) || chmod(directory, 0755) != 0 || pipe(ends) != 0) {
        told(json, "unmade", errno, "");
        return;
    }
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        close(ends[0]);
        try_alone(feature, ends[1], parent, directory);
    }
    close(ends[1]);
    uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + PROBE_NS, now_ns;
    size_t length = 0;
    bool ended = child < 0;
    while (!ended && length < sizeof answer && (now_ns = clock_ns(CLOCK_MONOTONIC)) < deadline_ns) {
        struct pollfd ready = {.fd = ends[0], .events = POLLIN};
        poll(&ready, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (ready.revents) {
            ssize_t got = read(ends[0], (char *)&answer + length, sizeof answer - length);
            ended = got == 0 || (got < 0 && errno != EINTR);
            length += got > 0 ? (size_t)got : 0;
        }
    }
    close(ends[0]);
    if (child < 0) {
        told(json, "unmade", EAGAIN, "");
    } else {
        bool whole = length == sizeof answer;
        if (!whole && !ended) {
            kill(child, SIGKILL);
        }
        /* What hangs in the kernel hears of no signal: it is not waited for, and goes with the service. */
        for (int i = 0; waitpid(child, &status, WNOHANG) != child && i < 100; i++) {
            usleep(2000);
        }
        if (whole && answer.outcome == 0) {
            told(json, "ok", 0, answer.given);
        } else if (whole && answer.outcome == WRONG) {
            told(json, "wrong", 0, answer.given);
        } else if (whole) {
            told(json, "errno", answer.outcome, answer.given);
        } else if (!ended) {
            told(json, "timeout", (int)(PROBE_NS / NS_PER_S), "");
        } else if (WIFSIGNALED(status)) {
            told(json, "signal", WTERMSIG(status), "");
        } else {
            told(json, "exit", WEXITSTATUS(status), "");
        }
        kill(-child, SIGKILL); /* what it left running */
    }
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static int try_all(struct text *json, uint64_t argument)
{
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
    bool first = true;
    (void)argument;
    json_key(json, "features");
    text_add(json, "[");
    for (size_t i = 0; i < GROUPS; i++) {
        for (size_t j = 0; j < groups[i]->count; j++) {
            text_add(json, first ? "[" : ",[");
            first = false;
            text_json(json, groups[i]->at[j].name);
            if (clock_ns(CLOCK_MONOTONIC) - begin_ns > ALL_NS) {
                told(json, "late", 0, "");
            } else {
                try_feature(json, &groups[i]->at[j]);
            }
            text_add(json, "]");
        }
    }
    text_add(json, "]");
    json_number(json, "took_ns", clock_ns(CLOCK_MONOTONIC) - begin_ns);
    return 200;
}

void answer_compat(const struct launch *launch, int slot, const struct request *request)
{
    (void)request;
    work_apart_within(launch, slot, try_all, 0, DEADLINE_S);
}
