/* POST /mix: a known number of known system calls. */
#ifndef LAB_SYSCALL_MIX_H
#define LAB_SYSCALL_MIX_H

#include "common/launch.h"
#include "http/request.h"

void answer_mix(const struct launch *launch, int slot, const struct request *request);

#endif
