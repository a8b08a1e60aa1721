/* The client mode: bounded open-loop load, and a watch of a service's health.
 *
 *     service load  --host A --port P --seconds S --rate R [--connections-cap C] [--open-first O] [...]
 *     service watch --host A --port P --seconds S [--interval-ms N] [...]
 *     both:         [--path /healthz] [--nonce N] [--authority H] [--timeout-ms T]
 *
 * `load` sends R requests a second for S seconds (at most three decimals) on connections that it keeps open, at most C
 * at a time, of which it opens O beforehand. `watch` sends one every N ms (10), each on a new connection. A is a numeric
 * address; H is what the requests give as Host where that is another. The client ends by itself soon after S seconds, whatever happens to whoever started it; SIGTERM ends it
 * early, and it still tells what it saw.
 *
 * stdout, after the last request: one JSON object a line for each request of the plan, in order of its instant:
 *     {"intended_ns":..,"sent_ns":..,"done_ns":..,"status":200,"version":"..","late":false}
 * in CLOCK_MONOTONIC; `sent_ns` and `done_ns` are null for what never was; `status` is HTTP's number or one of
 * missed, timeout, refused, closed, broken, cut-off, unsent; `late` says that the client itself was late meanwhile.
 * A last line {"summary":{..}} counts them. Records are kept in memory until then, so that a slow reader of stdout
 * cannot disturb the schedule.
 *
 * Exit status: 0, 1 when the kernel refuses, 2 for bad arguments, 3 when its own hard deadline ended it.
 */
#include "client/load_and_watch.h"

#include "client/plan.h"
#include "client/schedule.h"
#include "client/versions.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "common/parse.h"
#include "common/text.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_RATE 20000
#define MAX_SECONDS 3600
#define MAX_REQUESTS 1000000
#define MAX_MS 60000
#define GRACE_S 5
#define REPORT_S 60 /* for whoever reads the report */

struct arguments {
    const char *host, *path, *nonce, *authority, *seconds;
    uint64_t port, rate, duration_ms, connections, early, timeout_ms, interval_ms;
};

static char out_bytes[65536];
static struct text out = {out_bytes, 0, sizeof out_bytes, false};

static void overdue(int signal)
{
    (void)signal;
    _exit(3);
}

static bool flush_out(void)
{
    bool written = write_all(STDOUT_FILENO, out.at, out.length);
    out.length = 0;
    return written;
}

/* Part of a request's bytes: nothing that could end a line in it. */
static bool printable(const char *string, size_t max)
{
    size_t length = 0;
    for (; string[length]; length++) {
        if (string[length] <= ' ' || string[length] > '~' || length >= max) {
            return false;
        }
    }
    return true;
}

/* Seconds with at most three decimals, as ms. */
static bool parse_seconds(const char *string, uint64_t *ms)
{
    const char *point = strchr(string, '.');
    size_t whole = point ? (size_t)(point - string) : strlen(string), decimals = point ? strlen(point + 1) : 0;
    uint64_t seconds, fraction = 0;
    if (!parse_number(string, whole, MAX_SECONDS, &seconds) || decimals > 3 ||
        (point && !parse_number(point + 1, decimals, 999, &fraction))) {
        return false;
    }
    for (; decimals > 0 && decimals < 3; decimals++) {
        fraction *= 10;
    }
    *ms = seconds * 1000 + fraction;
    return *ms > 0 && *ms <= MAX_SECONDS * 1000;
}

static bool parse_arguments(int argc, char **argv, struct arguments *into)
{
    struct {
        const char *name;
        const char **text;
        uint64_t *number, max;
    } options[] = {{"--host", &into->host, NULL, 0},
                   {"--path", &into->path, NULL, 0},
                   {"--nonce", &into->nonce, NULL, 0},
                   {"--authority", &into->authority, NULL, 0},
                   {"--port", NULL, &into->port, 65535},
                   {"--rate", NULL, &into->rate, MAX_RATE},
                   {"--seconds", &into->seconds, NULL, 0},
                   {"--connections-cap", NULL, &into->connections, MAX_CLIENT_CONNECTIONS},
                   {"--open-first", NULL, &into->early, MAX_CLIENT_CONNECTIONS},
                   {"--timeout-ms", NULL, &into->timeout_ms, MAX_MS},
                   {"--interval-ms", NULL, &into->interval_ms, MAX_MS}};
    size_t count = sizeof options / sizeof *options;
    for (int at = 2; at < argc; at += 2) {
        size_t i = 0;
        while (i < count && strcmp(argv[at], options[i].name) != 0) {
            i++;
        }
        if (i == count || at + 1 >= argc) {
            complain(argv[at], i == count ? "unknown option" : "needs a value");
            return false;
        }
        const char *value = argv[at + 1];
        if (options[i].text) {
            *options[i].text = value;
        } else if (!parse_number(value, strlen(value), options[i].max, options[i].number) || *options[i].number == 0) {
            complain(argv[at], "is no number, or beyond its cap");
            return false;
        }
    }
    if (into->seconds && !parse_seconds(into->seconds, &into->duration_ms)) {
        complain("--seconds", "is no number of seconds, or beyond its cap");
        return false;
    }
    return true;
}

/* Fills `plan`, its request's bytes put into `request`; false, and says why, when it cannot be. */
static bool make_plan(const char *command, const struct arguments *arguments, struct plan *plan, struct text *request)
{
    bool load = strcmp(command, "load") == 0;
    if (!load && strcmp(command, "watch") != 0) {
        complain(command, "unknown command: load or watch");
        return false;
    }
    if (!arguments->duration_ms || !arguments->port || !arguments->host || (load && !arguments->rate)) {
        complain(command, load ? "needs --host, --port, --seconds and --rate" : "needs --host, --port and --seconds");
        return false;
    }
    if (!parse_address(arguments->host, (uint16_t)arguments->port, &plan->address, &plan->address_length)) {
        complain("--host", "is no numeric IPv4 or IPv6 address");
        return false;
    }
    if (arguments->path[0] != '/' || !printable(arguments->path, 1024) || !printable(arguments->nonce, 128)) {
        complain(command, "--path must start with a slash, and it and --nonce be printable without spaces");
        return false;
    }
    if (!printable(arguments->authority, 260)) {
        complain("--authority", "must be printable without spaces");
        return false;
    }
    plan->reuse = load;
    plan->spacing_ns = load ? NS_PER_S : arguments->interval_ms * NS_PER_MS;
    plan->spacing_of = load ? arguments->rate : 1;
    plan->count = arguments->duration_ms * NS_PER_MS * plan->spacing_of / plan->spacing_ns;
    plan->connections = arguments->connections;
    plan->early = !load ? 0 : arguments->early < plan->connections ? arguments->early : plan->connections;
    plan->timeout_ns = arguments->timeout_ms * NS_PER_MS;
    if (plan->count == 0 || plan->count > MAX_REQUESTS) {
        complain(command, "must plan from 1 to 1000000 requests");
        return false;
    }
    plan->late_ns = plan->spacing_ns / plan->spacing_of / 2;
    plan->late_ns = plan->late_ns < NS_PER_MS ? NS_PER_MS : plan->late_ns;

    bool bracketed = strchr(arguments->host, ':') != NULL;
    text_add(request, "GET ");
    text_add(request, arguments->path);
    text_add(request, " HTTP/1.1\r\nHost: ");
    if (arguments->authority[0]) {
        text_add(request, arguments->authority);
    } else {
        text_add(request, bracketed ? "[" : "");
        text_add(request, arguments->host);
        text_add(request, bracketed ? "]:" : ":");
        text_number(request, arguments->port);
    }
    text_add(request, "\r\n");
    if (arguments->nonce[0]) {
        text_add(request, "X-Lab-Nonce: ");
        text_add(request, arguments->nonce);
        text_add(request, "\r\n");
    }
    text_add(request, plan->reuse ? "\r\n" : "Connection: close\r\n\r\n");
    plan->request = request->at;
    plan->request_length = request->length;
    return true;
}

static void put_instant(const char *name, uint64_t ns)
{
    text_add(&out, name);
    if (ns) {
        text_number(&out, ns);
    } else {
        text_add(&out, "null");
    }
}

static const char *const outcomes[] = {"unsent", "missed", "timeout", "refused", "closed", "broken", "cut-off"};
#define OUTCOMES (sizeof outcomes / sizeof *outcomes)

static bool put_record(const struct record *record, uint64_t intended)
{
    put_instant("{\"intended_ns\":", intended);
    put_instant(",\"sent_ns\":", record->sent_ns);
    put_instant(",\"done_ns\":", record->done_ns);
    text_add(&out, ",\"status\":");
    if (record->status > 0) {
        text_number(&out, (uint64_t)record->status);
    } else {
        text_json(&out, outcomes[-record->status]);
    }
    text_add(&out, ",\"version\":");
    text_json(&out, version_name(record->version));
    text_add(&out, record->late ? ",\"late\":true}\n" : ",\"late\":false}\n");
    return out.length < sizeof out_bytes - 1024 || flush_out();
}

static void put_count(const char *name, uint64_t number)
{
    text_add(&out, ",");
    text_json(&out, name);
    text_add(&out, ":");
    text_number(&out, number);
}

static bool report(const struct plan *plan, const struct record *records, uint64_t start_ns)
{
    uint64_t counts[OUTCOMES] = {0}, answered = 0, successful = 0, late = 0, missed_late = 0;
    for (uint64_t i = 0; i < plan->count; i++) {
        const struct record *record = &records[i];
        answered += record->status > 0;
        successful += record->status >= 200 && record->status < 300;
        late += record->late;
        missed_late += record->late && record->status == MISSED; /* the client's own fault, perhaps */
        if (record->status <= 0) {
            counts[-record->status]++;
        }
        if (!put_record(record, intended_ns(plan, start_ns, i))) {
            return false;
        }
    }
    text_add(&out, "{\"summary\":{\"planned\":");
    text_number(&out, plan->count);
    put_count("answered", answered);
    put_count("successful", successful);
    for (size_t i = 0; i < OUTCOMES; i++) {
        put_count(outcomes[i], counts[i]);
    }
    put_count("missed_late", missed_late);
    put_count("late", late);
    put_count("late_after_ns", plan->late_ns);
    put_count("start_ns", start_ns);
    put_count("end_ns", clock_ns(CLOCK_MONOTONIC));
    text_add(&out, "}}\n");
    return flush_out();
}

int load_and_watch(int argc, char **argv)
{
    static char request_bytes[2048];
    struct text request = {request_bytes, 0, sizeof request_bytes, false};
    struct arguments arguments = {
        .path = "/healthz", .nonce = "", .authority = "", .connections = 256, .timeout_ms = 1000, .interval_ms = 10};
    struct plan plan = {0};
    struct rlimit files;
    if (!parse_arguments(argc, argv, &arguments) || !make_plan(argv[1], &arguments, &plan, &request)) {
        return 2;
    }
    struct sigaction action = {.sa_handler = overdue};
    sigaction(SIGALRM, &action, NULL);
    alarm((unsigned)((arguments.duration_ms + arguments.timeout_ms) / 1000 + GRACE_S));
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    action.sa_handler = stop_schedule;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    /* Delivered only while the schedule waits, so that none comes between its look and its wait. */
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files); /* where it stays too low, requests are missed, and counted so */
    }
    size_t size = (size_t)plan.count * sizeof(struct record);
    struct record *records = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (records == MAP_FAILED) {
        complain("records", strerror(errno));
        return 1;
    }
    uint64_t start_ns;
    if (!run_schedule(&plan, records, &start_ns)) {
        complain("schedule", strerror(errno));
        return 1;
    }
    alarm(REPORT_S);
    if (!report(&plan, records, start_ns)) {
        complain("stdout", strerror(errno));
        return 1;
    }
    return 0;
}
