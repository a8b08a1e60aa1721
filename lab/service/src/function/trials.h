/* What a function's own limits are tried by: paths below /function/, which the bridge itself answers. */
#ifndef LAB_TRIALS_H
#define LAB_TRIALS_H

#include "common/parse.h"
#include "common/text.h"

struct called {
    uint64_t event_bytes, call, remaining_ms;
};

/* Answers a GET of /function/..., its status and its body; false where it is none of these. `body` lies in `into`. */
bool answer_trial(struct slice path, struct slice query, const struct called *called, struct text *into, int *status);

#endif
