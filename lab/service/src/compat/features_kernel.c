/* Its kernel: what is asked and told of it, devices, and what it believes to have. Devices are opened that do nothing when
 * they are; clocks and names are asked to be set in a form that the kernel refuses as wrong once the right is proven. */
#include "compat/features.h"

#include "common/files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#ifndef PRESSURE_PATH
#define PRESSURE_PATH "/proc/pressure/cpu"
#endif
#define BPF_MAP_CREATE 0
#define BPF_MAP_TYPE_ARRAY 2
#define SYSLOG_ACTION_SIZE_BUFFER 10
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

static int opened(const char *path, int flags)
{
    return outcome_of(open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) >= 0);
}

/* A counter of the kernel's own clock, for this process alone. */
static int perf(struct text *given)
{
    struct perf_event_attr what = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof what, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1};
    (void)given;
    return outcome_of(syscall(SYS_perf_event_open, &what, 0, -1, -1, 0) >= 0);
}

static int perf_hardware(struct text *given)
{
    struct perf_event_attr what = {
        .type = PERF_TYPE_HARDWARE, .size = sizeof what, .config = PERF_COUNT_HW_INSTRUCTIONS, .exclude_kernel = 1};
    (void)given;
    return outcome_of(syscall(SYS_perf_event_open, &what, 0, -1, -1, 0) >= 0);
}

/* The smallest map, which goes with the process. */
static int bpf(struct text *given)
{
    uint32_t attributes[32] = {BPF_MAP_TYPE_ARRAY, 4, 8, 1};
    (void)given;
    return outcome_of(syscall(SYS_bpf, BPF_MAP_CREATE, attributes, sizeof attributes) >= 0);
}

static int landlock(struct text *given)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    if (version >= 0) {
        text_add(given, "version ");
        text_number(given, (uint64_t)version);
    }
    return outcome_of(version >= 0);
}

/* A time zone that there is not, and no time: the kernel asks for the right first, and then refuses it as wrong. */
static int clock_set(struct text *given)
{
    struct timezone wrong = {.tz_minuteswest = 30 * 60};
    (void)given;
#ifdef SYS_settimeofday
    return syscall(SYS_settimeofday, NULL, &wrong) == 0 ? WRONG : errno == EINVAL ? 0 : errno;
#else
    (void)wrong;
    return ENOSYS;
#endif
}

static int clock_read(struct text *given)
{
    struct timex nothing = {.modes = 0};
    (void)given;
    return outcome_of(adjtimex(&nothing) >= 0);
}

static int clock_resolution(struct text *given)
{
    struct timespec step = {0, 0};
    bool done = clock_getres(CLOCK_MONOTONIC, &step) == 0;
    text_number(given, (uint64_t)step.tv_nsec);
    text_add(given, " ns");
    return outcome_of(done);
}

/* A name that is too long: refused as wrong, where the right is there. */
static int name_set(struct text *given)
{
    (void)given;
    return syscall(SYS_sethostname, "", 4096) == 0 ? WRONG : errno == EINVAL ? 0 : errno;
}

static int random_bytes(struct text *given)
{
    char bytes[16];
    (void)given;
    return outcome_of(getrandom(bytes, sizeof bytes, GRND_NONBLOCK) == (ssize_t)sizeof bytes);
}

static int kernel_log(struct text *given)
{
    (void)given;
    return outcome_of(syscall(SYS_syslog, SYSLOG_ACTION_SIZE_BUFFER, NULL, 0) >= 0);
}

static int device_null(struct text *given)
{
    (void)given;
    return opened("/dev/null", O_RDWR);
}

static int device_random(struct text *given)
{
    (void)given;
    return opened("/dev/urandom", O_RDONLY);
}

static int device_terminal(struct text *given)
{
    (void)given;
    return opened("/dev/ptmx", O_RDWR);
}

static int device_tun(struct text *given)
{
    (void)given;
    return opened("/dev/net/tun", O_RDWR);
}

static int device_fuse(struct text *given)
{
    (void)given;
    return opened("/dev/fuse", O_RDWR);
}

static int device_kvm(struct text *given)
{
    (void)given;
    return opened("/dev/kvm", O_RDWR);
}

static int shown(const char *path)
{
    static char content[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, content, sizeof content);
    return length < 0 ? outcome_of(false) : length > 0 ? 0 : WRONG;
}

static int maps(struct text *given)
{
    (void)given;
    return shown("/proc/self/maps");
}

static int smaps(struct text *given)
{
    (void)given;
    return shown("/proc/self/smaps_rollup");
}

static int own_io(struct text *given)
{
    (void)given;
    return shown("/proc/self/io");
}

static int mounts(struct text *given)
{
    (void)given;
    return shown("/proc/self/mountinfo");
}

static int pressure(struct text *given)
{
    (void)given;
    return shown(PRESSURE_PATH);
}

static int own_symbols(struct text *given)
{
    (void)given;
    return shown("/proc/kallsyms");
}

static int own_cgroup(struct text *given)
{
    (void)given;
    return shown("/sys/fs/cgroup/memory.max") == 0 || shown("/sys/fs/cgroup/memory/memory.limit_in_bytes") == 0
               ? 0
               : outcome_of(false);
}

/* Whether it may be written, and nothing is. */
static int settings(struct text *given)
{
    (void)given;
    return outcome_of(faccessat(AT_FDCWD, "/proc/sys/net/ipv4/ip_local_port_range", W_OK, AT_EACCESS) == 0);
}

/* Of the probe's own process, which ends. */
static int killed_first(struct text *given)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    (void)given;
    return outcome_of(fd >= 0 && write(fd, "1000", 4) == 4);
}

static int killed_last(struct text *given)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    (void)given;
    return outcome_of(fd >= 0 && write(fd, "-500", 4) == 4);
}

static int processors(struct text *given)
{
    text_number(given, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    return 0;
}

/* In steps of 64 MiB: a guest's kernel keeps some for itself, not always as much. */
static int memory(struct text *given)
{
    static char content[4096];
    read_text("/proc/meminfo", content, sizeof content);
    char *at = strstr(content, "MemTotal:");
    if (!at) {
        return outcome_of(false);
    }
    uint64_t mib = strtoull(at + strlen("MemTotal:"), NULL, 10) / 1024;
    text_add(given, "about ");
    text_number(given, (mib + 32) / 64 * 64);
    text_add(given, " MiB");
    return 0;
}

static const struct feature list[] = {
    {"kernel: counts its own time (perf)", perf},
    {"kernel: counts instructions (perf)", perf_hardware},
    {"kernel: BPF map", bpf},
    {"kernel: Landlock", landlock},
    {"kernel: random bytes", random_bytes},
    {"kernel: its log", kernel_log},
    {"kernel: host name may be set", name_set},
    {"clocks: may be set", clock_set},
    {"clocks: state is told", clock_read},
    {"clocks: resolution", clock_resolution},
    {"devices: null", device_null},
    {"devices: urandom", device_random},
    {"devices: a new terminal", device_terminal},
    {"devices: tun", device_tun},
    {"devices: fuse", device_fuse},
    {"devices: kvm", device_kvm},
    {"/proc: own maps", maps},
    {"/proc: own memory, summed", smaps},
    {"/proc: own input and output", own_io},
    {"/proc: own mounts", mounts},
    {"/proc: pressure", pressure},
    {"/proc: kernel's symbols", own_symbols},
    {"/proc: a setting may be written", settings},
    {"/proc: to be killed first", killed_first},
    {"/proc: to be killed last", killed_last},
    {"measure: its cgroup's limit", own_cgroup},
    {"measure: processors", processors},
    {"measure: memory", memory},
};

const struct features features_kernel = FEATURES(list);
