/* Files, read and written whole, and directories. */
#include "guest/files.h"

#include "guest/ending.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

void replace_file(const char *path, const char *text)
{
    size_t length = strlen(text);
    unlink(path); /* it need not be there */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length) {
        dprintf(STDOUT_FILENO, "lab-guest error: %s: %s\n", path, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

void make_directories(const char *path, mode_t mode)
{
    char part[4096];
    size_t length = strlen(path);
    if (length >= sizeof part) {
        die("the path %s is too long", path);
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            mkdir(part, mode);
        }
    }
}
