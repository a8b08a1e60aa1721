/* How the guest ends, also where it cannot go on. */
#include "guest/ending.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <unistd.h>

static bool power_off_by_reset;

void end_by_reset(bool reset)
{
    power_off_by_reset = reset;
}

void end_guest(void)
{
    sync();
    /* Only the machine's own pid 1 may; in a container or a test the reboot ends the namespace instead. */
    reboot(power_off_by_reset ? RB_AUTOBOOT : RB_POWER_OFF);
    reboot(RB_AUTOBOOT);
    _exit(1);
}

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    dprintf(STDOUT_FILENO, "lab-guest error: ");
    vdprintf(STDOUT_FILENO, format, arguments);
    dprintf(STDOUT_FILENO, "\n");
    va_end(arguments);
    end_guest();
}
