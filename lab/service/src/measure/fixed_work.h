/* The endpoints that time fixed amounts of work. */
#ifndef LAB_FIXED_WORK_H
#define LAB_FIXED_WORK_H

#include "common/launch.h"
#include "http/request.h"

void answer_measure_syscall(const struct launch *launch, int slot, const struct request *request);
void answer_measure_cpu(const struct launch *launch, int slot, const struct request *request);
void answer_measure_switch(const struct launch *launch, int slot, const struct request *request);
void answer_measure_memory(const struct launch *launch, int slot, const struct request *request);
void answer_measure_fsync(const struct launch *launch, int slot, const struct request *request);

#endif
