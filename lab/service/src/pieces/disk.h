/* Pieces of work that measurements and tasks share. */
#ifndef LAB_PIECES_H
#define LAB_PIECES_H

#include "common/service.h"

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
/* Copies by loads and stores of words, the same on any CPU; `words` is a multiple of 8. */
void copy_words(uint64_t *to, const uint64_t *from, size_t words);
/* Whether so many bytes are free: a guest's kernel kills for what it has not. */
bool memory_is_free(uint64_t bytes);

#endif
