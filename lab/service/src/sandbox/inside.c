/* inside                            becomes the process that standard input describes
 * inside beside PID -- PROGRAM ...  runs PROGRAM as process PID runs: its environment, user, rights and directory
 * inside join PID -- PROGRAM ...    the same, after it has entered the namespaces and the root of PID
 *
 * What tools that start a program in namespaces do not do by Docker's rules, or do only by words that every user of the
 * host can read, or with a program of the image's: set its environment, user, groups, limits and directory. It is the
 * static program that they start, and it is gone when the service runs.
 *
 * The description is strings, each with a NUL behind it: uid, gid, the supplementary groups by comma, the directory,
 * how many limits there are, each as NUMBER:SOFT:HARD (in the kernel's numbers), how many variables, each as NAME=VALUE,
 * and the arguments. Standard input is /dev/null afterwards.
 *
 * Exit status: that of PROGRAM (128 and the signal's number where one ended it); 125 for a bad call or what it cannot
 * become or enter, 126 or 127 when PROGRAM cannot run, each with a line that begins with `inside: `.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_BYTES (4 << 20)
#define MOST_WORDS 65536
#define MOST_GROUPS 1024
#define PATH_OTHERWISE "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char bytes[MOST_BYTES + 1];
static char *words[MOST_WORDS + 1];

static _Noreturn void fail(int status, const char *what, const char *why)
{
    dprintf(STDERR_FILENO, "inside: %s: %s\n", what, why);
    _exit(status);
}

static _Noreturn void failed(const char *what)
{
    fail(125, what, strerror(errno));
}

/* The whole of it in `bytes`. */
static size_t read_all(int fd, const char *what)
{
    size_t length = 0;
    for (;;) {
        ssize_t got = read(fd, bytes + length, MOST_BYTES - length);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            failed(what);
        }
        if (got == 0) {
            break;
        }
        length += (size_t)got;
        if (length == MOST_BYTES) {
            fail(125, what, "too long");
        }
    }
    bytes[length] = '\0';
    return length;
}

/* Where each string of the `length` bytes begins, in `words`, with a NULL behind the last. */
static size_t split(size_t length)
{
    size_t count = 0;
    for (char *at = bytes; at < bytes + length; at += strlen(at) + 1) {
        if (count == MOST_WORDS) {
            fail(125, "description", "too many words");
        }
        words[count++] = at;
    }
    words[count] = NULL;
    return count;
}

static unsigned long long number(const char *text, const char *what)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    if (errno || !end || *end) {
        fail(125, what, "no number");
    }
    return value;
}

static void limit_to(const char *text)
{
    unsigned long long parts[3];
    char *end = NULL;
    for (size_t i = 0; i < 3; i++) {
        parts[i] = strtoull(text, &end, 10);
        if (end == text || *end != (i < 2 ? ':' : '\0')) {
            fail(125, text, "no limit");
        }
        text = end + 1;
    }
    struct rlimit limit = {.rlim_cur = parts[1], .rlim_max = parts[2]};
    if (setrlimit((int)parts[0], &limit) != 0) {
        failed("setrlimit");
    }
}

/* A user namespace of one user lets nobody set groups, nor another user, and needs neither. */
static void become(uid_t uid, gid_t gid, char *list)
{
    gid_t groups[MOST_GROUPS];
    size_t count = 0;
    for (char *save = NULL, *one = strtok_r(list, ", \t", &save); one; one = strtok_r(NULL, ", \t", &save)) {
        if (count == MOST_GROUPS) {
            fail(125, "groups", "too many");
        }
        groups[count++] = (gid_t)number(one, "group");
    }
    bool same = uid == geteuid() && gid == getegid();
    if (setgroups(count, groups) != 0 && !(same && errno == EPERM)) {
        failed("setgroups");
    }
    if (setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) {
        failed("setresuid");
    }
}

/* What the tool, or the lab's own caller, ignores or holds back would be so for the service as well. */
static void default_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* By the kernel's own call, as in cgroup/enter.c: a struct sigaction of zeros is SIG_DFL. */
    static const unsigned long by_default[4];
    for (int signal = 1; signal <= _NSIG - 1; signal++) {
        syscall(SYS_rt_sigaction, signal, by_default, NULL, _NSIG / 8);
    }
}

static _Noreturn void run(char **arguments, char **environment)
{
    for (char **one = environment; *one; one++) {
        if (strncmp(*one, "PATH=", 5) == 0) {
            putenv(*one); /* where execvpe looks */
        }
    }
    default_signals();
    umask(022);
    execvpe(arguments[0], arguments, environment);
    fail(errno == ENOENT ? 127 : 126, arguments[0], strerror(errno));
}

/* Tools close no descriptor of their own before the program that they start. */
static void close_rest(void)
{
    if (syscall(SYS_close_range, 3, ~0U, 0) != 0) {
        for (int fd = 3; fd < 1024; fd++) {
            close(fd);
        }
    }
}

static int as_described(void)
{
    size_t count = split(read_all(STDIN_FILENO, "description")), at = 4;
    if (count < 7) {
        fail(125, "description", "not whole");
    }
    size_t limits = number(words[at++], "limits");
    if (limits >= count - at) {
        fail(125, "description", "not whole");
    }
    for (size_t i = 0; i < limits; i++) {
        limit_to(words[at++]);
    }
    size_t variables = number(words[at++], "variables");
    if (variables >= count - at) {
        fail(125, "description", "not whole");
    }
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0) {
        failed("/dev/null");
    }
    close_rest();
    static char *environment[MOST_WORDS + 2];
    memcpy(environment, words + at, variables * sizeof *environment);
    if (getenv("container")) { /* by which programs learn what they run in */
        environment[variables] = getenv("container") - strlen("container=");
    }
    /* As root first, who may enter it; as the user it may be forbidden, and is then left as Docker leaves it. */
    if (chdir(words[3]) != 0) {
        failed(words[3]);
    }
    become((uid_t)number(words[0], "uid"), (gid_t)number(words[1], "gid"), words[2]);
    prctl(PR_SET_DUMPABLE, 1);
    run(words + at + variables, environment);
}

static int open_in(pid_t pid, const char *name, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) {
        failed(path);
    }
    return fd;
}

/* The value of a line of /proc/PID/status, in static memory. */
static char *status_of(const char *status, const char *name, char *into, size_t capacity)
{
    const char *at = strstr(status, name);
    if (!at) {
        fail(125, name, "not told");
    }
    at += strlen(name);
    size_t length = strcspn(at, "\n");
    if (length >= capacity) {
        fail(125, name, "too long");
    }
    memcpy(into, at, length);
    into[length] = '\0';
    return into;
}

/* The user's namespace first, in which the rights over the others are, and the mounts last, with /proc in them. */
static void enter_namespaces(pid_t pid)
{
    static const char *const kinds[] = {"ns/user", "ns/cgroup", "ns/ipc", "ns/uts", "ns/net", "ns/pid", "ns/mnt"};
    int fds[sizeof kinds / sizeof *kinds], root = open_in(pid, "root", O_PATH | O_DIRECTORY);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct stat theirs, own;
        fds[i] = open_in(pid, kinds[i], O_RDONLY);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/%s", kinds[i]);
        if (fstat(fds[i], &theirs) != 0 || stat(path, &own) != 0) {
            failed(kinds[i]);
        }
        if (theirs.st_ino == own.st_ino) {
            close(fds[i]);
            fds[i] = -1;
        }
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (fds[i] >= 0 && setns(fds[i], 0) != 0) {
            failed(kinds[i]);
        }
    }
    if (fchdir(root) != 0 || chroot(".") != 0) {
        failed("chroot");
    }
}

static void take_rights(const char *status)
{
    char text[64];
    uint64_t bounding = strtoull(status_of(status, "\nCapBnd:\t", text, sizeof text), NULL, 16);
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++) {
        if (!(bounding >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
            failed("capabilities");
        }
    }
}

/* Nobody gets more than the process has that it is to be like; run as root, programs get what is bounded. */
static void take_capabilities(const char *status)
{
    char text[64];
    uint64_t permitted = strtoull(status_of(status, "\nCapPrm:\t", text, sizeof text), NULL, 16);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, sets) != 0) {
        failed("capabilities");
    }
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        sets[i].permitted &= (uint32_t)(permitted >> (32 * i));
        sets[i].effective = sets[i].permitted;
        sets[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, sets) != 0) {
        failed("capabilities");
    }
    if (status_of(status, "\nNoNewPrivs:\t", text, sizeof text)[0] == '1') {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
}

static int as_another(pid_t pid, bool join, char **arguments)
{
    static char status[8192], groups[4096];
    char ids[128];
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever ends the tool, or the lab, means what it runs as well */
    int from = open_in(pid, "status", O_RDONLY);
    ssize_t length = read(from, status, sizeof status - 1);
    close(from);
    status[length > 0 ? length : 0] = '\0';
    size_t variables = split(read_all(open_in(pid, "environ", O_RDONLY), "environment"));
    static char *environment[MOST_WORDS + 1];
    memcpy(environment, words, (variables + 1) * sizeof *environment);
    int directory = open_in(pid, "cwd", O_PATH | O_DIRECTORY);
    if (join) {
        enter_namespaces(pid);
    }
    pid_t child = fork(); /* which is in the PID namespace, as this process is not */
    if (child < 0) {
        failed("fork");
    }
    if (child > 0) {
        int ended;
        while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
        }
        _exit(WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended));
    }
    if (fchdir(directory) != 0 && chdir("/") != 0) {
        failed("directory");
    }
    uid_t uid = (uid_t)strtoull(status_of(status, "\nUid:\t", ids, sizeof ids), NULL, 10);
    gid_t gid = (gid_t)strtoull(status_of(status, "\nGid:\t", ids, sizeof ids), NULL, 10);
    struct stat proc;
    if (join && stat("/proc/self/uid_map", &proc) == 0) {
        /* In a user namespace the numbers of outside are no numbers of inside: there the one user is uid 0. */
        int map = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
        char line[128];
        ssize_t got = map >= 0 ? read(map, line, sizeof line - 1) : 0;
        unsigned long long inner, outer, size;
        line[got > 0 ? got : 0] = '\0';
        if (sscanf(line, "%llu %llu %llu", &inner, &outer, &size) == 3 && size == 1) {
            uid = (uid_t)inner;
            gid = 0;
        }
    }
    take_rights(status);
    become(uid, gid, status_of(status, "\nGroups:\t", groups, sizeof groups));
    take_capabilities(status);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the change of user, which undoes it */
    prctl(PR_SET_DUMPABLE, 1);
    close_rest();
    run(arguments, environment);
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        return as_described();
    }
    bool join = strcmp(argv[1], "join") == 0;
    if (argc < 5 || (!join && strcmp(argv[1], "beside") != 0) || strcmp(argv[3], "--") != 0) {
        fail(125, "usage", "inside [join|beside PID -- PROGRAM ARGS...]");
    }
    return as_another((pid_t)number(argv[2], "pid"), join, argv + 4);
}
