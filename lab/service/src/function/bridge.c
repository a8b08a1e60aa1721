/* The bridge mode: the service as a function of the Lambda Runtime API.
 *
 *     service bridge [ARGUMENTS]     starts `service ARGUMENTS`, and forwards a Function URL's events to it
 *
 * Environment, beside the service's own:
 *     AWS_LAMBDA_RUNTIME_API   address:port of the Runtime API, version 2018-06-01; where it is absent, and the image
 *                              has /aws-lambda-rie, that emulator is started, which then starts this
 *
 * Each event of `/runtime/invocation/next` is a request to the service, which listens on loopback beside it, and the
 * service's answer is the function's. What lies below /function/ is answered here, to the launch's nonce
 * (function/trials.c). Its own first line on stdout, when it first asks for an event: `lab NONCE polled NS`.
 *
 * It ends as the service ends, and with 1 when the Runtime API is gone.
 */
#include "function/bridge.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "function/event.h"
#include "function/trials.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOM ((size_t)24 * 1024 * 1024) /* an event has 6 MiB, its escapes up to six times as many at the worst */
#define LISTENS_WITHIN_NS (30 * NS_PER_S)
#define NONCE_BYTES 128
#define MAX_ARGUMENTS 64

static struct peer runtime = {.fd = -1}, service = {.fd = -1};
static pid_t child;
static char *event_room, *body_room, *answer_room, *json_room;
static const char *runtime_host;

static void ended(int signal)
{
    (void)signal;
    int status;
    if (waitpid(child, &status, WNOHANG) == child) {
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
}

static void stop(int signal)
{
    if (child > 0) {
        kill(child, SIGKILL);
    }
    _exit(128 + signal);
}

static const char *environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static bool start(char **arguments)
{
    pid_t parent = getpid();
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD); /* until its number is known */
    sigprocmask(SIG_BLOCK, &blocked, &before);
    child = fork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) {
            execv("/proc/self/exe", arguments);
        }
        _exit(127);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return child > 0;
}

/* Until it listens; a service that ended has ended this process. Nothing is asked: it counts what it answers. */
static bool await_service(void)
{
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + LISTENS_WITHIN_NS;
    while (!dial(&service)) {
        if (clock_ns(CLOCK_MONOTONIC) > until_ns) {
            return false;
        }
        nanosleep(&(struct timespec){0, 100000}, NULL);
    }
    return true;
}

static void tell_polled(void)
{
    char line[NONCE_BYTES + 64];
    struct text text = {line, 0, sizeof line, false};
    text_add(&text, "lab ");
    text_add(&text, environment("LAB_NONCE", "-"));
    text_add(&text, " polled ");
    text_number(&text, clock_ns(CLOCK_MONOTONIC));
    text_add(&text, "\n");
    (void)!write(STDOUT_FILENO, line, text.length);
}

static bool ask_runtime(const char *method, struct slice path, const char *more, struct slice body, char *into,
                        struct answer *answer)
{
    char bytes[1024];
    struct text head = {bytes, 0, sizeof bytes, false};
    text_add(&head, method);
    text_add(&head, " /2018-06-01/runtime/");
    text_bytes(&head, path.at, path.length);
    text_add(&head, " HTTP/1.1\r\nHost: ");
    text_add(&head, runtime_host);
    text_add(&head, "\r\n");
    text_add(&head, more);
    if (body.at) {
        text_add(&head, "Content-Type: application/json\r\nContent-Length: ");
        text_number(&head, body.length);
        text_add(&head, "\r\n");
    }
    text_add(&head, "\r\n");
    return !head.full &&
           exchange(&runtime, (struct slice){bytes, head.length}, body, into, ROOM, 0, answer) == ANSWERED;
}

/* `what` is `response` or `error` of the call `id`. */
static bool reply(struct slice id, const char *what, const char *more, struct slice body)
{
    char bytes[256];
    struct text path = {bytes, 0, sizeof bytes, false};
    struct answer answer;
    text_add(&path, "invocation/");
    text_bytes(&path, id.at, id.length);
    text_add(&path, "/");
    text_add(&path, what);
    return !path.full && ask_runtime("POST", (struct slice){bytes, path.length}, more, body, answer_room, &answer);
}

static bool refuse(struct slice id, const char *type, const char *message)
{
    char bytes[512], header[128];
    struct text json = {bytes, 0, sizeof bytes, false}, more = {header, 0, sizeof header - 1, false};
    text_add(&json, "{");
    json_string(&json, "errorMessage", message);
    json_string(&json, "errorType", type);
    text_add(&json, ",\"stackTrace\":[]}");
    text_add(&more, "Lambda-Runtime-Function-Error-Type: ");
    text_add(&more, type);
    text_add(&more, "\r\n");
    header[more.length] = '\0';
    return reply(id, "error", header, (struct slice){bytes, json.length});
}

/* How long the call may still take, by the platform's deadline. */
static uint64_t remaining_ms(const struct answer *next)
{
    struct slice value;
    uint64_t deadline_ms, now_ms = clock_ns(CLOCK_REALTIME) / NS_PER_MS;
    if (!answer_header(next, "Lambda-Runtime-Deadline-Ms", &value) ||
        !parse_number(value.at, value.length, UINT64_MAX / 2, &deadline_ms)) {
        return 0;
    }
    return deadline_ms > now_ms ? deadline_ms - now_ms : 1;
}

static bool admitted(const struct event *event)
{
    char given[NONCE_BYTES];
    const char *nonce = environment("LAB_NONCE", "");
    size_t length = event_header(event, "X-Lab-Nonce", given, sizeof given);
    return length > 0 && slice_is((struct slice){given, length}, nonce);
}

/* Whether it was a call of the bridge's own, and has been answered into `answer`. */
static bool try_own(const struct event *event, struct slice request, const struct called *called,
                    struct answer *answer)
{
    static const char own[] = "/function/";
    const char *target = memchr(request.at, ' ', request.length), *end = request.at + request.length;
    if (!target++ || (size_t)(end - target) < sizeof own || memcmp(target, own, sizeof own - 1) != 0) {
        return false;
    }
    const char *stop = memchr(target, ' ', (size_t)(end - target));
    const char *mark = memchr(target, '?', (size_t)(stop - target));
    struct slice path = {target, (size_t)((mark ? mark : stop) - target)};
    struct slice query = mark ? (struct slice){mark + 1, (size_t)(stop - mark - 1)} : (struct slice){stop, 0};
    static const char json_head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    struct text body = {answer_room, 0, ROOM, false};
    answer->status = 200;
    if (!admitted(event)) {
        answer->status = 403;
        text_add(&body, "{\"error\":\"X-Lab-Nonce\"}");
    } else if (!answer_trial(path, query, called, &body, &answer->status)) {
        answer->status = 404;
        text_add(&body, "{\"error\":\"no such trial\"}");
    }
    answer->head = (struct slice){json_head, sizeof json_head - 1};
    answer->body = answer_room;
    answer->body_length = body.length;
    return true;
}

static bool handle(const struct answer *next, uint64_t call)
{
    static char head_bytes[65536];
    struct text head = {head_bytes, 0, sizeof head_bytes, false}, json = {json_room, 0, ROOM, false};
    struct called called = {next->body_length, call, remaining_ms(next)};
    struct event event;
    struct slice id;
    struct answer answer;
    size_t body_length;
    if (!answer_header(next, "Lambda-Runtime-Aws-Request-Id", &id)) {
        return false; /* whom to answer is not said */
    }
    if (!parse_event(next->body, next->body_length, &event) ||
        !event_request(&event, &head, body_room, &body_length)) {
        return refuse(id, "Lab.NoFunctionUrlEvent", "the event is no request of a Function URL (payload format 2.0)");
    }
    struct slice request = {head_bytes, head.length};
    if (!try_own(&event, request, &called, &answer)) {
        switch (exchange(&service, request, (struct slice){body_room, body_length}, answer_room, ROOM,
                         called.remaining_ms, &answer)) {
        case ANSWERED: break;
        case TOO_LATE: return refuse(id, "Lab.Deadline", "the service did not answer before the call's deadline");
        case TOO_LARGE: return refuse(id, "Function.ResponseSizeTooLarge", "the service's answer is too large");
        default: return refuse(id, "Lab.NoAnswer", "the service gave no answer") && false;
        }
    }
    event_response(&json, &answer, call);
    if (json.full) {
        return refuse(id, "Function.ResponseSizeTooLarge", "the service's answer is too large");
    }
    return reply(id, "response", "", (struct slice){json_room, json.length});
}

static bool make_room(void)
{
    char **rooms[] = {&event_room, &body_room, &answer_room, &json_room};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        /* Pages are the kernel's until they are written. */
        *rooms[i] = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (*rooms[i] == MAP_FAILED) {
            return false;
        }
    }
    return true;
}

static bool find_peers(void)
{
    const char *colon = strrchr(runtime_host, ':'), *port_text = environment("LAB_PORT", "");
    char host[64];
    uint64_t port;
    size_t length = colon ? (size_t)(colon - runtime_host) : 0;
    if (!colon || length >= sizeof host || !parse_number(colon + 1, strlen(colon + 1), 65535, &port)) {
        return false;
    }
    memcpy(host, runtime_host, length);
    host[length] = '\0';
    return parse_address(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, (uint16_t)port, &runtime.address,
                         &runtime.address_length) &&
           parse_number(port_text, strlen(port_text), 65535, &port) &&
           parse_address("127.0.0.1", (uint16_t)port, &service.address, &service.address_length);
}

/* As the entrypoint of AWS's own images does: who gives no Runtime API wants an emulator of it. */
static void become_emulator(int argc, char **argv)
{
    static char rie[] = "/aws-lambda-rie";
    static char *arguments[MAX_ARGUMENTS + 2];
    if (argc <= MAX_ARGUMENTS && access(rie, X_OK) == 0) {
        arguments[0] = rie;
        memcpy(arguments + 1, argv, (size_t)argc * sizeof *argv);
        execv(rie, arguments);
    }
}

int bridge(int argc, char **argv)
{
    struct answer next;
    static const char path[] = "invocation/next";
    runtime_host = environment("AWS_LAMBDA_RUNTIME_API", "");
    if (!runtime_host[0]) {
        become_emulator(argc, argv);
    }
    if (!find_peers()) {
        complain("bridge", "AWS_LAMBDA_RUNTIME_API names no address and port, or LAB_PORT no port");
        return 2;
    }
    struct sigaction action = {.sa_handler = ended};
    sigaction(SIGCHLD, &action, NULL);
    action.sa_handler = stop;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    argv[1] = argv[0]; /* it is started by its own name, and the arguments behind `bridge` */
    if (!make_room() || !start(argv + 1)) {
        complain("bridge", strerror(errno));
        return 1;
    }
    if (!await_service()) {
        static const char error[] = "{\"errorMessage\":\"the service does not listen\",\"errorType\":\"Lab.NoService\"}";
        ask_runtime("POST", (struct slice){"init/error", 10}, "", (struct slice){error, sizeof error - 1}, answer_room,
                    &next);
        stop(SIGTERM);
    }
    tell_polled();
    for (uint64_t call = 1;; call++) {
        if (!ask_runtime("GET", (struct slice){path, sizeof path - 1}, "", (struct slice){NULL, 0}, event_room, &next)) {
            complain("bridge", "the Runtime API is gone");
            stop(SIGTERM);
        }
        if (next.status != 200 || !handle(&next, call)) {
            complain("bridge", "a call cannot be answered");
            stop(SIGTERM);
        }
    }
}
