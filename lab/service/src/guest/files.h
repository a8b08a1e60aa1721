/* Files, read and written whole, and directories. */
#ifndef LAB_GUEST_FILES_H
#define LAB_GUEST_FILES_H

#include <stddef.h>
#include <sys/types.h>

/* The bytes read, at most `capacity`, or -1. */
ssize_t read_file(const char *path, char *into, size_t capacity);
/* A file of this text in place of whatever has the name, a link among them; or says why not. */
void replace_file(const char *path, const char *text);
/* The directory with all above it, as far as they are missing; what needs it says when it is not there. */
void make_directories(const char *path, mode_t mode);

#endif
