/* GET /work: a fixed time of one CPU's work. */
#include "endpoints/work.h"

#include "common/clock.h"
#include "common/json.h"
#include "server/children.h"
#include "server/connections.h"

#define MAX_WORK_US 10000000

static int work(struct text *json, uint64_t us)
{
    uint64_t start = clock_ns(CLOCK_MONOTONIC), now = start, iterations = 0;
    volatile uint64_t state = 1;
    while (now - start < us * 1000) {
        /* A fixed piece of arithmetic of a few hundred ns: how many were done tells what else used the CPU. */
        for (int i = 0; i < 256; i++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        }
        iterations++;
        now = clock_ns(CLOCK_MONOTONIC);
    }
    json_number(json, "requested_us", us);
    json_number(json, "took_ns", now - start);
    json_number(json, "cpu_ns", clock_ns(CLOCK_PROCESS_CPUTIME_ID));
    json_number(json, "iterations", iterations);
    return 200;
}

void answer_work(const struct launch *launch, int slot, const struct request *request)
{
    uint64_t us;
    if (!query_number(request, "us", MAX_WORK_US, &us)) {
        respond(slot, 400, NULL, "{\"error\":\"us must be a number of at most 10000000\"}");
        return;
    }
    work_apart(launch, slot, work, us);
}
