/* What the workload shares with its host and can touch: GET /surface/facts?group=NAME[&drop=1]
 *
 * Each probe runs in a process of its own and has PROBE_LIMIT_MS: one that hangs is told as timed out, and the others
 * are there. None writes to anything. With `drop`, they look as a user without privileges would, as the workload on a
 * host that it shares entirely is to be seen. */
#include "surface/facts.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "server/children.h"
#include "server/connections.h"
#include "surface/privileges.h"
#include "surface/probes.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PROBE_LIMIT_MS
#define PROBE_LIMIT_MS 4000
#endif
#ifndef BUDGET_MS
#define BUDGET_MS 20000 /* of a group: what is left then is not tried */
#endif
#define DEADLINE_S 28
#define VALUE_BYTES 57344

static const struct probes *const groups[] = {&surface_self, &surface_places, &surface_paths, &surface_kernel};
#define GROUPS (sizeof groups / sizeof *groups)
#define DROP 0x100

static uint64_t now_ms(void)
{
    return clock_ns(CLOCK_MONOTONIC) / NS_PER_MS;
}

/* Reads into `into` until the other end is closed; false when that has not come by `deadline_ms`. */
static bool read_until(int fd, struct text *into, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = now_ms();
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (now >= deadline_ms || (poll(&ready, 1, (int)(deadline_ms - now)) < 0 && errno != EINTR)) {
            return false;
        }
        if (ready.revents) {
            char bytes[4096];
            ssize_t got = read(fd, bytes, sizeof bytes);
            if (got < 0 && errno != EINTR) {
                return false;
            }
            if (got == 0) {
                return true;
            }
            text_bytes(into, bytes, got > 0 ? (size_t)got : 0);
        }
    }
}

static void look_alone(const struct probe *probe, int fd, pid_t parent)
{
    JSON_TEXT(json, VALUE_BYTES);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    probe->look(&json);
    const char *found = json_end(&json);
    size_t length = 0;
    while (found[length]) {
        length++;
    }
    _exit(write_all(fd, found, length) ? 0 : 1);
}

static void look(const struct probe *probe, struct text *json, uint64_t budget_ends_ms)
{
    static char bytes[VALUE_BYTES];
    struct text value = {bytes, 0, sizeof bytes, false};
    uint64_t deadline_ms = now_ms() + PROBE_LIMIT_MS;
    int ends[2], status = -1;
    if (deadline_ms > budget_ends_ms) {
        json_string(json, probe->name, "not tried");
        return;
    }
    pid_t parent = getpid();
    if (pipe(ends) < 0) {
        json_string(json, probe->name, "failed");
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        look_alone(probe, ends[1], parent);
    }
    close(ends[1]);
    bool ended = child > 0 && read_until(ends[0], &value, deadline_ms);
    close(ends[0]);
    if (child > 0 && !ended) {
        /* Not waited for: one that hangs in the kernel would hold up the others. The service's first process reaps. */
        kill(child, SIGKILL);
        json_string(json, probe->name, "timed out");
        return;
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0 || value.full) {
        json_string(json, probe->name, "failed");
        return;
    }
    json_key(json, probe->name);
    text_bytes(json, value.at, value.length);
}

static int facts(struct text *json, uint64_t argument)
{
    const struct probes *group = groups[argument & (DROP - 1)];
    uint64_t budget_ends_ms = now_ms() + BUDGET_MS;
    if (argument & DROP && !drop_privileges()) {
        json_string(json, "error", "the privileges cannot be dropped");
        return 500;
    }
    for (size_t i = 0; i < group->count; i++) {
        look(&group->at[i], json, budget_ends_ms);
    }
    return 200;
}

void answer_surface_facts(const struct launch *launch, int slot, const struct request *request)
{
    struct slice name, drop;
    size_t i = 0;
    if (query_value(request, "group", &name)) {
        while (i < GROUPS && !slice_is(name, groups[i]->group)) {
            i++;
        }
    } else {
        i = GROUPS;
    }
    bool dropped = query_value(request, "drop", &drop);
    if (i == GROUPS || (dropped && !slice_is(drop, "1"))) {
        respond(slot, 400, NULL, "{\"error\":\"group must be self, places, paths or kernel, and drop, if given, 1\"}");
        return;
    }
    work_apart_within(launch, slot, facts, i | (dropped ? DROP : 0), DEADLINE_S);
}
