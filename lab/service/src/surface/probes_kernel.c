/* What the workload can learn of its kernel, and have it make: asked in harmless ways, each by a process that ends. */
#include "surface/probes.h"

#include "common/files.h"
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef KALLSYMS_PATH
#define KALLSYMS_PATH "/proc/kallsyms"
#endif
#define SYSLOG_ACTION_SIZE_BUFFER 10 /* syslog(2): reads no message, and is refused to whom reading is */
#define BPF_MAP_CREATE 0
#define BPF_MAP_TYPE_ARRAY 2

static void told_errno(struct text *json, const char *name, bool done)
{
    json_number(json, name, done ? 0 : (uint64_t)errno);
}

/* The first page: whether it has an address that is not zero. */
static void kallsyms(struct text *json)
{
    char content[4096];
    int fd = open(KALLSYMS_PATH, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, content, sizeof content) : -1;
    told_errno(json, "read", length >= 0);
    json_number(json, "bytes", length > 0 ? (uint64_t)length : 0);
    bool address = false, in_address = true;
    for (ssize_t i = 0; i < length; i++) {
        in_address = content[i] == '\n' || (in_address && content[i] != ' ');
        address = address || (in_address && content[i] != '0' && content[i] != '\n');
    }
    json_number(json, "addresses", address);
}

static void kernel_log(struct text *json)
{
    told_errno(json, "syslog", syscall(SYS_syslog, SYSLOG_ACTION_SIZE_BUFFER, NULL, 0) >= 0);
    int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    told_errno(json, "kmsg", fd >= 0);
}

/* One byte of it is its header's; a file put in its place is empty. */
static void kcore(struct text *json)
{
    char byte;
    int fd = open("/proc/kcore", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, &byte, 1) : -1;
    told_errno(json, "read", length >= 0);
    json_number(json, "bytes", length > 0 ? (uint64_t)length : 0);
}

static void settings(struct text *json)
{
    static const char *const names[] = {"kernel/perf_event_paranoid",
                                        "kernel/unprivileged_bpf_disabled",
                                        "kernel/kptr_restrict",
                                        "kernel/dmesg_restrict",
                                        "kernel/unprivileged_userns_clone",
                                        "kernel/apparmor_restrict_unprivileged_userns",
                                        "user/max_user_namespaces",
                                        "kernel/yama/ptrace_scope",
                                        "kernel/modules_disabled"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[96], value[64];
        struct text text = {path, 0, sizeof path, false};
        text_add(&text, "/proc/sys/");
        text_add(&text, names[i]);
        text_bytes(&text, "", 1);
        read_text(path, value, sizeof value);
        json_string(json, names[i], value);
    }
}

/* A security module may let one be made, and then refuse all that its capabilities are for: another namespace below it
 * takes one of them. Both end with this process. */
static void user_namespace(struct text *json)
{
    bool made = unshare(CLONE_NEWUSER) == 0;
    told_errno(json, "unshare", made);
    told_errno(json, "use", made && unshare(CLONE_NEWUTS) == 0);
}

/* A map of one value of 8 bytes, which goes with the process. An invalid one would be refused before rights are. */
static void bpf_map(struct text *json)
{
    uint32_t attributes[32] = {BPF_MAP_TYPE_ARRAY, 4, 8, 1};
    told_errno(json, "map_create", syscall(SYS_bpf, BPF_MAP_CREATE, attributes, sizeof attributes) >= 0);
}

static const struct probe list[] = {{"kallsyms", kallsyms},  {"kernel_log", kernel_log},         {"kcore", kcore},
                                    {"settings", settings},  {"user_namespace", user_namespace}, {"bpf", bpf_map}};

const struct probes surface_kernel = PROBES("kernel", list);
