/* How the guest ends, also where it cannot go on. */
#ifndef LAB_ENDING_H
#define LAB_ENDING_H

#include <stdbool.h>

/* Whether the guest ends by a reset, as where the machine has no way to power off. */
void end_by_reset(bool reset);
void end_guest(void) __attribute__((noreturn));
/* Says what is wrong on the console and ends the guest. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
