/* Pid 1 of the lab's VM guests: brings the guest up as far as the workload needs, runs it, and powers off after it.
 *
 * What to run is in /lab/config, the same for every launch: NUL-terminated words, alternately key and value, as
 * guest_config.py writes them. What differs between launches is on the kernel's command line:
 *
 *     lab.nonce=HEX                                  the launch's nonce
 *     lab.ip=10.0.2.15/24 lab.gw=10.0.2.2            address of the first Ethernet interface; absent: no network
 *     lab.peers=169.254.1.1/16 lab.peersmac=MAC      address of another interface, which has that MAC, and no gateway
 *     lab.vsock=any                                  the lab's own service also listens by vsock
 *     lab.hostname=NAME                              what the guest is called, instead of what /lab/config says
 *     lab.port=8080                                  where the lab's own service listens
 *     lab.root=/dev/vda lab.rootfstype=ext4          root file system; absent: the initramfs itself
 *     lab.off=reboot                                 end by a reset, where the machine has no way to power off
 *     lab.panic=HEX                                  the launch's nonce again: SIGUSR2 from root makes the kernel panic
 *
 * A line `lab-guest stop` on the console asks it to end: every machine has one, unlike a power button or a keyboard.
 * It writes `lab <nonce> init <CLOCK_MONOTONIC ns>` first, `lab <nonce> workload <ns>` once the network is up and a
 * workload that is not the lab's own is begun, `lab-guest error: ...` for what it cannot mend, and
 * `lab-guest exit <status>` when the workload has ended (128 + signal, as shells have it), with `lab-guest killed ...`
 * before that where it did not end by the stop signal in time.
 */
#include "guest/ending.h"
#include "guest/files.h"
#include "guest/mounts.h"
#include "guest/names.h"
#include "guest/network.h"
#include "guest/waiting.h"
#include "pid1/command_line.h"
#include "pid1/config.h"
#include "pid1/workload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef LAB_CONSOLE
#define LAB_CONSOLE "/dev/console"
#endif
#define STOP_GRACE_S 10
#define COMPRESSED_MODULE 4 /* MODULE_INIT_COMPRESSED_FILE, since Linux 5.17 */

static void open_console(void)
{
    int fd = open(LAB_CONSOLE, O_RDWR | O_NOCTTY);
    if (fd < 0) {
        return; /* whatever the kernel or the parent gave stays */
    }
    for (int i = 0; i < 3; i++) {
        if (fd != i) {
            dup2(fd, i);
        }
    }
    if (fd > 2) {
        close(fd);
    }
}

static void load_modules(void)
{
    static char list[16384];
    ssize_t length = read_file("/lab/modules", list, sizeof list - 1);
    if (length < 0) {
        return;
    }
    for (char *rest = list, *path; (path = strsep(&rest, "\n"));) {
        size_t size = strlen(path);
        if (size == 0) {
            continue;
        }
        int flags = size > 3 && strcmp(path + size - 3, ".ko") == 0 ? 0 : COMPRESSED_MODULE;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", flags) < 0 && errno != EEXIST)) {
            dprintf(STDOUT_FILENO, "lab-guest error: module %s: %s\n", path, strerror(errno));
        }
        if (fd >= 0) {
            close(fd);
        }
        unlink(path); /* the initramfs is the guest's memory */
    }
}

/* A descriptor whose input comes with SIGIO, or -1. */
static int watch_console(void)
{
    int fd = open("/dev/console", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 &&
        (fcntl(fd, F_SETOWN, getpid()) < 0 || fcntl(fd, F_SETFL, O_RDONLY | O_NONBLOCK | O_ASYNC) < 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool asked_to_stop(int console)
{
    char line[256];
    ssize_t got;
    bool asked = false;
    while ((got = read(console, line, sizeof line - 1)) > 0) { /* the terminal gives one line at a time */
        line[got] = '\0';
        asked = asked || strcmp(line, "lab-guest stop\n") == 0;
    }
    return asked;
}

/* Whether this launch's guest may be made to panic; no container and no host shows its nonce there. */
static bool may_panic(void)
{
    const char *nonce = option("lab.nonce"), *panic = option("lab.panic");
    return getpid() == 1 && nonce && nonce[0] && panic && strcmp(panic, nonce) == 0;
}

/* The kernel cannot do without pid 1: its end is a panic on every configuration. */
static void panic_kernel(void)
{
    dprintf(STDOUT_FILENO, "lab-guest panic %s\n", option("lab.nonce"));
    _exit(1);
}

/* Reaps whatever ends until the workload has, passing the request to stop on; returns its exit status. */
static int supervise(pid_t workload, const sigset_t *signals, int console, int stop_signal)
{
    uint64_t kill_at = 0;
    bool killed = false;
    for (;;) {
        int status;
        pid_t ended;
        while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
            if (ended == workload) {
                return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            }
        }
        struct timespec second = {.tv_sec = 1};
        siginfo_t told;
        int signal = kill_at ? sigtimedwait(signals, &told, &second) : sigwaitinfo(signals, &told);
        if (signal == SIGUSR2 && told.si_code == SI_USER && told.si_uid == 0 && may_panic()) {
            panic_kernel();
        }
        if (signal == SIGTERM || signal == SIGINT || (signal == SIGIO && asked_to_stop(console))) {
            if (!kill_at) { /* who asks again may not have been heard; a second signal would be another request */
                kill(workload, stop_signal);
                kill_at = monotonic_ns() + STOP_GRACE_S * UINT64_C(1000000000);
            }
        }
        if (kill_at && monotonic_ns() > kill_at) {
            if (!killed) {
                dprintf(STDOUT_FILENO, "lab-guest killed after %d s\n", STOP_GRACE_S);
                killed = true;
            }
            kill(workload, SIGKILL);
        }
    }
}

int main(void)
{
    uint64_t init_ns = monotonic_ns();
    static struct config config;
    sigset_t signals;

    /* Errors of these two cannot be told before there is a console, and show in what follows. */
    mkdir("/proc", 0555);
    mount("proc", "/proc", "proc", 0, NULL);
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    open_console();
    read_command_line();
    const char *nonce = option("lab.nonce");
    dprintf(STDOUT_FILENO, "lab %s init %llu\n", nonce ? nonce : "-", (unsigned long long)init_ns);
    const char *off = option("lab.off");
    end_by_reset(off && strcmp(off, "reboot") == 0);

    /* Blocked before the workload exists, so that none of its ends or of the host's requests is missed. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGIO);
    if (may_panic()) {
        sigaddset(&signals, SIGUSR2);
    }
    sigprocmask(SIG_BLOCK, &signals, NULL);
    reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del then comes as SIGINT; without a keyboard it does not matter */

    mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    link_devices();
    read_config(&config);
    load_modules();
    const char *address = option("lab.ip"), *gateway = option("lab.gw");
    const char *peers = option("lab.peers"), *peers_mac = option("lab.peersmac");
    bring_up_loopback();
    if (address) {
        bring_up_ethernet(address, gateway, peers_mac);
    }
    if (peers && peers_mac) {
        bring_up_second(peers, peers_mac);
    }
    const char *hostname = option("lab.hostname");
    config.hostname = hostname ? hostname : config.hostname;
    add_environment(&config, address != NULL);
    const char *root = option("lab.root"), *type = option("lab.rootfstype");
    if (root) {
        enter_root(root, type ? type : "ext4");
    }
    tell_names(config.hostname, address, config.resolv_conf);
    for (size_t i = 0; i < config.volumes; i++) {
        make_directories(config.volume[i], 0755);
    }
    mount_scratch(config.scratch);

    if (!config.service) { /* the lab's own says by itself when it listens */
        dprintf(STDOUT_FILENO, "lab %s workload %llu\n", nonce ? nonce : "-", (unsigned long long)monotonic_ns());
    }
    pid_t workload = fork();
    if (workload < 0) {
        die("fork: %s", strerror(errno));
    }
    if (workload == 0) {
        become_workload(&config);
    }
    int status = supervise(workload, &signals, watch_console(), config.stop_signal);
    dprintf(STDOUT_FILENO, "lab-guest exit %d\n", status);
    end_guest();
}
