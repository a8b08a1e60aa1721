/* GET /surface/calls. */
#ifndef LAB_SURFACE_CALLS_H
#define LAB_SURFACE_CALLS_H

#include "common/launch.h"
#include "http/request.h"

void answer_surface_calls(const struct launch *launch, int slot, const struct request *request);

#endif
