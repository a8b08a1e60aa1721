/* The kernel's command line, on which is what differs between launches. */
#ifndef LAB_COMMAND_LINE_H
#define LAB_COMMAND_LINE_H

void read_command_line(void);
/* The value of `name=` on it, or NULL; good until fifteen more were asked for. */
const char *option(const char *name);

#endif
