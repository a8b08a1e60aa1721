/* GET /clock and GET /facts. */
#ifndef LAB_FACTS_H
#define LAB_FACTS_H

#include "common/launch.h"
#include "http/request.h"

void answer_clock(const struct launch *launch, int slot, const struct request *request);
void answer_facts(const struct launch *launch, int slot, const struct request *request);

#endif
