/* GET /compat. */
#ifndef LAB_COMPAT_TRIES_H
#define LAB_COMPAT_TRIES_H

#include "common/launch.h"
#include "http/request.h"

void answer_compat(const struct launch *launch, int slot, const struct request *request);

#endif
