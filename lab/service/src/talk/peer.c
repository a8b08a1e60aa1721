/* Another instance of the service, as a query names it, and where it is. */
#include "talk/peer.h"

#include "common/parse.h"
#include "talk/resolve.h"

#include <stddef.h>
#include <string.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

bool read_number(const struct request *request, const char *name, uint64_t max, uint64_t otherwise, uint64_t *number)
{
    struct slice value;
    *number = otherwise;
    return !query_value(request, name, &value) || parse_number(value.at, value.length, max, number);
}

bool read_word(const struct request *request, const char *name, char *into, size_t capacity)
{
    struct slice value;
    into[0] = '\0';
    if (!query_value(request, name, &value)) {
        return true;
    }
    if (value.length >= capacity) {
        return false;
    }
    for (size_t i = 0; i < value.length; i++) { /* part of a request's head, in which nothing may end a line */
        if (value.at[i] <= ' ' || value.at[i] > '~') {
            return false;
        }
    }
    memcpy(into, value.at, value.length);
    into[value.length] = '\0';
    return true;
}

const char *read_peer(const struct request *request, struct peer *peer)
{
    if (!read_word(request, "host", peer->host, sizeof peer->host) ||
        !read_word(request, "name", peer->name, sizeof peer->name) ||
        !read_word(request, "unix", peer->unix_name, sizeof peer->unix_name) ||
        !read_word(request, "nonce", peer->nonce, sizeof peer->nonce)) {
        return "host, name, unix and nonce are at most 255 printable characters";
    }
    if (!read_number(request, "vsock", UINT32_MAX - 1, 0, &peer->vsock)) {
        return "vsock must be a CID";
    }
    if (!peer->host[0] + !peer->name[0] + !peer->unix_name[0] + !peer->vsock != 3) {
        return "one of host, name, unix and vsock";
    }
    if (!read_number(request, "port", 65535, 0, &peer->port) || (peer->port == 0 && !peer->unix_name[0])) {
        return "port must be a number from 1 to 65535";
    }
    return NULL;
}

const char *find_peer(const struct peer *peer, struct plan *plan, uint64_t *resolve_ns)
{
    struct sockaddr_un *local = (struct sockaddr_un *)&plan->address;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&plan->address;
    *resolve_ns = 0;
    memset(&plan->address, 0, sizeof plan->address);
    if (peer->unix_name[0]) {
        size_t length = strlen(peer->unix_name);
        if (length >= sizeof local->sun_path) {
            return "unix is too long a name";
        }
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path + 1, peer->unix_name, length); /* unix(7): abstract where the first byte is 0 */
        plan->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
        return NULL;
    }
    if (peer->host[0]) {
        return parse_address(peer->host, (uint16_t)peer->port, &plan->address, &plan->address_length)
                   ? NULL
                   : "host is no numeric IPv4 or IPv6 address";
    }
    if (peer->vsock) {
        struct sockaddr_vm *machine = (struct sockaddr_vm *)&plan->address;
        machine->svm_family = AF_VSOCK;
        machine->svm_cid = (unsigned)peer->vsock;
        machine->svm_port = (unsigned)peer->port;
        plan->address_length = sizeof *machine;
        return NULL;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)peer->port);
    plan->address_length = sizeof *v4;
    return resolve(peer->name, &v4->sin_addr, resolve_ns);
}
