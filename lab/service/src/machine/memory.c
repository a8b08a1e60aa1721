/* Memory that is copied, and whether there is any. */
#include "machine/memory.h"

#include <sys/sysinfo.h>

#define SPARE_BYTES (8 * MIB)

void copy_words(uint64_t *to, const uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i += 8) {
        uint64_t *into = to + i;
        const uint64_t *of = from + i;
        for (size_t word = 0; word < 8; word++) {
            into[word] = of[word];
        }
        __asm__ volatile("" : : : "memory"); /* else the compiler calls the library's memcpy */
    }
}

bool memory_is_free(uint64_t bytes)
{
    struct sysinfo system;
    return sysinfo(&system) == 0 &&
           (system.freeram + system.bufferram) * (uint64_t)system.mem_unit >= bytes + SPARE_BYTES;
}
