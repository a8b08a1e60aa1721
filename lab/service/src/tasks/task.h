/* Tasks: trouble that a workload makes, and load that disturbs its neighbours; each bounded in amount and in time.
 *
 * A task is a child of the service in a session of its own. Before it begins, each of its processes asks the kernel to
 * end it at the task's end (SIGALRM, whose action it never changes, from a timer of its own) and with its parent. So it
 * ends though whoever asked for it, the service, or some of its own processes are gone.
 */
#ifndef LAB_TASK_H
#define LAB_TASK_H

#include "machine/disk.h"

#include <stdbool.h>
#include <stdint.h>

#define MAX_PAIRS 8

/* Shared by the task's processes and the service, so that what they counted outlives them. */
struct task_page {
    uint64_t started_ns, deadline_ns, amount; /* started_ns: 0 until it begins */
    uint64_t made, refused, bytes, operations;
    int error;     /* the last refusal's errno */
    bool declined; /* it will not begin, and is about to end */
    char file[64]; /* that goes with it, where one must have a name; empty: none */
};

struct task {
    const struct task_kind *kind;
    struct task_page *page;
    const char *nonce;
    uint64_t amount, deadline_ns, killed_ns; /* when it ends, and when what has not ended is killed */
    int service;                             /* its pid */
    /* What `prove` has made for `run`. */
    int fd, pairs[MAX_PAIRS][2];
    uint64_t *words;
    struct on_disk disk;
};

struct task_kind {
    const char *name;
    uint64_t usual, most; /* of `amount`; a `usual` of 0 is found out by `prove`, a `most` of 0 takes none */
    bool gentle;          /* ends by itself at its deadline; all others hold what they have until they are killed */
    const char *(*prove)(struct task *task); /* why it may not begin, or NULL */
    void (*run)(struct task *task);
};

#endif
