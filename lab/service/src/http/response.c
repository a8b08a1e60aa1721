/* Responses of HTTP/1.1, whose body is JSON. */
#include "http/response.h"

#include "common/text.h"

#include <string.h>

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 202: return "Accepted";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "Internal Server Error";
    }
}

size_t format_response(const struct launch *launch, char *into, size_t capacity, int status, bool keep_alive,
                       const char *headers, const char *json)
{
    struct text text = {into, 0, capacity, false};
    text_add(&text, "HTTP/1.1 ");
    text_number(&text, (uint64_t)status);
    text_add(&text, " ");
    text_add(&text, reason(status));
    text_add(&text, "\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: ");
    text_number(&text, strlen(json));
    text_add(&text, keep_alive ? "\r\nConnection: keep-alive\r\n" : "\r\nConnection: close\r\n");
    if (launch->version[0]) {
        text_add(&text, "X-Lab-Version: ");
        text_add(&text, launch->version);
        text_add(&text, "\r\n");
    }
    if (headers) {
        text_add(&text, headers);
    }
    text_add(&text, "\r\n");
    text_add(&text, json);
    return text.full ? 0 : text.length;
}
