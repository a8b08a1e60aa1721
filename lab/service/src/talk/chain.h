/* GET /chain and POST /chain/next: a request that goes on through other instances, one behind the other. */
#ifndef LAB_CHAIN_H
#define LAB_CHAIN_H

#include "common/launch.h"
#include "http/request.h"

void answer_chain(const struct launch *launch, int slot, const struct request *request);
void answer_chain_next(const struct launch *launch, int slot, const struct request *request);

#endif
