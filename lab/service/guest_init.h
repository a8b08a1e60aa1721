/* What the parts of the guest's pid 1 share. */
#ifndef LAB_GUEST_INIT_H
#define LAB_GUEST_INIT_H

#include <stdint.h>

#ifndef LAB_COMMAND_LINE
#define LAB_COMMAND_LINE "/proc/cmdline"
#endif

/* Says what is wrong on the console and ends the guest. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void end_guest(void) __attribute__((noreturn));
void pause_briefly(void);
uint64_t monotonic_ns(void);

/* guest_network.c */
void bring_up_loopback(void);
/* `address` is a.b.c.d/bits; `gateway` may be NULL. */
void bring_up_ethernet(const char *address, const char *gateway);

#endif
