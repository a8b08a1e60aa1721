/* GET /job?steps=N[&mib=M][&room=R]: a fixed amount of work, and memory that is held while it is done.
 *
 * Each runs in a child (server/children.h), and none waits for another: as many as there may be children work at a
 * time, and one more is refused with 503. So is one whose memory, with that of as many as are at work, is beyond R MiB.
 */
#include "endpoints/job.h"

#include "common/clock.h"
#include "common/json.h"
#include "server/children.h"
#include "server/connections.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_STEPS UINT64_C(20000000000)
#define MAX_MIB 4096
#define MIB ((size_t)1024 * 1024)
#define DEADLINE_S 60 /* of a job that shares its CPU with others */

/* What the next child is to do: it has a copy of it from its making on. */
static struct {
    const struct launch *launch;
    uint64_t steps, mib, served;
} asked;

static bool hold(size_t length)
{
    char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        return false;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t done = 0; done < length; done += page) {
        /* A different word in every page, lest same-page merging takes them back. */
        uint64_t word = (uint64_t)(uintptr_t)(at + done) ^ clock_ns(CLOCK_MONOTONIC);
        memcpy(at + done, &word, sizeof word);
    }
    return true;
}

static int job(struct text *json, uint64_t unused)
{
    (void)unused;
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    json_string(json, "nonce", asked.launch->nonce);
    if (asked.mib > 0 && !hold((size_t)asked.mib * MIB)) {
        json_string(json, "error", "the kernel has no such memory");
        return 507;
    }
    volatile uint64_t kept = start;
    uint64_t value = kept;
    for (uint64_t i = 0; i < asked.steps; i++) {
        /* Each step needs the one before: nothing to be guessed or done side by side. */
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        __asm__ volatile("" : "+r"(value));
    }
    kept = value;
    json_number(json, "steps", asked.steps);
    json_number(json, "mib", asked.mib);
    json_number(json, "took_ns", clock_ns(CLOCK_MONOTONIC) - start);
    json_number(json, "cpu_ns", clock_ns(CLOCK_PROCESS_CPUTIME_ID));
    json_string(json, "token", asked.launch->token);
    json_number(json, "served", asked.served);
    return 200;
}

/* Whether `name` is absent, which is 0, or a number of at most `max`. */
static bool number(const struct request *request, const char *name, uint64_t max, uint64_t *into)
{
    struct slice value;
    *into = 0;
    return !query_value(request, name, &value) || parse_number(value.at, value.length, max, into);
}

void answer_job(const struct launch *launch, int slot, const struct request *request)
{
    uint64_t steps, mib, room;
    if (!number(request, "steps", MAX_STEPS, &steps) || steps == 0 || !number(request, "mib", MAX_MIB, &mib) ||
        !number(request, "room", UINT32_MAX, &room)) {
        respond(slot, 400, NULL, "{\"error\":\"steps must be from 1 to 20000000000, and mib at most 4096\"}");
        return;
    }
    if (room > 0 && (work_running() + 1) * mib > room) {
        respond(slot, 503, NULL, "{\"error\":\"no room for this job's memory\"}");
        return;
    }
    asked.launch = launch;
    asked.steps = steps;
    asked.mib = mib;
    asked.served = served();
    work_apart_within(launch, slot, job, 0, DEADLINE_S);
}
