/* Reading files whole. */
#include "guest/files.h"

#include <fcntl.h>
#include <unistd.h>

ssize_t read_file(const char *path, char *into, size_t capacity)
{
    size_t length = 0;
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    while (length < capacity && (got = read(fd, into + length, capacity - length)) > 0) {
        length += (size_t)got;
    }
    close(fd);
    return got < 0 ? -1 : (ssize_t)length;
}
