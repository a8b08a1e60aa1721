/* Processes: making, tracing and ranking them, changing what they may do, and namespaces of their own. All ends with the
 * probe's process: what is mounted, in a namespace of mounts that nobody else is in. */
#include "compat/features.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEPTH 16
#define OTHER_USER 12345
#define KEYCTL_GET_KEYRING_ID 0
#define KEY_SPEC_THREAD_KEYRING (-1)

/* The exit status of a child that runs `run`: an errno, 0 or WRONG's byte. */
static int in_child(int (*run)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        int outcome = run();
        _exit(outcome == WRONG ? 255 : outcome);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return outcome_of(false);
    }
    return !WIFEXITED(status) || WEXITSTATUS(status) == 255 ? WRONG : WEXITSTATUS(status);
}

static int nested(int depth)
{
    int status;
    if (depth == 0) {
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        _exit(nested(depth - 1));
    }
    if (child < 0) {
        return errno;
    }
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int depth(struct text *given)
{
    int found = nested(DEPTH);
    (void)given;
    return found == 255 ? WRONG : found;
}

static int run_itself(void)
{
    execl("/proc/self/exe", "service", "nothing", NULL);
    return errno;
}

static int executed(struct text *given)
{
    (void)given;
    return in_child(run_itself);
}

static int traced(struct text *given)
{
    int status;
    (void)given;
    pid_t child = fork();
    if (child == 0) {
        for (;;) {
            pause();
        }
    }
    if (child < 0 || ptrace(PTRACE_SEIZE, child, 0, 0) != 0 || ptrace(PTRACE_INTERRUPT, child, 0, 0) != 0 ||
        waitpid(child, &status, 0) != child) {
        return outcome_of(false);
    }
    return WIFSTOPPED(status) ? 0 : WRONG;
}

static char word[] = "x";

static int read_of_another(struct text *given)
{
    char found = 0;
    struct iovec here = {&found, 1}, there = {word, 1};
    (void)given;
    pid_t child = fork();
    if (child == 0) {
        for (;;) {
            pause();
        }
    }
    if (child < 0 || process_vm_readv(child, &here, 1, &there, 1, 0) != 1) {
        return outcome_of(false);
    }
    return found == 'x' ? 0 : WRONG;
}

static int lowered(struct text *given)
{
    (void)given;
    return outcome_of(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 1) == 0);
}

static int raised(struct text *given)
{
    (void)given;
    errno = 0;
    return outcome_of(setpriority(PRIO_PROCESS, 0, -1) == 0);
}

static int real_time(struct text *given)
{
    struct sched_param least = {.sched_priority = 1};
    (void)given;
    return outcome_of(sched_setscheduler(0, SCHED_RR, &least) == 0);
}

static int held_to_one(struct text *given)
{
    cpu_set_t may, one, now;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof may, &may) != 0) {
        return outcome_of(false);
    }
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &may)) {
            CPU_SET(cpu, &one);
        }
    }
    text_add(given, "of ");
    text_number(given, (uint64_t)CPU_COUNT(&may));
    if (sched_setaffinity(0, sizeof one, &one) != 0 || sched_getaffinity(0, sizeof now, &now) != 0) {
        return outcome_of(false);
    }
    return CPU_EQUAL(&one, &now) ? 0 : WRONG;
}

static int limited(struct text *given)
{
    struct rlimit limit, now;
    (void)given;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return outcome_of(false);
    }
    limit.rlim_cur = 64;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || getrlimit(RLIMIT_NOFILE, &now) != 0) {
        return outcome_of(false);
    }
    return now.rlim_cur == 64 ? 0 : WRONG;
}

static int limit_raised(struct text *given)
{
    struct rlimit limit;
    (void)given;
    if (getrlimit(RLIMIT_MSGQUEUE, &limit) != 0) {
        return outcome_of(false);
    }
    limit.rlim_max = limit.rlim_max == RLIM_INFINITY ? RLIM_INFINITY : limit.rlim_max + 1;
    return outcome_of(setrlimit(RLIMIT_MSGQUEUE, &limit) == 0);
}

static int reaper(struct text *given)
{
    (void)given;
    return outcome_of(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
}

/* A filter that lets all pass. */
static int filtered(struct text *given)
{
    struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &pass};
    (void)given;
    return outcome_of(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static int another_user(struct text *given)
{
    (void)given;
    return outcome_of(setgroups(0, NULL) == 0 && setresgid(OTHER_USER, OTHER_USER, OTHER_USER) == 0 &&
                      setresuid(OTHER_USER, OTHER_USER, OTHER_USER) == 0);
}

static int rooted(struct text *given)
{
    (void)given;
    return outcome_of(chroot(".") == 0);
}

static int unshared(int kind)
{
    return outcome_of(unshare(kind) == 0);
}

static int unshared_user(struct text *given)
{
    (void)given;
    return unshared(CLONE_NEWUSER);
}

static int unshared_mounts(struct text *given)
{
    (void)given;
    return unshared(CLONE_NEWNS);
}

static int unshared_network(struct text *given)
{
    (void)given;
    return unshared(CLONE_NEWNET);
}

static int unshared_processes(struct text *given)
{
    (void)given;
    return unshared(CLONE_NEWPID);
}

/* A container in a user namespace of its own, as rootless tools make it. */
static int unshared_all(struct text *given)
{
    (void)given;
    return unshared(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);
}

static int entered(struct text *given)
{
    int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    (void)given;
    return outcome_of(fd >= 0 && setns(fd, CLONE_NEWNET) == 0);
}

/* Where nobody else sees it, nor it reaches anybody: private first, and only then mounted. */
static int mounted(struct text *given)
{
    (void)given;
    return outcome_of(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                      mount("lab", ".", "tmpfs", MS_NOSUID | MS_NODEV, "size=4096") == 0);
}

static int keyring(struct text *given)
{
    (void)given;
    return outcome_of(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 1) != -1);
}

static const struct feature list[] = {
    {"processes: forks, 16 deep", depth},
    {"processes: runs a program", executed},
    {"processes: traces its child", traced},
    {"processes: reads its child's memory", read_of_another},
    {"processes: lowers its priority", lowered},
    {"processes: raises its priority", raised},
    {"processes: real-time scheduling", real_time},
    {"processes: held to one CPU", held_to_one},
    {"processes: lowers a limit", limited},
    {"processes: raises a hard limit", limit_raised},
    {"processes: takes orphans", reaper},
    {"processes: filters its system calls", filtered},
    {"processes: becomes another user", another_user},
    {"processes: chroot", rooted},
    {"processes: keyring", keyring},
    {"namespaces: user", unshared_user},
    {"namespaces: mounts", unshared_mounts},
    {"namespaces: network", unshared_network},
    {"namespaces: processes", unshared_processes},
    {"namespaces: all, below a user's", unshared_all},
    {"namespaces: enters its own network's", entered},
    {"namespaces: mounts a tmpfs", mounted},
};

const struct features features_processes = FEATURES(list);
