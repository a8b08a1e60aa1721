/* Memory that is copied, and whether there is any. */
#ifndef LAB_MEMORY_H
#define LAB_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIB ((uint64_t)1024 * 1024)

/* Copies by loads and stores of words, the same on any CPU; `words` is a multiple of 8. */
void copy_words(uint64_t *to, const uint64_t *from, size_t words);
/* Whether so many bytes are free: a guest's kernel kills for what it has not. */
bool memory_is_free(uint64_t bytes);

#endif
