/* What a function is called with, and what it answers: a Function URL's request and response (payload format 2.0). */
#ifndef LAB_EVENT_H
#define LAB_EVENT_H

#include "common/text.h"
#include "function/exchange.h"

/* A Function URL's event, in the text that it was read from: quoted strings, and an object. */
struct event {
    struct slice method, path, query, body, headers;
    bool base64;
};

/* False where it is no JSON object with a path and a method. */
bool parse_event(const char *json, size_t length, struct event *event);
/* A header's value, of at most `capacity` bytes; its length, 0 where there is none or it does not fit. */
size_t event_header(const struct event *event, const char *name, char *into, size_t capacity);
/* The request as HTTP: its head into `head`, its body's bytes into `body`, which has room for the event. False where it
 * cannot be said so. */
bool event_request(const struct event *event, struct text *head, char *body, size_t *body_length);
/* The answer of the service as that of the function: `call` is how many calls this process has had. */
void event_response(struct text *json, const struct answer *answer, uint64_t call);

#endif
