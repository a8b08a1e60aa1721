/* GET /call and POST /payload: what one instance's calls of another take, measured from inside the caller. */
#ifndef LAB_CALL_H
#define LAB_CALL_H

#include "common/launch.h"
#include "http/request.h"

void answer_call(const struct launch *launch, int slot, const struct request *request);
void answer_payload(const struct launch *launch, int slot, const struct request *request);

#endif
