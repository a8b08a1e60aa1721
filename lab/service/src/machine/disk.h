/* Files where a write has to reach a disk. */
#ifndef LAB_DISK_H
#define LAB_DISK_H

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_BYTES 4096

/* A file on a file system that is no memory, and where that is. */
struct on_disk {
    int fd;
    char path[64];
    const char *directory, *type;
    char unnamed[32];
};

/* A new file of this name where a file system that is no memory lets this user write; false where there is none. */
bool open_on_disk(const char *name, struct on_disk *made);
/* Appends `count` blocks, each brought to the disk before the next; false, with errno, when it cannot. */
bool append_blocks(int fd, uint64_t count);

#endif
