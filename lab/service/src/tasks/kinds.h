/* The kinds of tasks, in troubles.c and antagonists.c. */
#ifndef LAB_KINDS_H
#define LAB_KINDS_H

#include "tasks/task.h"

/* Each ends with an entry that has no name. */
extern const struct task_kind troubles[], antagonists[];

#endif
