/* enter [cpus=LIST] CGROUP_PROCS... -- PROGRAM ARGS...
 *
 * Holds this process to the CPUs of LIST (numbers by comma), writes "0" (this process) to each cgroup.procs file, then
 * becomes PROGRAM, so that a service is held and inside its cgroups before its first instruction. Exit status 125 for a
 * bad call, CPUs that it cannot have or a cgroup that refuses, 127 when PROGRAM cannot run.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CPUS "cpus="
#define CPUS_MAX 8192

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
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        int fd = open(argv[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1) {
            return fail(125, argv[i], strerror(errno));
        }
        close(fd);
    }
    if (i + 1 >= argc) {
        return fail(125, "usage", "enter [cpus=LIST] CGROUP_PROCS... -- PROGRAM ARGS...");
    }
    execve(argv[i + 1], argv + i + 1, environment);
    return fail(127, argv[i + 1], strerror(errno));
}
