/* Heads of HTTP/1.1, and requests: strict where leniency would let two readers see two requests. */
#include "http/request.h"

#include <string.h>

size_t head_length(const char *bytes, size_t length)
{
    for (size_t i = 1; i < length; i++) {
        if (bytes[i] != '\n') {
            continue;
        }
        if (bytes[i - 1] == '\n' || (i >= 2 && bytes[i - 1] == '\r' && bytes[i - 2] == '\n')) {
            return i + 1;
        }
    }
    return 0;
}

static struct slice trimmed(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    while (end > at && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    return (struct slice){at, (size_t)(end - at)};
}

/* The line that starts at *at, without its end; *at moves behind it. */
static struct slice next_line(const char **at, const char *end)
{
    const char *start = *at;
    const char *newline = memchr(start, '\n', (size_t)(end - start));
    const char *stop = newline ? newline : end;
    *at = newline ? newline + 1 : end;
    if (stop > start && stop[-1] == '\r') {
        stop--;
    }
    return (struct slice){start, (size_t)(stop - start)};
}

static int parse_request_line(struct slice line, struct request *request)
{
    const char *end = line.at + line.length;
    const char *space = memchr(line.at, ' ', line.length);
    if (!space || space == line.at) {
        return 400;
    }
    request->method = (struct slice){line.at, (size_t)(space - line.at)};
    const char *target = space + 1;
    space = memchr(target, ' ', (size_t)(end - target));
    if (!space) {
        return 400;
    }
    struct slice version = {space + 1, (size_t)(end - space - 1)};
    if (slice_is(version, "HTTP/1.1")) {
        request->keep_alive = true;
    } else if (!slice_is(version, "HTTP/1.0")) {
        return version.length == 8 && memcmp(version.at, "HTTP/", 5) == 0 ? 505 : 400;
    }
    if (target == space || (*target != '/' && !slice_is(request->method, "OPTIONS"))) {
        return 400;
    }
    const char *mark = memchr(target, '?', (size_t)(space - target));
    request->path = (struct slice){target, (size_t)((mark ? mark : space) - target)};
    request->has_query = mark != NULL;
    request->query = mark ? (struct slice){mark + 1, (size_t)(space - mark - 1)} : (struct slice){space, 0};
    return 0;
}

static int parse_header(struct slice line, struct request *request, int *lengths, int *hosts, int *nonces)
{
    const char *colon = memchr(line.at, ':', line.length);
    /* A space before the colon, or a continued line, is how smuggled headers look. */
    if (!colon || colon == line.at || colon[-1] == ' ' || colon[-1] == '\t' || *line.at == ' ' || *line.at == '\t') {
        return 400;
    }
    struct slice name = {line.at, (size_t)(colon - line.at)};
    struct slice value = trimmed(colon + 1, line.at + line.length);
    if (slice_is_nocase(name, "Content-Length")) {
        if (++*lengths > 1) {
            return 400;
        }
        bool digits = value.length > 0;
        for (size_t i = 0; i < value.length; i++) {
            digits = digits && value.at[i] >= '0' && value.at[i] <= '9';
        }
        if (!digits) {
            return 400;
        }
        if (!parse_number(value.at, value.length, UINT64_MAX, &request->content_length)) {
            return 413;
        }
    } else if (slice_is_nocase(name, "Transfer-Encoding")) {
        return 411;
    } else if (slice_is_nocase(name, "Connection")) {
        if (slice_is_nocase(value, "close")) {
            request->keep_alive = false;
        }
    } else if (slice_is_nocase(name, "Host")) {
        ++*hosts;
    } else if (slice_is_nocase(name, "X-Lab-Nonce")) {
        if (++*nonces > 1) {
            return 400;
        }
        request->nonce = value;
    }
    return 0;
}

int parse_request(const char *head, size_t length, struct request *request)
{
    const char *at = head, *end = head + length;
    int lengths = 0, hosts = 0, nonces = 0;
    *request = (struct request){.nonce = {head, 0}};
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)head[i];
        if ((c < ' ' && c != '\r' && c != '\n' && c != '\t') || c == 0x7f) {
            return 400;
        }
    }
    int status = parse_request_line(next_line(&at, end), request);
    bool needs_host = request->keep_alive;
    while (status == 0 && at < end) {
        struct slice line = next_line(&at, end);
        if (line.length > 0) {
            status = parse_header(line, request, &lengths, &hosts, &nonces);
        }
    }
    if (status == 0 && (hosts > 1 || (needs_host && hosts != 1))) {
        return 400;
    }
    return status;
}

bool query_value(const struct request *request, const char *name, struct slice *value)
{
    size_t length = strlen(name);
    const char *at = request->query.at, *end = at + request->query.length;
    while (at < end) {
        const char *rest = memchr(at, '&', (size_t)(end - at));
        const char *stop = rest ? rest : end;
        if ((size_t)(stop - at) > length && memcmp(at, name, length) == 0 && at[length] == '=') {
            *value = (struct slice){at + length + 1, (size_t)(stop - at) - length - 1};
            return true;
        }
        at = rest ? rest + 1 : end;
    }
    return false;
}

bool query_number(const struct request *request, const char *name, uint64_t max, uint64_t *number)
{
    size_t length = strlen(name);
    return request->query.length > length + 1 && memcmp(request->query.at, name, length) == 0 &&
           request->query.at[length] == '=' &&
           parse_number(request->query.at + length + 1, request->query.length - length - 1, max, number);
}
