/* POST /task/start and GET /task: one task at a time, its processes bounded before it begins (see task.h). */
#include "tasks/lifecycle.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "http/response.h"
#include "server/connections.h"
#include "tasks/kinds.h"
#include "tasks/processes.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_SECONDS 120
#define GRACE_NS (2 * NS_PER_S) /* in which a gentle one must have ended by itself */

/* The last task, as the service knows it. */
static struct {
    const struct task_kind *kind; /* NULL: there was none */
    struct task_page *page;
    pid_t pid;
    bool running;
    int status; /* waitpid's */
    uint64_t ended_ns;
} last;

static const char *const amount_problem = "amount is beyond what this kind takes";

static const struct task_kind *find_kind(struct slice name)
{
    const struct task_kind *const tables[] = {troubles, antagonists};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        for (const struct task_kind *kind = tables[i]; kind->name; kind++) {
            if (slice_is(name, kind->name)) {
                return kind;
            }
        }
    }
    return NULL;
}

/* NULL, or what is wrong with the query. */
static const char *parse(const struct request *request, struct task *task, uint64_t *seconds)
{
    struct slice value;
    size_t known = 2, given = 1;
    for (size_t i = 0; i < request->query.length; i++) {
        given += request->query.at[i] == '&';
    }
    if (!query_value(request, "kind", &value) || !(task->kind = find_kind(value))) {
        return "kind must be one of memory, forks, files, disk, cpu, kill, panic, busy, bandwidth, cache, fsync, "
               "network, execs";
    }
    if (!query_value(request, "seconds", &value) || !parse_number(value.at, value.length, MAX_SECONDS, seconds) ||
        *seconds == 0) {
        return "seconds must be a number from 1 to 120";
    }
    task->amount = task->kind->usual;
    if (query_value(request, "amount", &value)) {
        known++;
        if (!parse_number(value.at, value.length, task->kind->most, &task->amount) || task->amount == 0) {
            return amount_problem;
        }
    }
    return given == known ? NULL : "only kind, seconds and amount are known";
}

static void json_bool(struct text *json, const char *name, bool value)
{
    json_key(json, name);
    text_add(json, value ? "true" : "false");
}

static void refuse(int slot, int status, const struct task_kind *kind, const char *problem)
{
    JSON_TEXT(json, 512);
    json_string(&json, "error", problem);
    if (problem == amount_problem) {
        json_number(&json, "most", kind->most);
    }
    respond(slot, status, NULL, json_end(&json));
}

/* NULL, or why the task must not begin. What the kernel must kill for, let it be this and not the service. */
static const char *settle(struct task *task)
{
    static const int own[] = {SIGALRM, SIGTERM, SIGINT, SIGCHLD};
    sigset_t none;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        signal(own[i], SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    task_bind(task, task->service);
    char score[16];
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool set = fd >= 0 && write(fd, "1000", 4) == 4;
    if (fd >= 0) {
        close(fd);
    }
    read_text("/proc/self/oom_score_adj", score, sizeof score);
    if (!set || strcmp(score, "1000") != 0) {
        return "oom_score_adj of the task cannot be set: the kernel might kill the service in its place";
    }
    return task->kind->prove ? task->kind->prove(task) : NULL;
}

static void tell(const struct launch *launch, int fd, const struct task *task, const char *problem)
{
    JSON_TEXT(json, 1024);
    static char response[2048];
    const struct task_page *page = task->page;
    json_string(&json, "kind", task->kind->name);
    if (problem) {
        json_string(&json, "error", problem);
    } else {
        json_number(&json, "pid", (uint64_t)getpid());
        json_number(&json, "amount", page->amount);
        json_number(&json, "cache_bytes", task_cache_bytes());
        json_number(&json, "started_ns", page->started_ns);
        json_number(&json, "deadline_ns", page->deadline_ns);
    }
    size_t length = format_response(launch, response, sizeof response, problem ? 409 : 202, false, NULL, json_end(&json));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    write_all(fd, response, length); /* who no longer listens is told by GET /task */
    close(fd);
}

/* The task's own process: it answers before it begins, since nothing may be able to afterwards. */
static void become_task(const struct launch *launch, int slot, struct task *task)
{
    int fd = take_over(slot);
    signal(SIGPIPE, SIG_IGN);
    const char *problem = settle(task);
    task->page->amount = task->amount;
    task->page->deadline_ns = task->deadline_ns;
    if (problem) {
        task->page->declined = true;
        tell(launch, fd, task, problem);
        _exit(1);
    }
    task->page->started_ns = clock_ns(CLOCK_MONOTONIC);
    tell(launch, fd, task, NULL);
    task->kind->run(task);
    while (!task->kind->gentle) {
        pause();
    }
    _exit(0);
}

/* One that has said that it does not begin only has to end: who asks again at once need not know of it. */
static void forget_declined(void)
{
    if (last.running && last.page->declined) {
        int status = 0;
        pid_t pid = waitpid(last.pid, &status, 0);
        task_reaped(pid, status);
    }
}

void answer_task_start(const struct launch *launch, int slot, const struct request *request)
{
    struct task task = {.nonce = launch->nonce, .service = getpid()};
    uint64_t seconds;
    const char *problem = parse(request, &task, &seconds);
    if (problem) {
        refuse(slot, 400, task.kind, problem);
        return;
    }
    forget_declined();
    if (last.running) {
        refuse(slot, 409, task.kind, "a task is running");
        return;
    }
    /* A page for each: what is left of an earlier one cannot count into this. */
    task.page = mmap(NULL, sizeof *task.page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (task.page == MAP_FAILED) {
        refuse(slot, 503, task.kind, "no memory");
        return;
    }
    task.deadline_ns = clock_ns(CLOCK_MONOTONIC) + seconds * NS_PER_S;
    task.killed_ns = task.deadline_ns + (task.kind->gentle ? GRACE_NS : 0);
    pid_t child = fork();
    if (child == 0) {
        become_task(launch, slot, &task);
    }
    if (child < 0) {
        munmap(task.page, sizeof *task.page);
        refuse(slot, 503, task.kind, "no process can be made");
        return;
    }
    if (last.page) {
        munmap(last.page, sizeof *last.page);
    }
    last.kind = task.kind;
    last.page = task.page;
    last.pid = child;
    last.running = true;
    hand_over(slot);
}

void task_ended(int pid)
{
    if (last.running && pid == last.pid) {
        kill(-pid, SIGKILL); /* whatever else there is in its session; its number is still its own */
    }
}

void task_reaped(int pid, int status)
{
    if (last.running && pid == last.pid) {
        last.running = false;
        last.status = status;
        last.ended_ns = clock_ns(CLOCK_MONOTONIC);
        if (last.page->file[0]) {
            unlink(last.page->file);
        }
        if (last.page->started_ns == 0) {
            last.kind = NULL; /* it never began */
        }
    }
}

void answer_task(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    forget_declined();
    JSON_TEXT(json, 1024);
    static const struct task_page nothing;
    const struct task_page *page = last.kind ? last.page : &nothing;
    bool ended = last.kind && !last.running;
    json_string(&json, "kind", last.kind ? last.kind->name : "");
    json_bool(&json, "running", last.kind && last.running);
    json_number(&json, "pid", last.kind ? (uint64_t)last.pid : 0);
    json_number(&json, "amount", page->amount);
    json_number(&json, "started_ns", page->started_ns);
    json_number(&json, "ended_ns", ended ? last.ended_ns : 0);
    json_number(&json, "deadline_ns", page->deadline_ns);
    json_number(&json, "exit_code", ended && WIFEXITED(last.status) ? (uint64_t)WEXITSTATUS(last.status) : 0);
    json_number(&json, "signal", ended && WIFSIGNALED(last.status) ? (uint64_t)WTERMSIG(last.status) : 0);
    json_number(&json, "made", page->made);
    json_number(&json, "refused", page->refused);
    json_number(&json, "errno", (uint64_t)page->error);
    json_number(&json, "bytes", page->bytes);
    json_number(&json, "operations", page->operations);
    respond(slot, 200, NULL, json_end(&json));
}
