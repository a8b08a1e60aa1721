/* What the guest runs: its environment, its directory, its user. */
#include "pid1/workload.h"

#include "guest/files.h"
#include "pid1/command_line.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void add_environment(struct config *config, bool network)
{
    static char words[5][300];
    const char *nonce = option("lab.nonce"), *port = option("lab.port"), *vsock = option("lab.vsock");
    if (config->told_hostname) {
        snprintf(words[3], sizeof words[3], "HOSTNAME=%s", config->hostname);
        config->env[config->envc++] = words[3];
    }
    if (!config->service) {
        return;
    }
    snprintf(words[0], sizeof words[0], "LAB_NONCE=%s", nonce ? nonce : "");
    snprintf(words[1], sizeof words[1], "LAB_PORT=%s", port ? port : "0");
    snprintf(words[2], sizeof words[2], "%s", network ? "LAB_HOST=0.0.0.0" : "LAB_NETWORK=none");
    for (size_t i = 0; i < 3; i++) {
        config->env[config->envc++] = words[i];
    }
    if (vsock) {
        snprintf(words[4], sizeof words[4], "LAB_VSOCK=%s", vsock);
        config->env[config->envc++] = words[4];
    }
}

/* As container engines find a program: by PATH, an empty part of which is the working directory, unless its name holds
 * a slash. Never by a shell, as execvp does with what is no program. Returns the errno that it fails with. */
static int become(char *const *argv)
{
    const char *rest = getenv("PATH");
    int problem = ENOENT;
    if (strchr(argv[0], '/')) {
        execv(argv[0], argv);
        return errno;
    }
    while (rest && *rest) {
        char path[4096];
        size_t length = strcspn(rest, ":");
        if (length + strlen(argv[0]) + 2 < sizeof path) {
            snprintf(path, sizeof path, "%.*s/%s", length ? (int)length : 1, length ? rest : ".", argv[0]);
            execv(path, argv);
            if (errno != ENOENT && errno != ENOTDIR) {
                problem = errno;
            }
            if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) {
                return problem;
            }
        }
        rest += length + (rest[length] == ':');
    }
    return problem;
}

void become_workload(struct config *config)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0) {
        dup2(nothing, STDIN_FILENO); /* the console's input is the host's way to ask for the end */
    }
    make_directories(config->cwd, 0755);
    if (chdir(config->cwd) < 0) {
        dprintf(STDOUT_FILENO, "lab-guest error: working directory %s: %s\n", config->cwd, strerror(errno));
        _exit(126);
    }
    if (config->uid != 0 && fchown(STDOUT_FILENO, config->uid, (gid_t)-1) < 0) {
        /* It can write all the same; only opening /dev/stdout anew would fail. */
        dprintf(STDOUT_FILENO, "lab-guest error: console's owner: %s\n", strerror(errno));
    }
    for (size_t i = 0; i < config->limits; i++) {
        if (setrlimit(config->limit[i].which, &config->limit[i].values) < 0) {
            dprintf(STDOUT_FILENO, "lab-guest error: limit %d: %s\n", config->limit[i].which, strerror(errno));
        }
    }
    if (setgroups(config->groups, config->group) < 0 || setgid(config->gid) < 0 || setuid(config->uid) < 0) {
        dprintf(STDOUT_FILENO, "lab-guest error: user: %s\n", strerror(errno));
        _exit(126);
    }
    clearenv();
    for (size_t i = 0; i < config->envc; i++) {
        putenv(config->env[i]);
    }
    int problem = become(config->argv);
    dprintf(STDOUT_FILENO, "lab-guest error: %s: %s\n", config->argv[0], strerror(problem));
    _exit(problem == ENOENT ? 127 : 126);
}
