/* enter CGROUP_PROCS... -- PROGRAM ARGS...
 *
 * Writes "0" (this process) to each cgroup.procs file, then becomes PROGRAM, so that a service is inside its cgroups
 * before its first instruction. Exit status 125 for a bad call or a cgroup that refuses, 127 when PROGRAM cannot run.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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

int main(int argc, char **argv, char **environment)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        int fd = open(argv[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1) {
            return fail(125, argv[i], strerror(errno));
        }
        close(fd);
    }
    if (i + 1 >= argc) {
        return fail(125, "usage", "enter CGROUP_PROCS... -- PROGRAM ARGS...");
    }
    execve(argv[i + 1], argv + i + 1, environment);
    return fail(127, argv[i + 1], strerror(errno));
}
