/* What the guest runs: its environment, its directory, its user. */
#ifndef LAB_WORKLOAD_H
#define LAB_WORKLOAD_H

#include "pid1/config.h"

#include <stdbool.h>

/* The lab's own service learns its launch from its environment, on every platform. */
void add_environment(struct config *config, bool network);
/* In a child: becomes the program that `config` names, or ends. */
void become_workload(struct config *config) __attribute__((noreturn));

#endif
