/* What the service does in children of its own, bounded in number and in time. */
#include "server/children.h"

#include "common/files.h"
#include "common/json.h"
#include "http/response.h"
#include "server/connections.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_WORKERS 16
#define DEADLINE_S 20 /* beyond the longest work, where nothing holds it up */

static pid_t workers[MAX_WORKERS];

void work_apart(const struct launch *launch, int slot, work_body *body, uint64_t argument)
{
    work_apart_within(launch, slot, body, argument, DEADLINE_S);
}

void work_apart_within(const struct launch *launch, int slot, work_body *body, uint64_t argument, unsigned seconds)
{
    JSON_TEXT(json, 61440); /* only the child's own copy of these two ever becomes resident */
    static char response[63488];
    size_t worker = 0;
    while (worker < MAX_WORKERS && workers[worker] != 0) {
        worker++;
    }
    if (worker == MAX_WORKERS) {
        respond(slot, 503, NULL, "{\"error\":\"too much work at once\"}");
        return;
    }
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0) {
        respond(slot, 503, NULL, "{\"error\":\"no process can be made\"}");
        return;
    }
    if (child == 0) {
        /* Nobody's work outlives the service, also when it died before this line. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(0);
        }
        alarm(seconds);
        int fd = take_over(slot);
        int status = body(&json, argument);
        size_t length = format_response(launch, response, sizeof response, status, false, NULL, json_end(&json));
        /* The client that went away, or reads too slowly for the deadline, gets no answer. */
        signal(SIGPIPE, SIG_IGN);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        write_all(fd, response, length);
        _exit(0);
    }
    workers[worker] = child;
    hand_over(slot);
}

size_t work_running(void)
{
    size_t running = 0;
    for (size_t i = 0; i < MAX_WORKERS; i++) {
        running += workers[i] != 0;
    }
    return running;
}

void work_reaped(int pid)
{
    for (size_t i = 0; i < MAX_WORKERS; i++) {
        if (workers[i] == pid) {
            workers[i] = 0;
        }
    }
}
