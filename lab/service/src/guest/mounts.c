/* The guest's file systems: the kernel's, the scratch space, and a root other than the initramfs. */
#include "guest/mounts.h"

#include "guest/ending.h"
#include "guest/waiting.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICE_WAIT_S 15

void mount_at(const char *type, const char *at, unsigned long flags, const char *data)
{
    mkdir(at, 0755);
    if (mount(type, at, type, flags, data) < 0 && errno != EBUSY) {
        dprintf(STDOUT_FILENO, "lab-guest error: mount %s at %s: %s\n", type, at, strerror(errno));
    }
}

void link_devices(void)
{
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"}};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST) {
            dprintf(STDOUT_FILENO, "lab-guest error: link %s: %s\n", links[i][1], strerror(errno));
        }
    }
}

void enter_root(const char *device, const char *type)
{
    static const char *const moved[] = {"dev", "proc", "sys"};
    uint64_t deadline = monotonic_ns() + DEVICE_WAIT_S * UINT64_C(1000000000);
    while (access(device, F_OK) < 0) {
        if (monotonic_ns() > deadline) {
            die("the root device %s did not appear within %d s", device, DEVICE_WAIT_S);
        }
        pause_briefly();
    }
    mkdir("/newroot", 0755);
    if (mount(device, "/newroot", type, 0, NULL) < 0 &&
        ((errno != EROFS && errno != EACCES) || mount(device, "/newroot", type, MS_RDONLY, NULL) < 0)) {
        die("mount %s (%s): %s", device, type, strerror(errno));
    }
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        char from[16], to[32];
        snprintf(from, sizeof from, "/%s", moved[i]);
        snprintf(to, sizeof to, "/newroot/%s", moved[i]);
        mkdir(to, 0755);
        if (mount(from, to, NULL, MS_MOVE, NULL) < 0) {
            die("move %s into the root: %s", from, strerror(errno));
        }
    }
    if (chdir("/newroot") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0) {
        die("enter the root: %s", strerror(errno));
    }
}

void mount_scratch(const char *scratch)
{
    char data[64];
    mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5");
    mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"); /* as Docker has it */
    if (scratch) {
        snprintf(data, sizeof data, "mode=1777,size=%s", scratch);
        mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, data);
    }
}
