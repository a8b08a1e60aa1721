/* Clocks, bounded text and parsing, without stdio and without the heap. */
#include "common/service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void text_bytes(struct text *text, const char *bytes, size_t length)
{
    if (text->full || length > text->capacity - text->length) {
        text->full = true;
        return;
    }
    memcpy(text->at + text->length, bytes, length);
    text->length += length;
}

void text_add(struct text *text, const char *string)
{
    text_bytes(text, string, strlen(string));
}

void text_number(struct text *text, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    text_bytes(text, digits + at, sizeof digits - at);
}

void text_json(struct text *text, const char *string)
{
    static const char hex[] = "0123456789abcdef";
    text_add(text, "\"");
    for (const unsigned char *c = (const unsigned char *)string; *c; c++) {
        if (*c == '"' || *c == '\\') {
            text_bytes(text, (char[]){'\\', (char)*c}, 2);
        } else if (*c < 0x20 || *c >= 0x7f) {
            /* Bytes beyond ASCII as Latin-1: always valid JSON, whatever the file held. */
            text_bytes(text, (char[]){'\\', 'u', '0', '0', hex[*c >> 4], hex[*c & 15]}, 6);
        } else {
            text_bytes(text, (const char *)c, 1);
        }
    }
    text_add(text, "\"");
}

bool parse_number(const char *string, size_t length, uint64_t max, uint64_t *number)
{
    uint64_t value = 0;
    if (length == 0 || length > 19) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (string[i] < '0' || string[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(string[i] - '0');
    }
    *number = value;
    return value <= max;
}

bool parse_address(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *length = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *length = sizeof *v6;
        return true;
    }
    return false;
}

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

bool slice_is(struct slice slice, const char *string)
{
    return strlen(string) == slice.length && memcmp(slice.at, string, slice.length) == 0;
}

bool slice_is_nocase(struct slice slice, const char *string)
{
    return strlen(string) == slice.length && strncasecmp(slice.at, string, slice.length) == 0;
}

void json_key(struct text *text, const char *name)
{
    if (text->length > 1) {
        text_add(text, ",");
    }
    text_json(text, name);
    text_add(text, ":");
}

void json_number(struct text *text, const char *name, uint64_t number)
{
    json_key(text, name);
    text_number(text, number);
}

void json_string(struct text *text, const char *name, const char *string)
{
    json_key(text, name);
    text_json(text, string);
}

const char *json_end(struct text *text)
{
    text_add(text, "}");
    text_bytes(text, "", 1);
    return text->full ? "{\"error\":\"the answer is too large\"}" : text->at;
}
