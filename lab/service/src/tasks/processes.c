/* What a task's processes share: how each is bound, ends, and counts. */
#include "tasks/processes.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/parse.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define BATCH 4096

void task_bind(const struct task *task, pid_t parent)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || now >= task->killed_ns) {
        _exit(0);
    }
    uint64_t us = (task->killed_ns - now) / 1000 + 1;
    struct itimerval timer = {.it_value = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)}};
    if (setitimer(ITIMER_REAL, &timer, NULL) < 0) {
        _exit(1);
    }
}

int task_fork(struct task *task)
{
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        task_bind(task, parent);
    } else if (child < 0) {
        task_refused(task, errno);
    }
    return child;
}

bool task_over(const struct task *task)
{
    return clock_ns(CLOCK_MONOTONIC) >= task->deadline_ns;
}

void task_refused(struct task *task, int error)
{
    task->page->error = error;
    task_count(&task->page->refused, 1);
}

void task_together(struct task *task, void (*body)(struct task *task, uint64_t which))
{
    for (uint64_t i = 1; i < task->amount; i++) {
        if (task_fork(task) == 0) {
            body(task, i);
            _exit(0);
        }
    }
    body(task, 0);
    while (wait(NULL) > 0) {
    }
}

void task_spin(struct task *task, uint64_t which)
{
    (void)which;
    uint64_t value = 1;
    task_count(&task->page->made, 1);
    while (!task_over(task)) {
        for (int i = 0; i < BATCH; i++) {
            value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            __asm__ volatile("" : "+r"(value));
        }
        task_count(&task->page->operations, BATCH);
    }
}

uint64_t task_cache_bytes(void)
{
    char text[32];
    uint64_t kib;
    read_text("/sys/devices/system/cpu/cpu0/cache/index3/size", text, sizeof text);
    size_t length = strlen(text);
    bool told = length > 1 && text[length - 1] == 'K' && parse_number(text, length - 1, UINT32_MAX, &kib);
    return told ? kib * 1024 : 0;
}
