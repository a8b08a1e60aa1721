/* Reading and writing whole, by descriptor. */
#include "common/files.h"

#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void read_text(const char *path, char *into, size_t capacity)
{
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t got;
        while (length < capacity - 1 && (got = read(fd, into + length, capacity - 1 - length)) > 0) {
            length += (size_t)got;
        }
        close(fd);
    }
    while (length > 0 && into[length - 1] == '\n') {
        length--;
    }
    into[length] = '\0';
}

bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return false;
        }
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

void complain(const char *name, const char *problem)
{
    char line[512];
    struct text text = {line, 0, sizeof line - 1, false};
    text_add(&text, "service: ");
    text_add(&text, name);
    text_add(&text, ": ");
    text_add(&text, problem);
    line[text.length++] = '\n';
    /* With stderr closed there is nobody left to tell; the exit status still says it. */
    (void)!write(STDERR_FILENO, line, text.length);
}
