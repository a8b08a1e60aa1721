/* POST /alloc: memory that the service takes and holds. */
#ifndef LAB_ALLOCATION_H
#define LAB_ALLOCATION_H

#include "common/launch.h"
#include "http/request.h"

void answer_alloc(const struct launch *launch, int slot, const struct request *request);
size_t allocated_mib(void);
bool allocation_running(void);
void allocation_step(void);       /* touches a bounded piece, so that others are served in between */
void allocation_forget(int slot); /* the one who asked is gone */

#endif
