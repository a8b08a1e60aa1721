/* A Function URL's event read, and its response written. */
#include "function/event.h"

#include "common/json.h"
#include "function/base64.h"
#include "function/scan.h"

#include <string.h>
#include <strings.h>

#define MAX_VALUE 8192

static bool member(struct slice object, const char *wanted, struct slice *value)
{
    struct scan scan = {object.at, object.at + object.length};
    struct slice name;
    bool first = true, found = false;
    if (!scan_object(&scan)) {
        return false;
    }
    while (!found && scan_member(&scan, &first, &name) && scan_value(&scan, value)) {
        found = slice_is(name, wanted);
    }
    return found;
}

bool parse_event(const char *json, size_t length, struct event *event)
{
    struct scan scan = {json, json + length};
    struct slice name, value, http = {NULL, 0};
    bool first = true;
    *event = (struct event){.method = {NULL, 0}};
    if (!scan_object(&scan)) {
        return false;
    }
    while (scan_member(&scan, &first, &name)) {
        if (!scan_value(&scan, &value)) {
            return false;
        }
        if (slice_is(name, "rawPath")) {
            event->path = value;
        } else if (slice_is(name, "rawQueryString")) {
            event->query = value;
        } else if (slice_is(name, "headers")) {
            event->headers = value;
        } else if (slice_is(name, "body")) {
            event->body = value;
        } else if (slice_is(name, "isBase64Encoded")) {
            event->base64 = slice_is(value, "true");
        } else if (slice_is(name, "requestContext")) {
            http = value;
        }
    }
    return scan.at && event->path.at && http.at && member(http, "http", &http) &&
           member(http, "method", &event->method);
}

/* Walks the headers; false at their end. */
static bool next_header(struct scan *scan, bool *first, struct slice *name, struct slice *value)
{
    return scan_member(scan, first, name) && scan_value(scan, value);
}

size_t event_header(const struct event *event, const char *wanted, char *into, size_t capacity)
{
    struct scan scan = {event->headers.at, event->headers.at + event->headers.length};
    struct slice name, value;
    bool first = true;
    size_t length = 0;
    if (!event->headers.at || !scan_object(&scan)) {
        return 0;
    }
    while (next_header(&scan, &first, &name, &value)) {
        if (slice_is_nocase(name, wanted)) {
            return unquote(value, NULL, &length) && length <= capacity && unquote(value, into, &length) ? length : 0;
        }
    }
    return 0;
}

/* What the connection to the service says for itself (RFC 9110, 7.6.1). */
static bool hop_by_hop(struct slice name)
{
    static const char *const names[] = {"Connection",       "Keep-Alive", "Content-Length", "Transfer-Encoding",
                                        "Proxy-Connection", "TE",         "Trailer",        "Upgrade",
                                        "Expect"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (slice_is_nocase(name, names[i])) {
            return true;
        }
    }
    return false;
}

/* RFC 9110, 5.6.2. */
static bool is_token(struct slice name)
{
    for (size_t i = 0; i < name.length; i++) {
        unsigned char c = (unsigned char)name.at[i];
        bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (!letter && (c == 0 || !strchr("!#$%&'*+-.^_`|~", c))) {
            return false;
        }
    }
    return name.length > 0;
}

/* Nothing in it ends a line. */
static bool is_plain(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (((unsigned char)value[i] < ' ' && value[i] != '\t') || value[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* A path or a query; what a request's line cannot have is written by its number. */
static bool add_target(struct text *head, struct slice quoted, const char *also)
{
    static const char hex[] = "0123456789ABCDEF";
    char bytes[MAX_VALUE];
    size_t length;
    if (!unquote(quoted, NULL, &length) || length > sizeof bytes || !unquote(quoted, bytes, &length)) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c <= ' ' || c >= 0x7f || strchr(also, c)) {
            text_bytes(head, (char[]){'%', hex[c >> 4], hex[c & 15]}, 3);
        } else {
            text_bytes(head, (char *)&c, 1);
        }
    }
    return true;
}

bool event_request(const struct event *event, struct text *head, char *body, size_t *body_length)
{
    char value[MAX_VALUE];
    struct slice name, quoted;
    size_t length;
    bool first = true, host = false;
    if (!unquote(event->method, NULL, &length) || length > 16 || !unquote(event->method, value, &length) ||
        !is_token((struct slice){value, length})) {
        return false;
    }
    text_bytes(head, value, length);
    text_add(head, " ");
    if (!add_target(head, event->path, "?#")) {
        return false;
    }
    if (event->query.length > 2) {
        text_add(head, "?");
        if (!add_target(head, event->query, "#")) {
            return false;
        }
    }
    text_add(head, " HTTP/1.1\r\n");
    struct scan scan = {event->headers.at, event->headers.at + event->headers.length};
    if (event->headers.at && scan_object(&scan)) {
        while (next_header(&scan, &first, &name, &quoted)) {
            if (!is_token(name) || hop_by_hop(name)) {
                continue;
            }
            if (!unquote(quoted, NULL, &length) || length > sizeof value || !unquote(quoted, value, &length) ||
                !is_plain(value, length)) {
                return false;
            }
            host = host || slice_is_nocase(name, "Host");
            text_bytes(head, name.at, name.length);
            text_add(head, ": ");
            text_bytes(head, value, length);
            text_add(head, "\r\n");
        }
    }
    *body_length = 0;
    if (event->body.at && event->body.at[0] == '"' && !unquote(event->body, body, body_length)) {
        return false;
    }
    if (event->base64 && !from_base64(body, *body_length, body_length)) {
        return false;
    }
    text_add(head, host ? "Content-Length: " : "Host: function\r\nContent-Length: ");
    text_number(head, *body_length);
    text_add(head, "\r\n\r\n");
    return !head->full;
}

/* Text that JSON can say as it is; all else goes as base64, so that no byte is lost. */
static bool is_text(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if ((c < ' ' && c != '\n' && c != '\r' && c != '\t') || c >= 0x7f) {
            return false;
        }
    }
    return true;
}

static void add_quoted(struct text *json, const char *bytes, size_t length)
{
    size_t start = 0;
    text_add(json, "\"");
    for (size_t i = 0; i < length; i++) {
        const char *said = bytes[i] == '"'    ? "\\\""
                           : bytes[i] == '\\' ? "\\\\"
                           : bytes[i] == '\n' ? "\\n"
                           : bytes[i] == '\r' ? "\\r"
                           : bytes[i] == '\t' ? "\\t"
                                              : NULL;
        if (said) {
            text_bytes(json, bytes + start, i - start);
            text_add(json, said);
            start = i + 1;
        }
    }
    text_bytes(json, bytes + start, length - start);
    text_add(json, "\"");
}

void event_response(struct text *json, const struct answer *answer, uint64_t call)
{
    const char *end = answer->head.at + answer->head.length, *at = memchr(answer->head.at, '\n', answer->head.length);
    struct slice name, value;
    bool text = is_text(answer->body, answer->body_length);
    text_add(json, "{");
    json_number(json, "statusCode", (uint64_t)answer->status);
    json_key(json, "headers");
    text_add(json, "{\"x-lab-call\":\"");
    text_number(json, call);
    text_add(json, "\"");
    for (at = at ? at + 1 : end; header_line(&at, end, &name, &value);) {
        if (is_token(name) && !hop_by_hop(name) && is_text(value.at, value.length)) {
            text_add(json, ",");
            add_quoted(json, name.at, name.length);
            text_add(json, ":");
            add_quoted(json, value.at, value.length);
        }
    }
    text_add(json, "}");
    json_key(json, "isBase64Encoded");
    text_add(json, text ? "false" : "true");
    json_key(json, "body");
    if (text) {
        add_quoted(json, answer->body, answer->body_length);
    } else {
        text_add(json, "\"");
        text_base64(json, answer->body, answer->body_length);
        text_add(json, "\"");
    }
    text_add(json, "}");
}
