/* GET /clock and GET /facts: the instants that this launch has seen, and what it sees of where it runs. */
#include "endpoints/facts.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "endpoints/allocation.h"
#include "server/connections.h"

#include <sched.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

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

void answer_clock(const struct launch *launch, int slot, const struct request *request)
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
    field_link(&json, "pid_namespace", "/proc/self/ns/pid");
    json_string(&json, "version", launch->version);
    json_string(&json, "token", launch->token);
    json_number(&json, "served", served());
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

void answer_facts(const struct launch *launch, int slot, const struct request *request)
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
    field_file(&json, "random", "/proc/sys/kernel/random/uuid"); /* bytes that its kernel gives only once */
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
    json_number(&json, "allocated_mib", allocated_mib());
    respond(slot, 200, NULL, json_end(&json));
}
