/* What the parts of the guest's pid 1 share. */
#ifndef LAB_GUEST_INIT_H
#define LAB_GUEST_INIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_WORDS 1024
#define MAX_GROUPS 64

#ifndef LAB_COMMAND_LINE
#define LAB_COMMAND_LINE "/proc/cmdline"
#endif
#ifndef LAB_CONSOLE
#define LAB_CONSOLE "/dev/console"
#endif

/* Says what is wrong on the console and ends the guest. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void end_guest(void) __attribute__((noreturn));
void pause_briefly(void);
uint64_t monotonic_ns(void);

/* guest_config.c: what to run */
struct config {
    char *argv[MAX_WORDS + 1], *env[MAX_WORDS + 8];
    size_t argc, envc, groups;
    gid_t group[MAX_GROUPS];
    uid_t uid;
    gid_t gid;
    const char *cwd, *hostname, *scratch;
    bool service;
};

/* The bytes read, at most `capacity`, or -1. */
ssize_t read_file(const char *path, char *into, size_t capacity);
void read_config(struct config *config);

/* guest_network.c */
void bring_up_loopback(void);
/* `address` is a.b.c.d/bits; `gateway` may be NULL. */
void bring_up_ethernet(const char *address, const char *gateway);

#endif
