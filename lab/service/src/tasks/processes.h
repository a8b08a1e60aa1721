/* What a task's processes share: how each is bound, ends, and counts. */
#ifndef LAB_PROCESSES_H
#define LAB_PROCESSES_H

#include "tasks/task.h"

#include <sys/types.h>

/* In a new process of the task: it ends with `parent`, and at the task's end. */
void task_bind(const struct task *task, pid_t parent);
/* Another process of the task, bound as its leader is; in the leader, refused forks are counted and give -1. */
int task_fork(struct task *task);
bool task_over(const struct task *task);
void task_refused(struct task *task, int error);
static inline void task_count(uint64_t *counter, uint64_t by)
{
    __atomic_fetch_add(counter, by, __ATOMIC_RELAXED);
}
/* `amount` processes, this one among them, that all run `body`; returns when it has ended here. */
void task_together(struct task *task, void (*body)(struct task *task, uint64_t which));
void task_spin(struct task *task, uint64_t which);
uint64_t task_cache_bytes(void); /* of the last level; 0 where the kernel does not tell */

#endif
