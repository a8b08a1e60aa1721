/* One request to the service that runs beside this process, for where nobody outside can send one:
 *
 *     service ask METHOD PATH [SECONDS]
 *
 * Address and nonce come from the environment that the service has too. The answer's body goes to stdout.
 *
 * Exit status: 0 for an answer of 2xx, 4 for another (named on stderr), 1 when there was no whole answer,
 * 2 for bad arguments, 3 when the limit (10 s unless given, at most 60) ended it.
 */
#include "client/ask.h"

#include "common/files.h"
#include "common/parse.h"
#include "common/text.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIMIT_S 10
#define MAX_LIMIT_S 60
#define MAX_PATH_LENGTH 1024

static void overdue(int signal)
{
    (void)signal;
    complain("ask", "no answer in time");
    _exit(3);
}

static bool printable(const char *string, size_t max)
{
    size_t length = 0;
    for (; string[length]; length++) {
        if (string[length] <= ' ' || string[length] > '~' || length >= max) {
            return false;
        }
    }
    return length > 0;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

/* A service that listens on every address listens on loopback too. */
static const char *host(void)
{
    const char *given = environment("LAB_HOST");
    if (!given[0] || strcmp(given, "0.0.0.0") == 0) {
        return "127.0.0.1";
    }
    return strcmp(given, "::") == 0 ? "::1" : given;
}

static bool send_request(int fd, const char *method, const char *path)
{
    char bytes[2048];
    struct text text = {bytes, 0, sizeof bytes, false};
    text_add(&text, method);
    text_add(&text, " ");
    text_add(&text, path);
    text_add(&text, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Lab-Nonce: ");
    text_add(&text, environment("LAB_NONCE"));
    text_add(&text, "\r\nContent-Length: 0\r\n\r\n");
    return !text.full && write_all(fd, bytes, text.length);
}

/* The answer's length, up to its end; 0 when there is none, or more than fits. */
static size_t receive(int fd, char *into, size_t capacity)
{
    size_t length = 0;
    while (length < capacity) {
        ssize_t got = read(fd, into + length, capacity - length);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? 0 : length;
        }
        length += (size_t)got;
    }
    return 0;
}

/* Where the body starts, by the head's own Content-Length; NULL when the answer is not whole. */
static const char *body_of(const char *answer, size_t length, size_t *body_length)
{
    static const char name[] = "\r\nContent-Length: ";
    const char *end = memmem(answer, length, "\r\n\r\n", 4);
    const char *at = end ? memmem(answer, (size_t)(end - answer) + 2, name, sizeof name - 1) : NULL;
    uint64_t told;
    if (!at) {
        return NULL;
    }
    at += sizeof name - 1;
    const char *line_end = memchr(at, '\r', (size_t)(end + 2 - at));
    *body_length = length - (size_t)(end + 4 - answer);
    return line_end && parse_number(at, (size_t)(line_end - at), SIZE_MAX / 2, &told) && told == *body_length ? end + 4
                                                                                                             : NULL;
}

int ask(int argc, char **argv)
{
    static char answer[131072];
    uint64_t port, limit_s = LIMIT_S;
    struct sockaddr_storage address;
    socklen_t address_length;
    const char *port_text = environment("LAB_PORT");
    if (argc < 4 || argc > 5 || !printable(argv[2], 16) || argv[3][0] != '/' || !printable(argv[3], MAX_PATH_LENGTH) ||
        (argc == 5 && (!parse_number(argv[4], strlen(argv[4]), MAX_LIMIT_S, &limit_s) || limit_s == 0))) {
        complain("ask", "needs METHOD, /PATH and at most 60 SECONDS");
        return 2;
    }
    if (!parse_number(port_text, strlen(port_text), 65535, &port) || port == 0 ||
        !parse_address(host(), (uint16_t)port, &address, &address_length)) {
        complain("ask", "LAB_HOST and LAB_PORT do not name where the service listens");
        return 2;
    }
    struct sigaction action = {.sa_handler = overdue};
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    alarm((unsigned)limit_s);

    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_length) < 0 ||
        !send_request(fd, argv[2], argv[3])) {
        complain("ask", strerror(errno));
        return 1;
    }
    size_t length = receive(fd, answer, sizeof answer), body_length = 0;
    const char *body = length >= 12 ? body_of(answer, length, &body_length) : NULL;
    if (!body) {
        complain("ask", "the answer is not whole");
        return 1;
    }
    if (!write_all(STDOUT_FILENO, body, body_length)) {
        return 1;
    }
    if (answer[9] == '2') {
        return 0;
    }
    char status[4] = {answer[9], answer[10], answer[11], '\0'};
    complain("status", status);
    return 4;
}
