/* Which endpoint answers a request, and whether the request is admitted to it. */
#ifndef LAB_ROUTES_H
#define LAB_ROUTES_H

#include "common/launch.h"
#include "http/request.h"

void answer(const struct launch *launch, int slot, const struct request *request);

#endif
