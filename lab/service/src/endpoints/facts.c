/* What the service answers. Every endpoint but /healthz asks for the launch's nonce. */
#include "common/service.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MIB ((size_t)1024 * 1024)
#define MAX_ALLOCATED_MIB 4096

/* One more than can ever be asked for, each mapping being at least 1 MiB. */
static struct {
    char *at;
    size_t mib;
} held[MAX_ALLOCATED_MIB + 1];
static size_t held_count, held_mib;

static struct {
    bool running;
    int slot; /* -1 once nobody waits for it */
    size_t touched, length;
} allocation = {.slot = -1};

/* Tells nothing of the nonce by its time but its length, which is no secret. */
static bool admitted(const struct launch *launch, const struct request *request)
{
    size_t length = strlen(launch->nonce);
    unsigned char difference = 0;
    if (length == 0 || request->nonce.length != length) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        difference |= (unsigned char)(launch->nonce[i] ^ request->nonce.at[i]);
    }
    return difference == 0;
}

static void field_file(struct text *text, const char *name, const char *path)
{
    char content[1024];
    read_text(path, content, sizeof content);
    json_string(text, name, content);
}

static void field_link(struct text *text, const char *name, const char *path)
{
    char target[128];
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    json_string(text, name, target);
}

static void answer_clock(const struct launch *launch, int slot, const struct request *request)
{
    (void)request;
    JSON_TEXT(json, 2048);
    struct utsname kernel;
    uname(&kernel);
    json_string(&json, "nonce", launch->nonce);
    json_number(&json, "main_ns", launch->main_ns);
    json_number(&json, "main_boottime_ns", launch->main_boottime_ns);
    json_number(&json, "listening_ns", launch->listening_ns);
    json_number(&json, "listening_boottime_ns", launch->listening_boottime_ns);
    field_file(&json, "boot_id", "/proc/sys/kernel/random/boot_id");
    json_string(&json, "kernel", kernel.release);
    json_number(&json, "pid", (uint64_t)getpid());
    field_link(&json, "time_namespace", "/proc/self/ns/time");
    json_string(&json, "version", launch->version);
    json_number(&json, "realtime_ns", clock_ns(CLOCK_REALTIME));
    json_number(&json, "now_ns", clock_ns(CLOCK_MONOTONIC));
    json_number(&json, "now_boottime_ns", clock_ns(CLOCK_BOOTTIME));
    respond(slot, 200, NULL, json_end(&json));
}

static void facts_namespaces(struct text *json)
{
    static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
    json_key(json, "namespaces");
    text_add(json, "{");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[32];
        struct text text = {path, 0, sizeof path, false};
        text_add(&text, "/proc/self/ns/");
        text_add(&text, names[i]);
        text_bytes(&text, "", 1);
        if (i > 0) {
            text_add(json, ",");
        }
        char target[128];
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        text_json(json, names[i]);
        text_add(json, ":");
        text_json(json, target);
    }
    text_add(json, "}");
}

/* The value of a `Name:` line of a /proc file, copied out; empty when there is none. */
static void proc_line(const char *content, const char *name, char *into, size_t capacity)
{
    size_t length = 0;
    const char *at = strstr(content, name);
    if (at && (at == content || at[-1] == '\n')) {
        at += strlen(name);
        while (*at == ' ' || *at == '\t') {
            at++;
        }
        while (at[length] && at[length] != '\n' && length < capacity - 1) {
            into[length] = at[length];
            length++;
        }
    }
    into[length] = '\0';
}

static void answer_facts(const struct launch *launch, int slot, const struct request *request)
{
    (void)request;
    static const struct {
        const char *name, *line;
    } status_lines[] = {{"capabilities_effective", "CapEff:"},
                        {"capabilities_bounding", "CapBnd:"},
                        {"no_new_privileges", "NoNewPrivs:"},
                        {"seccomp", "Seccomp:"}};
    static char content[8192];
    char value[128];
    JSON_TEXT(json, 6144);
    struct utsname kernel;
    cpu_set_t cpus;
    uname(&kernel);
    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof cpus, &cpus);
    json_string(&json, "version", launch->version);
    json_number(&json, "pid", (uint64_t)getpid());
    json_number(&json, "ppid", (uint64_t)getppid());
    json_number(&json, "uid", getuid());
    json_number(&json, "gid", getgid());
    json_string(&json, "kernel", kernel.release);
    json_string(&json, "kernel_version", kernel.version);
    json_string(&json, "machine", kernel.machine);
    json_string(&json, "hostname", kernel.nodename);
    field_file(&json, "boot_id", "/proc/sys/kernel/random/boot_id");
    facts_namespaces(&json);
    json_number(&json, "cpus_online", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    json_number(&json, "cpus_allowed", (uint64_t)CPU_COUNT(&cpus));
    json_number(&json, "page_bytes", (uint64_t)sysconf(_SC_PAGESIZE));
    read_text("/proc/meminfo", content, sizeof content);
    proc_line(content, "MemTotal:", value, sizeof value);
    json_string(&json, "memory_total", value);
    field_file(&json, "cgroup", "/proc/self/cgroup");
    field_file(&json, "cgroup_v2_memory_max", "/sys/fs/cgroup/memory.max");
    field_file(&json, "cgroup_v1_memory_limit", "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    read_text("/proc/self/status", content, sizeof content);
    for (size_t i = 0; i < sizeof status_lines / sizeof *status_lines; i++) {
        proc_line(content, status_lines[i].line, value, sizeof value);
        json_string(&json, status_lines[i].name, value);
    }
    json_number(&json, "allocated_mib", held_mib);
    respond(slot, 200, NULL, json_end(&json));
}

static void answer_held(int slot)
{
    JSON_TEXT(json, 128);
    json_number(&json, "held_mib", held_mib);
    respond(slot, 200, NULL, json_end(&json));
}

static void answer_alloc(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    uint64_t mib;
    if (!query_number(request, "mib", MAX_ALLOCATED_MIB, &mib)) {
        respond(slot, 400, NULL, "{\"error\":\"mib must be a number of at most 4096\"}");
        return;
    }
    if (allocation.running) {
        respond(slot, 409, NULL, "{\"error\":\"an allocation is under way\"}");
        return;
    }
    if (mib == 0) {
        while (held_count > 0) {
            held_count--;
            munmap(held[held_count].at, held[held_count].mib * MIB);
        }
        held_mib = 0;
        answer_held(slot);
        return;
    }
    if (held_mib + mib > MAX_ALLOCATED_MIB) {
        respond(slot, 507, NULL, "{\"error\":\"at most 4096 MiB are held in all\"}");
        return;
    }
    void *at = mmap(NULL, (size_t)mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        respond(slot, 507, NULL, "{\"error\":\"the kernel has no such memory\"}");
        return;
    }
    held[held_count].at = at;
    held[held_count].mib = (size_t)mib;
    held_count++;
    held_mib += (size_t)mib;
    allocation.running = true;
    allocation.slot = slot;
    allocation.touched = 0;
    allocation.length = (size_t)mib * MIB;
}

bool allocation_running(void)
{
    return allocation.running;
}

void allocation_forget(int slot)
{
    if (allocation.slot == slot) {
        allocation.slot = -1;
    }
}

void allocation_step(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *at = held[held_count - 1].at;
    for (size_t end = allocation.touched + MIB; allocation.touched < end; allocation.touched += page) {
        /* A different word in every page, lest same-page merging takes them back. */
        uint64_t word = (uint64_t)(uintptr_t)(at + allocation.touched) ^ clock_ns(CLOCK_MONOTONIC);
        memcpy(at + allocation.touched, &word, sizeof word);
    }
    if (allocation.touched >= allocation.length) {
        int slot = allocation.slot;
        allocation.running = false;
        allocation.slot = -1;
        if (slot >= 0) {
            answer_held(slot);
        }
    }
}

static void answer_healthz(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    respond(slot, 200, NULL, "{\"status\":\"ok\"}");
}

void answer(const struct launch *launch, int slot, const struct request *request)
{
    static const struct {
        const char *path, *method, *allow;
        void (*answer)(const struct launch *launch, int slot, const struct request *request);
        bool open;
    } endpoints[] = {{"/healthz", "GET", "Allow: GET\r\n", answer_healthz, true},
                     {"/clock", "GET", "Allow: GET\r\n", answer_clock, false},
                     {"/work", "GET", "Allow: GET\r\n", answer_work, false},
                     {"/alloc", "POST", "Allow: POST\r\n", answer_alloc, false},
                     {"/facts", "GET", "Allow: GET\r\n", answer_facts, false},
                     {"/measure/syscall", "GET", "Allow: GET\r\n", answer_measure_syscall, false},
                     {"/measure/cpu", "GET", "Allow: GET\r\n", answer_measure_cpu, false},
                     {"/measure/switch", "GET", "Allow: GET\r\n", answer_measure_switch, false},
                     {"/measure/memory", "GET", "Allow: GET\r\n", answer_measure_memory, false},
                     {"/measure/fsync", "GET", "Allow: GET\r\n", answer_measure_fsync, false},
                     {"/surface/facts", "GET", "Allow: GET\r\n", answer_surface_facts, false},
                     {"/surface/calls", "GET", "Allow: GET\r\n", answer_surface_calls, false},
                     {"/mix", "POST", "Allow: POST\r\n", answer_mix, false},
                     {"/task/start", "POST", "Allow: POST\r\n", answer_task_start, false},
                     {"/task", "GET", "Allow: GET\r\n", answer_task, false}};
    size_t count = sizeof endpoints / sizeof *endpoints, i = 0;
    while (i < count && !slice_is(request->path, endpoints[i].path)) {
        i++;
    }
    if (slice_is(request->method, "OPTIONS")) {
        /* No preflight ever succeeds: a web page of another origin cannot send the nonce's header. */
        respond(slot, 405, i < count ? endpoints[i].allow : "Allow: GET\r\n", "{\"error\":\"method\"}");
    } else if (i == count) {
        respond(slot, 404, NULL, "{\"error\":\"no such endpoint\"}");
    } else if (!slice_is(request->method, endpoints[i].method)) {
        respond(slot, 405, endpoints[i].allow, "{\"error\":\"method\"}");
    } else if (!endpoints[i].open && !admitted(launch, request)) {
        respond(slot, 403, NULL, "{\"error\":\"X-Lab-Nonce\"}");
    } else {
        endpoints[i].answer(launch, slot, request);
    }
}
