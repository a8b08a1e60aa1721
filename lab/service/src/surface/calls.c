/* Which system calls are refused here: each of a reviewed table is tried once, in a throw-away child of its own. */
#include "surface/calls.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "server/children.h"
#include "server/connections.h"
#include "surface/privileges.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "surface/calls_lacking.h"

#define CALL_NS (2 * NS_PER_S) /* for one call, which returns at once wherever it is served */
#define ALL_NS (50 * NS_PER_S) /* after which the rest is told as late */
#define DEADLINE_S 60

/* Operands of the table: small numbers as they are, and these, which stand for what only the child knows. */
#define BAD (-1)
#define NOFD (-1)
#define SELF INT32_MIN
#define ROOT (INT32_MIN + 1)
#define ZEROS (INT32_MIN + 2)

/* Why a form is harmless, and what its answer can tell, is for who reads the table: neither is compiled. */
#define ROW(number, name, tried, ...) {name, {__VA_ARGS__}, number, tried},
#define TRY(name, sees, why, ...) ROW(SYS_##name, #name, true, __VA_ARGS__)
#define NOT(name, why) ROW(SYS_##name, #name, false, 0)
#define TRY_AT(number, name, sees, why, ...) ROW(number, #name, true, __VA_ARGS__)
#define NOT_AT(number, name, why) ROW(number, #name, false, 0)

static const struct call {
    char name[24]; /* in place: nothing here needs a relocation, nor is in memory before it is asked for */
    int32_t operands[6];
    int16_t number;
    bool tried;
} calls[] = {
#include "surface/calls_table.h"
#ifdef __x86_64__
#include "surface/calls_x86.h"
#endif
#include "surface/calls_newer.h"
};
#define CALLS (sizeof calls / sizeof *calls)

/* What a child tells of its call, in memory that it shares with its parent: no further call is needed for that. */
struct told {
    volatile bool returned;
    volatile int error; /* 0 where the call was served */
};

static char zeros[4096];

static long operand(int32_t value)
{
    switch (value) {
    case SELF: return getpid();
    case ROOT: return (long)"/";
    case ZEROS: return (long)zeros;
    default: return value;
    }
}

static _Noreturn void call_once(const struct call *call, struct told *told)
{
    long operands[6];
    for (int i = 0; i < 6; i++) {
        operands[i] = operand(call->operands[i]);
    }
    long got = syscall(call->number, operands[0], operands[1], operands[2], operands[3], operands[4], operands[5]);
    int error = got == -1 ? errno : 0;
#ifdef SYS_fork
    if (call->number == SYS_fork && got == 0) {
        _exit(0);
    }
    if (call->number == SYS_fork && got > 0) {
        waitpid((pid_t)got, NULL, 0);
    }
#endif
    if (call->number == SYS_clone && got == 0) {
        _exit(0); /* a process after all, where a kernel is not Linux */
    }
    told->error = error;
    told->returned = true;
    _exit(0);
}

/* Wait for the child, which is killed when its time is over; whether it was. */
static bool await(pid_t child, int *status)
{
    uint64_t deadline_ns = clock_ns(CLOCK_MONOTONIC) + CALL_NS, now_ns;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD); /* blocked since the service began, so that none comes between the look and the wait */
    while (waitpid(child, status, WNOHANG) != child) {
        now_ns = clock_ns(CLOCK_MONOTONIC);
        if (now_ns >= deadline_ns) {
            kill(child, SIGKILL);
            waitpid(child, status, 0);
            return true;
        }
        uint64_t left_ns = deadline_ns - now_ns;
        struct timespec left = {(time_t)(left_ns / NS_PER_S), (long)(left_ns % NS_PER_S)};
        sigtimedwait(&ends, NULL, &left);
    }
    return false;
}

static void outcome(struct text *json, const char *kind, int number)
{
    text_add(json, ",");
    text_json(json, kind);
    if (number >= 0) {
        text_add(json, ",");
        text_number(json, (uint64_t)number);
    }
}

static void try_call(struct text *json, const struct call *call, struct told *told)
{
    int status;
    pid_t parent = getpid(), child = fork();
    if (child < 0) {
        outcome(json, "unmade", errno);
        return;
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(0);
        }
        call_once(call, told);
    }
    bool late = await(child, &status);
    if (told->returned) {
        outcome(json, told->error ? "errno" : "ok", told->error ? told->error : -1);
    } else if (late) {
        outcome(json, "timeout", -1);
    } else if (WIFSIGNALED(status)) {
        outcome(json, "signal", WTERMSIG(status));
    } else {
        outcome(json, "exit", WEXITSTATUS(status));
    }
}

static void status_line(struct text *json, const char *field, const char *name)
{
    char content[4096];
    read_text("/proc/self/status", content, sizeof content);
    char *at = strstr(content, name), *end;
    at = at ? at + strlen(name) : content + strlen(content);
    end = strchr(at, '\n');
    if (end) {
        *end = '\0';
    }
    json_string(json, field, at);
}

static int try_calls(struct text *json, uint64_t drop)
{
    uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
    if (drop && !drop_privileges()) {
        json_string(json, "error", "its privileges could not be given up");
        return 500;
    }
    struct told *told = mmap(NULL, CALLS * sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED) {
        json_string(json, "error", "no memory to share with the children");
        return 500;
    }
    status_line(json, "uid", "\nUid:\t");
    status_line(json, "cap_eff", "\nCapEff:\t");
    /* A filter may end a child by SIGSYS, of which nobody is to keep a core. */
    prctl(PR_SET_DUMPABLE, 0);
    json_key(json, "calls");
    for (size_t i = 0; i < CALLS; i++) {
        if (calls[i].number == LACKS) {
            continue;
        }
        text_add(json, i ? ",[" : "[["); /* the first of the table is on every machine */
        text_json(json, calls[i].name);
        text_add(json, ",");
        text_number(json, (uint64_t)calls[i].number);
        if (!calls[i].tried) {
            outcome(json, "untried", -1);
        } else if (clock_ns(CLOCK_MONOTONIC) - begin_ns > ALL_NS) {
            outcome(json, "late", -1);
        } else {
            try_call(json, &calls[i], &told[i]);
        }
        text_add(json, "]");
    }
    text_add(json, "]");
    json_number(json, "took_ns", clock_ns(CLOCK_MONOTONIC) - begin_ns);
    return 200;
}

void answer_surface_calls(const struct launch *launch, int slot, const struct request *request)
{
    uint64_t drop = 0;
    if (request->has_query && !query_number(request, "drop", 1, &drop)) {
        respond(slot, 400, NULL, "{\"error\":\"drop must be 0 or 1\"}");
        return;
    }
    work_apart_within(launch, slot, try_calls, drop, DEADLINE_S);
}
