/* GET /work: a fixed time of one CPU's work. */
#ifndef LAB_WORK_H
#define LAB_WORK_H

#include "common/launch.h"
#include "http/request.h"

void answer_work(const struct launch *launch, int slot, const struct request *request);

#endif
