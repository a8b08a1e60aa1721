/* A name's IPv4 address: one question of DNS (RFC 1035) over UDP, without a cache and without a second try.
 *
 * The libc's own resolver is not used: a static binary's would load shared libraries, and its caches and retries would
 * be in the figure.
 */
#include "talk/resolve.h"

#include "common/clock.h"
#include "common/files.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define QUESTION_ID 0x1ab
#define HEADER 12
#define TYPE_A 1
#define CLASS_IN 1
#define TIMEOUT_S 2
#define PORT 53

/* The address of the first `nameserver` line. */
static bool nameserver(struct sockaddr_storage *address, socklen_t *length)
{
    static const char word[] = "nameserver";
    char content[2048], host[64];
    read_text("/etc/resolv.conf", content, sizeof content);
    for (const char *at = content; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
        if (strncmp(at, word, sizeof word - 1) != 0) {
            continue;
        }
        at += sizeof word - 1;
        at += strspn(at, " \t");
        size_t size = strcspn(at, " \t\r\n#");
        if (size > 0 && size < sizeof host) {
            memcpy(host, at, size);
            host[size] = '\0';
            if (parse_address(host, PORT, address, length)) {
                return true;
            }
        }
    }
    return false;
}

/* The question's bytes; 0 where `name` is none. */
static size_t question(const char *name, unsigned char *into, size_t capacity)
{
    size_t length = HEADER;
    memset(into, 0, HEADER);
    into[0] = QUESTION_ID >> 8;
    into[1] = QUESTION_ID & 0xff;
    into[2] = 1; /* recursion desired */
    into[5] = 1; /* one question */
    while (*name) {
        size_t label = strcspn(name, ".");
        if (label == 0 || label > 63 || length + label + 6 > capacity) {
            return 0;
        }
        into[length++] = (unsigned char)label;
        memcpy(into + length, name, label);
        length += label;
        name += label + (name[label] == '.');
    }
    into[length++] = 0;
    into[length++] = 0;
    into[length++] = TYPE_A;
    into[length++] = 0;
    into[length++] = CLASS_IN;
    return length;
}

/* Behind the name at `at`; 0 where it does not end within the message. */
static size_t behind_name(const unsigned char *message, size_t length, size_t at)
{
    while (at < length) {
        if ((message[at] & 0xc0) == 0xc0) { /* a pointer ends a name */
            return at + 2 <= length ? at + 2 : 0;
        }
        if (message[at] == 0) {
            return at + 1;
        }
        at += message[at] + 1u;
    }
    return 0;
}

static bool first_address(const unsigned char *message, size_t length, struct in_addr *found)
{
    if (length < HEADER || (message[3] & 0x0f) != 0 || !(message[2] & 0x80)) {
        return false;
    }
    unsigned answers = ((unsigned)message[6] << 8) | message[7];
    size_t at = behind_name(message, length, HEADER);
    at = at ? at + 4 : 0;
    for (unsigned i = 0; i < answers && at; i++) {
        at = behind_name(message, length, at);
        if (!at || at + 10 > length) {
            return false;
        }
        unsigned type = ((unsigned)message[at] << 8) | message[at + 1];
        size_t size = ((size_t)message[at + 8] << 8) | message[at + 9];
        at += 10;
        if (at + size > length) {
            return false;
        }
        if (type == TYPE_A && size == sizeof *found) {
            memcpy(found, message + at, sizeof *found);
            return true;
        }
        at += size;
    }
    return false;
}

const char *resolve(const char *name, struct in_addr *found, uint64_t *took_ns)
{
    unsigned char message[512];
    struct sockaddr_storage server;
    socklen_t server_length;
    struct timeval limit = {.tv_sec = TIMEOUT_S};
    size_t length = question(name, message, sizeof message);
    if (length == 0) {
        return "the name is none of DNS";
    }
    if (!nameserver(&server, &server_length)) {
        return "/etc/resolv.conf names no server by its address";
    }
    uint64_t begun_ns = clock_ns(CLOCK_MONOTONIC);
    int fd = socket(server.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        connect(fd, (struct sockaddr *)&server, server_length) < 0 ||
        send(fd, message, length, MSG_NOSIGNAL) != (ssize_t)length) {
        const char *problem = strerror(errno);
        if (fd >= 0) {
            close(fd);
        }
        return problem;
    }
    ssize_t got;
    do { /* a stray answer is somebody else's */
        got = recv(fd, message, sizeof message, 0);
    } while (got >= HEADER && (message[0] != QUESTION_ID >> 8 || message[1] != (QUESTION_ID & 0xff)));
    *took_ns = clock_ns(CLOCK_MONOTONIC) - begun_ns;
    close(fd);
    if (got < 0) {
        return "the resolver did not answer in time";
    }
    return first_address(message, (size_t)got, found) ? NULL : "the resolver knows no address of that name";
}
