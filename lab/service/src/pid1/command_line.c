/* The kernel's command line, on which is what differs between launches. */
#include "pid1/command_line.h"

#include "guest/ending.h"
#include "guest/files.h"

#include <string.h>

#ifndef LAB_COMMAND_LINE
#define LAB_COMMAND_LINE "/proc/cmdline"
#endif

static char command_line[4096];

void read_command_line(void)
{
    read_file(LAB_COMMAND_LINE, command_line, sizeof command_line - 1);
}

const char *option(const char *name)
{
    static char values[16][256];
    static size_t used;
    size_t length = strlen(name);
    for (const char *at = command_line; *at;) {
        size_t word = strcspn(at, " \t\n");
        if (word > length && strncmp(at, name, length) == 0 && at[length] == '=') {
            char *value = values[used++ % 16];
            size_t size = word - length - 1;
            if (size >= sizeof values[0]) {
                die("%s is too long", name);
            }
            memcpy(value, at + length + 1, size);
            value[size] = '\0';
            return value;
        }
        at += word;
        at += strspn(at, " \t\n");
    }
    return NULL;
}
