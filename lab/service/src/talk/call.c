/* GET /call: bounded open-loop calls of another instance, from a child of this one, which answers with what it saw.
 *
 *     GET /call?host=A|name=N|vsock=CID|unix=U [&port=P] &rate=R &count=C [&fresh=1] [&bytes=B] [&path=/healthz] [&nonce=..]
 *              [&timeout_ms=T]
 *
 * C calls, R a second, each at its instant whether or not the last was answered; on connections that are opened before
 * the first and kept, or with `fresh` on a new one each. With B a call is POST /payload, whose body has B bytes.
 *
 * The answer's `latency_ns` has for each call, in order, the time from its intended instant to its whole answer, null
 * where none of 2xx came; `outcomes` counts the others by name. `late` counts the calls during which this client was
 * itself late by more than `late_after_ns`. `cpu_ns` is the child's own CPU time; `resolve_ns` what asking for the name
 * took.
 * With `waits=1`, of at most 2,500 calls, `wait_ns` has for each how long after its intended instant its first byte left.
 */
#include "talk/call.h"

#include "client/schedule.h"
#include "common/clock.h"
#include "common/json.h"
#include "server/children.h"
#include "server/connections.h"
#include "talk/peer.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_CALLS 5000 /* whose latencies fit into one answer */
#define MAX_WAITS 2500
#define MAX_RATE 20000
#define MAX_BYTES 65536 /* what a service takes as a body */
#define MAX_MS 5000
#define MAX_SECONDS 90
#define KEPT 8 /* connections opened beforehand */
#define MOST 256
#define OVER_S 40 /* beyond its calls: a guest on a busy host takes long for all that it does */
#define MAX_PATH 64

/* What the child is to do: set before it is made, of which it has its own copy. */
static struct {
    struct peer peer;
    struct plan plan;
    uint64_t bytes, waits;
    char path[MAX_PATH];
} asked;

static char request_bytes[MAX_BYTES + 2048];

static bool write_request(void)
{
    struct text text = {request_bytes, 0, sizeof request_bytes, false};
    text_add(&text, asked.bytes ? "POST " : "GET ");
    text_add(&text, asked.bytes ? "/payload" : asked.path);
    text_add(&text, " HTTP/1.1\r\nHost: peer\r\n");
    if (asked.peer.nonce[0]) {
        text_add(&text, "X-Lab-Nonce: ");
        text_add(&text, asked.peer.nonce);
        text_add(&text, "\r\n");
    }
    if (asked.bytes) {
        text_add(&text, "Content-Length: ");
        text_number(&text, asked.bytes);
        text_add(&text, "\r\n");
    }
    text_add(&text, asked.plan.reuse ? "\r\n" : "Connection: close\r\n\r\n");
    if (text.full || sizeof request_bytes - text.length < asked.bytes) {
        return false;
    }
    memset(request_bytes + text.length, 'x', asked.bytes);
    asked.plan.request = request_bytes;
    asked.plan.request_length = text.length + asked.bytes;
    return true;
}

static void put_outcomes(struct text *json, const struct record *records)
{
    static const char *const names[] = {"unsent", "missed", "timeout", "refused", "closed", "broken", "cut-off"};
    uint64_t counts[sizeof names / sizeof *names] = {0}, others = 0;
    for (uint64_t i = 0; i < asked.plan.count; i++) {
        if (records[i].status <= 0) {
            counts[-records[i].status]++;
        } else {
            others += records[i].status < 200 || records[i].status > 299;
        }
    }
    json_key(json, "outcomes");
    text_add(json, "{\"status\":");
    text_number(json, others);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        text_add(json, ",");
        text_json(json, names[i]);
        text_add(json, ":");
        text_number(json, counts[i]);
    }
    text_add(json, "}");
}

static int failed(struct text *json, const char *problem)
{
    json_string(json, "error", problem);
    return 503;
}

static int call(struct text *json, uint64_t argument)
{
    uint64_t resolve_ns, start_ns, late = 0, ready_ns = 0;
    struct plan *plan = &asked.plan;
    (void)argument;
    const char *problem = find_peer(&asked.peer, plan, &resolve_ns);
    if (problem) {
        return failed(json, problem);
    }
    if (!write_request()) {
        return failed(json, "the request is too long");
    }
    struct record *records = mmap(NULL, (size_t)plan->count * sizeof *records, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    signal(SIGPIPE, SIG_IGN);
    if (records == MAP_FAILED || !run_schedule(plan, records, &start_ns)) {
        return failed(json, "the kernel refuses what the calls take");
    }
    json_number(json, "planned", plan->count);
    json_number(json, "resolve_ns", resolve_ns);
    json_number(json, "late_after_ns", plan->late_ns);
    put_outcomes(json, records);
    json_key(json, "latency_ns");
    for (uint64_t i = 0; i < plan->count; i++) {
        bool served = records[i].status >= 200 && records[i].status < 300;
        late += records[i].late;
        ready_ns = records[i].done_ns > ready_ns ? records[i].done_ns : ready_ns;
        text_add(json, i ? "," : "[");
        if (served) {
            text_number(json, records[i].done_ns - intended_ns(plan, start_ns, i));
        } else {
            text_add(json, "null");
        }
    }
    text_add(json, "]");
    if (asked.waits) {
        json_key(json, "wait_ns");
        for (uint64_t i = 0; i < plan->count; i++) {
            uint64_t due = intended_ns(plan, start_ns, i);
            text_add(json, i ? "," : "[");
            text_number(json, records[i].begun_ns > due ? records[i].begun_ns - due : 0);
        }
        text_add(json, "]");
    }
    json_number(json, "late", late);
    json_number(json, "took_ns", ready_ns > start_ns ? ready_ns - start_ns : 0);
    json_number(json, "cpu_ns", clock_ns(CLOCK_PROCESS_CPUTIME_ID));
    return 200;
}

static const char *read_plan(const struct request *request, uint64_t *seconds)
{
    struct plan *plan = &asked.plan;
    uint64_t rate, fresh, timeout_ms;
    const char *problem = read_peer(request, &asked.peer);
    if (problem) {
        return problem;
    }
    if (!read_number(request, "rate", MAX_RATE, 0, &rate) || rate == 0 ||
        !read_number(request, "count", MAX_CALLS, 0, &plan->count) || plan->count == 0) {
        return "rate must be from 1 to 20000, and count from 1 to 5000";
    }
    if (!read_number(request, "fresh", 1, 0, &fresh) || !read_number(request, "bytes", MAX_BYTES, 0, &asked.bytes) ||
        !read_number(request, "timeout_ms", MAX_MS, 1000, &timeout_ms) || timeout_ms == 0) {
        return "fresh is 0 or 1, bytes at most 65536, timeout_ms from 1 to 5000";
    }
    if (!read_number(request, "waits", 1, 0, &asked.waits) || (asked.waits && plan->count > MAX_WAITS)) {
        return "waits is 0 or 1, and told of at most 2500 calls";
    }
    if (!read_word(request, "path", asked.path, sizeof asked.path) || (asked.path[0] && asked.path[0] != '/')) {
        return "path must begin with a slash";
    }
    if (!asked.path[0]) {
        strcpy(asked.path, "/healthz");
    }
    *seconds = plan->count / rate + timeout_ms / 1000 + OVER_S;
    if (*seconds > MAX_SECONDS) {
        return "count at that rate takes too long";
    }
    plan->reuse = !fresh;
    plan->spacing_ns = NS_PER_S;
    plan->spacing_of = rate;
    plan->connections = MOST;
    plan->early = !fresh && plan->count > 1 ? KEPT : 0; /* a single call pays for its own connection */
    plan->timeout_ns = timeout_ms * NS_PER_MS;
    plan->late_ns = NS_PER_S / rate / 2;
    plan->late_ns = plan->late_ns < NS_PER_MS ? NS_PER_MS : plan->late_ns;
    return NULL;
}

void answer_call(const struct launch *launch, int slot, const struct request *request)
{
    uint64_t seconds;
    const char *problem = read_plan(request, &seconds);
    if (problem) {
        JSON_TEXT(json, 256);
        json_string(&json, "error", problem);
        respond(slot, 400, NULL, json_end(&json));
        return;
    }
    work_apart_within(launch, slot, call, 0, (unsigned)seconds);
}

void answer_payload(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    respond(slot, 200, NULL, "{\"status\":\"ok\"}");
}
