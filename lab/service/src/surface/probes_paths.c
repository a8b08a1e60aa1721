/* What the workload may read and write of /proc and /sys: asked by faccessat(2), which also refuses what is mounted
 * read-only, and never tried. */
#include "surface/probes.h"

#include "common/clock.h"
#include "common/json.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TMPFS_MAGIC 0x01021994
#define MAX_DEPTH 14
#define MAX_ENTRIES 60000
#define WALK_MS 2500
#define MAX_NAMED 40 /* of each file system, by their path */

/* What reaches beyond the workload, or tells of what does: what container engines mask or make read-only, and what
 * has been used to break out of containers that had it. */
static const char *const declared[] = {
    "/proc/acpi",
    "/proc/bus",
    "/proc/config.gz",
    "/proc/fs",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/fs/protected_symlinks",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/kernel/cap_last_cap",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
    "/sys/class/net",
    "/sys/devices/system/cpu/cpu1/online",
    "/sys/firmware",
    "/sys/firmware/efi/efivars",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/security",
    "/sys/kernel/slab",
    "/sys/kernel/tracing",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/vmcoreinfo",
    "/sys/module",
    "/sys/power/state",
};

/* Something else put in a path's place, so that it is not reached: a device that is empty, or a directory in memory. */
static bool hidden(const char *path, const struct stat *about)
{
    struct statfs where;
    return (S_ISCHR(about->st_mode) && about->st_rdev == makedev(1, 3)) ||
           (statfs(path, &where) == 0 && where.f_type == TMPFS_MAGIC);
}

/* Root passes every check of modes; a file without any write bit takes no write from it either. */
static bool may_write(int directory, const char *name, mode_t mode)
{
    return mode & 0222 && faccessat(directory, name, W_OK, 0) == 0;
}

static void reach(struct text *json)
{
    for (size_t i = 0; i < sizeof declared / sizeof *declared; i++) {
        struct stat about;
        const char *path = declared[i], *said = "";
        if (fstatat(AT_FDCWD, path, &about, AT_NO_AUTOMOUNT) < 0) {
            said = "absent";
        } else if (hidden(path, &about)) {
            said = "hidden";
        } else {
            bool reads = faccessat(AT_FDCWD, path, R_OK, 0) == 0;
            bool writes = S_ISREG(about.st_mode) && may_write(AT_FDCWD, path, about.st_mode);
            said = reads ? writes ? "rw" : "r" : writes ? "w" : "";
        }
        json_string(json, path, said);
    }
}

static struct {
    dev_t device;
    uint64_t entries, writable, ends_ns;
    bool bounded;
} walk;

static void name_path(struct text *json, const char *prefix, const char *name)
{
    char path[512];
    struct text text = {path, 0, sizeof path - 1, false};
    text_add(&text, prefix);
    text_add(&text, name);
    path[text.length] = '\0';
    text_add(json, json->at[json->length - 1] == '[' ? "" : ",");
    text_json(json, path);
}

static void walk_below(struct text *json, int directory, const char *prefix, int depth, bool of_proc)
{
    DIR *stream = fdopendir(directory);
    struct dirent *entry;
    while (stream && (entry = readdir(stream))) {
        struct stat about;
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            /* Processes' own directories: what is in them comes and goes, and is no part of the kernel's. */
            (of_proc && depth == 0 && name[0] >= '0' && name[0] <= '9') ||
            fstatat(dirfd(stream), name, &about, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 ||
            about.st_dev != walk.device || S_ISLNK(about.st_mode)) {
            continue;
        }
        if (++walk.entries > MAX_ENTRIES || clock_ns(CLOCK_MONOTONIC) > walk.ends_ns) {
            walk.bounded = true;
            break;
        }
        if (S_ISREG(about.st_mode)) {
            if (may_write(dirfd(stream), name, about.st_mode) && ++walk.writable <= MAX_NAMED) {
                name_path(json, prefix, name);
            }
        } else if (S_ISDIR(about.st_mode)) {
            if (depth >= MAX_DEPTH) {
                walk.bounded = true;
                continue;
            }
            int below = openat(dirfd(stream), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            char path[512];
            struct text text = {path, 0, sizeof path, false};
            text_add(&text, prefix);
            text_add(&text, name);
            text_add(&text, "/");
            text_bytes(&text, "", 1);
            if (below >= 0 && text.full) {
                close(below);
                walk.bounded = true;
            } else if (below >= 0) {
                walk_below(json, below, path, depth + 1, of_proc);
            }
        }
    }
    if (stream) {
        closedir(stream);
    }
}

/* Regular files of the one file system, within bounds that `bounded` says were met. */
static void count(struct text *json, const char *path, bool of_proc)
{
    struct stat about;
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    walk.ends_ns = clock_ns(CLOCK_MONOTONIC) + WALK_MS * NS_PER_MS;
    json_key(json, "named");
    text_add(json, "[");
    if (directory >= 0 && fstat(directory, &about) == 0) {
        walk.device = about.st_dev;
        walk_below(json, directory, path, 0, of_proc);
    }
    text_add(json, "]");
    json_number(json, "writable", walk.writable);
    json_number(json, "entries", walk.entries);
    json_number(json, "bounded", walk.bounded);
}

static void count_proc(struct text *json)
{
    count(json, "/proc/", true);
}

static void count_sys(struct text *json)
{
    count(json, "/sys/", false);
}

static const struct probe list[] = {{"reach", reach}, {"proc", count_proc}, {"sys", count_sys}};

const struct probes surface_paths = PROBES("paths", list);
