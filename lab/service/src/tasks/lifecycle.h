/* POST /task/start and GET /task. */
#ifndef LAB_LIFECYCLE_H
#define LAB_LIFECYCLE_H

#include "common/launch.h"
#include "http/request.h"

void answer_task_start(const struct launch *launch, int slot, const struct request *request);
void answer_task(const struct launch *launch, int slot, const struct request *request);

void task_ended(int pid); /* not yet waited for */
void task_reaped(int pid, int status);

#endif
