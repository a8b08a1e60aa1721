/* What the parts of the service share: clocks, bounded text, parsing. No heap, no stdio: a started service stays in
 * a few pages. */
#ifndef LAB_SERVICE_H
#define LAB_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* The launch, as its environment tells it, and the instants that the service itself has seen. */
struct launch {
    const char *nonce;   /* empty: every endpoint but /healthz refuses */
    const char *version; /* empty: no X-Lab-Version header */
    uint64_t main_ns, main_boottime_ns;
    uint64_t listening_ns, listening_boottime_ns;
};

/* A bounded text; `full` once something did not fit, and from then on nothing is added. */
struct text {
    char *at;
    size_t length, capacity;
    bool full;
};

uint64_t clock_ns(clockid_t clock);
void text_add(struct text *text, const char *string);
void text_bytes(struct text *text, const char *bytes, size_t length);
void text_number(struct text *text, uint64_t number);
void text_json(struct text *text, const char *string); /* quoted and escaped */
/* One more member of the object that `text` holds, begun by JSON_TEXT; json_end gives the whole of it. */
void json_key(struct text *text, const char *name);
void json_number(struct text *text, const char *name, uint64_t number);
void json_string(struct text *text, const char *name, const char *string);
const char *json_end(struct text *text);
#define JSON_TEXT(name, capacity)                                                                                      \
    static char name##_bytes[capacity];                                                                                \
    struct text name = {name##_bytes, 0, capacity, false};                                                             \
    text_add(&name, "{")
/* A decimal number of at most `max`, the whole of `string`. */
bool parse_number(const char *string, size_t length, uint64_t max, uint64_t *number);
/* A numeric IPv4 or IPv6 address: no name is ever looked up. */
bool parse_address(const char *host, uint16_t port, struct sockaddr_storage *address, socklen_t *length);
/* A small file's text without its last newline; empty when it cannot be read. */
void read_text(const char *path, char *into, size_t capacity);
bool write_all(int fd, const char *bytes, size_t length);
/* One line to stderr, `name: problem`. */
void complain(const char *name, const char *problem);

/* A request as the parser hands it on; none of the strings is NUL-terminated. */
struct slice {
    const char *at;
    size_t length;
};
bool slice_is(struct slice slice, const char *string);
bool slice_is_nocase(struct slice slice, const char *string);

struct request {
    struct slice method, path, query, nonce;
    bool has_query, keep_alive;
    uint64_t content_length;
};

/* http.c */
/* The length of a request's head, its empty line included; 0 while it is incomplete. */
size_t head_length(const char *bytes, size_t length);
/* 0, or the status with which to refuse what cannot be served. */
int parse_request(const char *head, size_t length, struct request *request);
/* The value of `name` in a query of `name=value` pairs joined by '&'; false when it is not there. */
bool query_value(const struct request *request, const char *name, struct slice *value);
/* Whether the query is exactly `name=N`, N being at most `max`. */
bool query_number(const struct request *request, const char *name, uint64_t max, uint64_t *number);
/* A whole response; 0 when it does not fit. `headers` are extra lines, each ending in CRLF, or NULL. */
size_t format_response(const struct launch *launch, char *into, size_t capacity, int status, bool keep_alive,
                       const char *headers, const char *json);

/* server.c */
int serve(const struct launch *launch, int listener);
void respond(int slot, int status, const char *headers, const char *json);
/* Another process answers on this connection; forget it here. */
void hand_over(int slot);
/* In that process: close every descriptor of the server's but this connection's, which is returned. */
int take_over(int slot);

/* endpoints.c */
void answer(const struct launch *launch, int slot, const struct request *request);
bool allocation_running(void);
void allocation_step(void);       /* touches a bounded piece, so that others are served in between */
void allocation_forget(int slot); /* the one who asked is gone */

/* work.c */
/* What a child does: fills the answer's JSON, begun, and gives its status. */
typedef int work_body(struct text *json, uint64_t argument);
/* Run `body` in a child that answers on this connection, ends with the service, and is killed at its deadline: a
 * piece of work in the loop would stall every other connection. */
void work_apart(const struct launch *launch, int slot, work_body *body, uint64_t argument);
void work_apart_within(const struct launch *launch, int slot, work_body *body, uint64_t argument, unsigned seconds);
void work_reaped(int pid);
void answer_work(const struct launch *launch, int slot, const struct request *request);

/* privileges.c */
/* This process, meant to be a child, becomes nobody without capabilities, also where it was not root, and still ends
 * with its parent; false when something is left that it could not give up. */
bool drop_privileges(void);

/* measure.c */
void answer_measure_syscall(const struct launch *launch, int slot, const struct request *request);
void answer_measure_cpu(const struct launch *launch, int slot, const struct request *request);
void answer_measure_switch(const struct launch *launch, int slot, const struct request *request);
void answer_measure_memory(const struct launch *launch, int slot, const struct request *request);
void answer_measure_fsync(const struct launch *launch, int slot, const struct request *request);

/* surface.c, surface_calls.c, mix.c, task.c */
void answer_surface_facts(const struct launch *launch, int slot, const struct request *request);
void answer_surface_calls(const struct launch *launch, int slot, const struct request *request);
void answer_mix(const struct launch *launch, int slot, const struct request *request);
void answer_task_start(const struct launch *launch, int slot, const struct request *request);
void answer_task(const struct launch *launch, int slot, const struct request *request);
void task_ended(int pid); /* not yet waited for */
void task_reaped(int pid, int status);

/* client.c */
int client(int argc, char **argv);

/* ask.c */
int ask(int argc, char **argv);

#endif
