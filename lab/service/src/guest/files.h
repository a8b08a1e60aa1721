/* Reading files whole. */
#ifndef LAB_GUEST_FILES_H
#define LAB_GUEST_FILES_H

#include <stddef.h>
#include <sys/types.h>

/* The bytes read, at most `capacity`, or -1. */
ssize_t read_file(const char *path, char *into, size_t capacity);

#endif
