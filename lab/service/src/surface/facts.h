/* GET /surface/facts. */
#ifndef LAB_SURFACE_FACTS_H
#define LAB_SURFACE_FACTS_H

#include "common/launch.h"
#include "http/request.h"

void answer_surface_facts(const struct launch *launch, int slot, const struct request *request);

#endif
