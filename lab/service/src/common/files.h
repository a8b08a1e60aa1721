/* Reading and writing whole, by descriptor. */
#ifndef LAB_FILES_H
#define LAB_FILES_H

#include <stdbool.h>
#include <stddef.h>

/* A small file's text without its last newline; empty when it cannot be read. */
void read_text(const char *path, char *into, size_t capacity);
bool write_all(int fd, const char *bytes, size_t length);
/* One line to stderr, `name: problem`. */
void complain(const char *name, const char *problem);

#endif
