/* What the workload is, as its own entries in /proc tell. */
#include "surface/probes.h"

#include "common/files.h"
#include "common/json.h"
#include "common/parse.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CGROUP2_MAGIC 0x63677270
#define CGROUP_MAGIC 0x27e0eb
#define TMPFS_MAGIC 0x01021994

static void file(struct text *json, const char *name, const char *path)
{
    static char content[8192];
    read_text(path, content, sizeof content);
    json_string(json, name, content);
}

static void link_text(struct text *json, const char *name, const char *directory)
{
    char path[64], target[128];
    struct text text = {path, 0, sizeof path, false};
    text_add(&text, directory);
    text_add(&text, name);
    text_bytes(&text, "", 1);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    json_string(json, name, target);
}

/* Whether the kernel has a driver of the device by which a machine tells it that it was copied, and is bound to one. */
static void generation(struct text *json)
{
    static const char *const drivers[] = {"/sys/bus/acpi/drivers/vmgenid", "/sys/bus/platform/drivers/vmgenid"};
    bool driver = false, device = false;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        DIR *directory = opendir(drivers[i]);
        driver = driver || directory;
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            device = device || strchr(entry->d_name, ':'); /* a device's name; what else is there has no colon */
        }
        if (directory) {
            closedir(directory);
        }
    }
    json_number(json, "generation_driver", driver);
    json_number(json, "generation_device", device);
}

static void kernel(struct text *json)
{
    struct utsname name;
    uname(&name);
    json_string(json, "system", name.sysname);
    json_string(json, "release", name.release);
    json_string(json, "machine", name.machine);
    file(json, "version", "/proc/version");
    json_string(json, "hostname", name.nodename);
    file(json, "boot_id", "/proc/sys/kernel/random/boot_id");
    generation(json);
}

static const char *const namespaces[] = {"cgroup", "ipc",  "mnt", "net", "pid", "pid_for_children",
                                         "time",   "time_for_children", "user", "uts"};

static void namespaces_of_self(struct text *json)
{
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        link_text(json, namespaces[i], "/proc/self/ns/");
    }
}

static void namespaces_of_first(struct text *json)
{
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        link_text(json, namespaces[i], "/proc/1/ns/");
    }
}

/* The parent of a process, by the status that /proc has of it; 0 when there is none. */
static uint64_t parent_of(const char *pid)
{
    char path[32], content[2048];
    struct text text = {path, 0, sizeof path, false};
    uint64_t parent = 0;
    text_add(&text, "/proc/");
    text_add(&text, pid);
    text_add(&text, "/status");
    text_bytes(&text, "", 1);
    if (text.full) {
        return 0;
    }
    read_text(path, content, sizeof content);
    const char *at = strstr(content, "\nPPid:\t");
    if (at) {
        at += 7;
        parse_number(at, strcspn(at, "\n"), UINT32_MAX, &parent);
    }
    return parent;
}

/* Counted without this process, the one that it works for, and the service. */
static void processes(struct text *json)
{
    char comm[32], own[16];
    uint64_t seen = 0, ours = 1, self = 0;
    struct text text = {own, 0, sizeof own, false};
    DIR *directory = opendir("/proc");
    struct dirent *entry;
    text_number(&text, (uint64_t)getppid());
    text_bytes(&text, "", 1);
    uint64_t work = (uint64_t)getppid(), service = parent_of(own);
    while (directory && (entry = readdir(directory))) {
        uint64_t pid;
        if (parse_number(entry->d_name, strlen(entry->d_name), UINT32_MAX, &pid)) {
            seen++;
            self += pid == (uint64_t)getpid();
            ours += pid == work || pid == service;
        }
    }
    read_text("/proc/2/comm", comm, sizeof comm);
    json_number(json, "seen", seen);
    json_number(json, "others", self ? seen - ours : seen);
    json_number(json, "kernel_threads", strcmp(comm, "kthreadd") == 0);
}

static void status(struct text *json)
{
    static const char *const lines[] = {"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
                                        "NoNewPrivs", "Seccomp", "Seccomp_filters"};
    static char content[16384];
    char value[4096];
    read_text("/proc/self/status", content, sizeof content);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        size_t length = strlen(lines[i]);
        for (const char *at = content; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : at) {
            if (strncmp(at, lines[i], length) == 0 && at[length] == ':') {
                at += length + 1;
                at += strspn(at, " \t");
                struct text text = {value, 0, sizeof value - 1, false};
                text_bytes(&text, at, strcspn(at, "\n"));
                value[text.length] = '\0';
                json_string(json, lines[i], value);
                break;
            }
        }
    }
}

static void id_maps(struct text *json)
{
    file(json, "uid", "/proc/self/uid_map");
    file(json, "gid", "/proc/self/gid_map");
}

static void security_module(struct text *json)
{
    file(json, "current", "/proc/self/attr/current");
    file(json, "apparmor", "/proc/self/attr/apparmor/current");
    file(json, "modules", "/sys/kernel/security/lsm");
}

/* /sys/fs/cgroup: what is there, and whether a process could be moved into a group of it. */
static void cgroups(struct text *json)
{
    static const char *const controllers[] = {"",       "memory", "cpu",     "cpu,cpuacct", "pids",
                                              "freezer", "devices", "systemd", "unified",     "cpuset"};
    struct statfs about;
    bool there = statfs("/sys/fs/cgroup", &about) == 0;
    bool mounted = there && ((unsigned long)about.f_type == CGROUP2_MAGIC || about.f_type == CGROUP_MAGIC ||
                             about.f_type == TMPFS_MAGIC);
    bool writable = false;
    for (size_t i = 0; mounted && i < sizeof controllers / sizeof *controllers; i++) {
        char path[64];
        struct text text = {path, 0, sizeof path, false};
        text_add(&text, "/sys/fs/cgroup/");
        text_add(&text, controllers[i]);
        text_add(&text, "/cgroup.procs");
        text_bytes(&text, "", 1);
        writable = writable || faccessat(AT_FDCWD, path, W_OK, 0) == 0;
    }
    file(json, "path", "/proc/self/cgroup");
    json_number(json, "mounted", mounted);
    json_number(json, "writable", writable);
}

static const struct probe list[] = {
    {"kernel", kernel},         {"namespaces", namespaces_of_self}, {"namespaces_of_first", namespaces_of_first},
    {"processes", processes},   {"status", status},                 {"id_maps", id_maps},
    {"security_module", security_module}, {"cgroups", cgroups}};

const struct probes surface_self = PROBES("self", list);
