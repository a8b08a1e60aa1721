/* A request that goes on through other instances, one behind the other, and comes back the same way.
 *
 *     POST /chain/next?host=A|name=N|vsock=CID|unix=U [&port=P] &nonce=..   whom this instance asks from now on
 *     GET /chain                                                  its next one's depth and one more; 1 without one
 *     GET /chain?within=D                                         the same D steps in this process: nobody is asked
 *
 * A step makes the request for the next one, has it read, and makes and reads the answer; within one process the same
 * is done but for the sockets. An instance asks the next one on a connection that it keeps, and waits for it meanwhile,
 * for at most a second: one request is under way at a time, as a chain's latency is to be seen and not its throughput.
 */
#include "talk/chain.h"

#include "common/json.h"
#include "common/text.h"
#include "http/request.h"
#include "http/response.h"
#include "server/connections.h"
#include "talk/peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define MAX_DEPTH 16
#define BYTES 1024

static struct {
    struct plan plan;
    char nonce[MAX_PEER_TEXT];
    bool known;
    int fd;
} next = {.fd = -1};

static void hang_up(void)
{
    if (next.fd >= 0) {
        close(next.fd);
        next.fd = -1;
    }
}

static bool connected(void)
{
    struct timeval limit = {.tv_sec = 1};
    int on = 1;
    if (next.fd >= 0) {
        return true;
    }
    next.fd = socket(next.plan.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (next.fd < 0) {
        return false;
    }
    setsockopt(next.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (setsockopt(next.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
        setsockopt(next.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
        connect(next.fd, (struct sockaddr *)&next.plan.address, next.plan.address_length) == 0) {
        return true;
    }
    hang_up();
    return false;
}

static size_t make_request(char *into, size_t capacity, const char *nonce)
{
    struct text text = {into, 0, capacity, false};
    text_add(&text, "GET /chain HTTP/1.1\r\nHost: peer\r\nX-Lab-Nonce: ");
    text_add(&text, nonce);
    text_add(&text, "\r\n\r\n");
    return text.full ? 0 : text.length;
}

/* The depth that a whole answer tells; 0 while it is not whole, or where it is none. */
static uint64_t depth_of(const char *answer, size_t length)
{
    static const char key[] = "{\"depth\":";
    size_t head = head_length(answer, length);
    uint64_t depth;
    if (head == 0 || length < head + sizeof key || memcmp(answer + 9, "200", 3) != 0 ||
        memcmp(answer + head, key, sizeof key - 1) != 0) {
        return 0;
    }
    const char *at = answer + head + sizeof key - 1, *end = memchr(at, '}', (size_t)(answer + length - at));
    return end && parse_number(at, (size_t)(end - at), MAX_DEPTH, &depth) ? depth : 0;
}

/* The next one's depth; 0 where it did not answer. */
static uint64_t ask_next(void)
{
    char bytes[BYTES];
    size_t length = make_request(bytes, sizeof bytes, next.nonce);
    if (!connected() || send(next.fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length) {
        return 0;
    }
    for (length = 0; length < sizeof bytes;) {
        ssize_t got = recv(next.fd, bytes + length, sizeof bytes - length, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return 0;
        }
        length += (size_t)got;
        uint64_t depth = depth_of(bytes, length);
        if (depth > 0 || memchr(bytes, '}', length)) {
            return depth;
        }
    }
    return 0;
}

static const char *depth_json(uint64_t depth)
{
    JSON_TEXT(json, 64);
    json_number(&json, "depth", depth);
    return json_end(&json);
}

/* `depth` steps within this process; 0 where one of them was not understood. */
static uint64_t ask_within(const struct launch *launch, uint64_t depth)
{
    char bytes[BYTES];
    struct request request;
    size_t length = make_request(bytes, sizeof bytes, launch->nonce);
    if (depth <= 1) {
        return depth;
    }
    if (head_length(bytes, length) != length || parse_request(bytes, length, &request) != 0) {
        return 0;
    }
    uint64_t below = ask_within(launch, depth - 1);
    length = format_response(launch, bytes, sizeof bytes, 200, true, NULL, depth_json(below));
    return depth_of(bytes, length) == below ? below + 1 : 0;
}

void answer_chain(const struct launch *launch, int slot, const struct request *request)
{
    uint64_t within, depth = 1;
    if (!read_number(request, "within", MAX_DEPTH, 0, &within)) {
        respond(slot, 400, NULL, "{\"error\":\"within is a number of at most 16\"}");
        return;
    }
    if (within > 0) {
        depth = ask_within(launch, within);
    } else if (next.known) {
        uint64_t below = ask_next();
        if (below == 0) { /* the one that it kept may have been closed meanwhile */
            hang_up();
            below = ask_next();
        }
        depth = below ? below + 1 : 0;
    }
    if (depth == 0) {
        hang_up();
        respond(slot, 503, NULL, "{\"error\":\"the next one does not answer\"}");
        return;
    }
    respond(slot, 200, NULL, depth_json(depth));
}

void answer_chain_next(const struct launch *launch, int slot, const struct request *request)
{
    static struct peer peer;
    uint64_t resolve_ns;
    (void)launch;
    const char *problem = read_peer(request, &peer);
    problem = problem ? problem : find_peer(&peer, &next.plan, &resolve_ns);
    if (problem) {
        JSON_TEXT(json, 256);
        json_string(&json, "error", problem);
        respond(slot, 400, NULL, json_end(&json));
        return;
    }
    memcpy(next.nonce, peer.nonce, sizeof next.nonce);
    next.known = true;
    hang_up();
    respond(slot, 200, NULL, "{\"status\":\"ok\"}");
}
