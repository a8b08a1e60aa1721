/* GET /job: a fixed amount of work, and memory that is held while it is done: what a burst is made of. */
#ifndef LAB_JOB_H
#define LAB_JOB_H

#include "common/launch.h"
#include "http/request.h"

void answer_job(const struct launch *launch, int slot, const struct request *request);

#endif
