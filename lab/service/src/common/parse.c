/* Parts of texts, and what they mean. */
#include "common/parse.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

bool slice_is(struct slice slice, const char *string)
{
    return strlen(string) == slice.length && memcmp(slice.at, string, slice.length) == 0;
}

bool slice_is_nocase(struct slice slice, const char *string)
{
    return strlen(string) == slice.length && strncasecmp(slice.at, string, slice.length) == 0;
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
