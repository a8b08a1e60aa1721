/* enter [cpus=LIST] [rlimit=NUMBER:SOFT:HARD]... CGROUP_PROCS... -- PROGRAM ARGS...
 *
 * Holds this process to the CPUs of LIST (numbers by comma) and to the limits (in the kernel's numbers), writes "0"
 * (this process) to each cgroup.procs file, gives every signal its default effect, then becomes PROGRAM, so that a
 * service is held and inside its cgroups before its first instruction, and finds nothing of the shell that started the
 * lab. Exit status 125 for a bad call, CPUs or a limit that it cannot have or a cgroup that refuses, 127 when PROGRAM
 * cannot run.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CPUS "cpus="
#define CPUS_MAX 8192
#define RLIMIT "rlimit="

static int fail(int status, const char *what, const char *why)
{
    const char *parts[] = {"enter: ", what, ": ", why, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0) {
            break; /* nobody listens; the status still says it */
        }
    }
    return status;
}

/* NULL, or why not. The kernel leaves out CPUs that it does not grant, so that they are read back. */
static const char *hold_to(const char *list)
{
    static cpu_set_t wanted[CPUS_MAX / CPU_SETSIZE], held[CPUS_MAX / CPU_SETSIZE];
    CPU_ZERO_S(sizeof wanted, wanted);
    for (const char *at = list; ; at++) {
        char *end;
        errno = 0;
        unsigned long cpu = strtoul(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || errno || cpu >= CPUS_MAX || (*end && *end != ',')) {
            return "no list of CPUs";
        }
        CPU_SET_S(cpu, sizeof wanted, wanted);
        at = end;
        if (!*at) {
            break;
        }
    }
    if (sched_setaffinity(0, sizeof wanted, wanted) || sched_getaffinity(0, sizeof held, held)) {
        return strerror(errno);
    }
    return CPU_EQUAL_S(sizeof wanted, wanted, held) ? NULL : "not all of these CPUs are granted";
}

/* NULL, or why not. */
static const char *limit_to(const char *text)
{
    unsigned long long parts[3];
    char *end = NULL;
    for (size_t i = 0; i < 3; i++) {
        errno = 0;
        parts[i] = strtoull(text, &end, 10);
        if (errno || end == text || *end != (i < 2 ? ':' : '\0')) {
            return "no limit";
        }
        text = end + 1;
    }
    struct rlimit limit = {.rlim_cur = parts[1], .rlim_max = parts[2]};
    return setrlimit((int)parts[0], &limit) == 0 ? NULL : strerror(errno);
}

/* What the lab's own caller ignores or holds back, as under nohup, would be so for the service as well. */
static void default_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* By the kernel's own call, since the C library keeps two signals to itself (signal(7)), which a caller that was
     * built with another may have left ignored. Its struct sigaction is all zero: SIG_DFL, no flags, an empty mask. */
    static const unsigned long by_default[4];
    for (int number = 1; number <= _NSIG - 1; number++) {
        syscall(SYS_rt_sigaction, number, by_default, NULL, _NSIG / 8); /* two cannot be had otherwise */
    }
}

int main(int argc, char **argv, char **environment)
{
    int i = 1;
    if (i < argc && strncmp(argv[i], CPUS, strlen(CPUS)) == 0) {
        const char *why = hold_to(argv[i] + strlen(CPUS));
        if (why) {
            return fail(125, argv[i], why);
        }
        i++;
    }
    for (; i < argc && strncmp(argv[i], RLIMIT, strlen(RLIMIT)) == 0; i++) {
        const char *why = limit_to(argv[i] + strlen(RLIMIT));
        if (why) {
            return fail(125, argv[i], why);
        }
    }
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        int fd = open(argv[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1) {
            return fail(125, argv[i], strerror(errno));
        }
        close(fd);
    }
    if (i + 1 >= argc) {
        return fail(125, "usage", "enter [cpus=LIST] [rlimit=NUMBER:SOFT:HARD]... CGROUP_PROCS... -- PROGRAM ARGS...");
    }
    default_signals();
    umask(022);
    execve(argv[i + 1], argv + i + 1, environment);
    return fail(127, argv[i + 1], strerror(errno));
}
