/* What the service answers. Every endpoint but /healthz asks for the launch's nonce. */
#include "service/routes.h"

#include "compat/tries.h"
#include "endpoints/allocation.h"
#include "endpoints/facts.h"
#include "endpoints/job.h"
#include "endpoints/work.h"
#include "measure/fixed_work.h"
#include "measure/syscall_mix.h"
#include "server/children.h"
#include "surface/calls.h"
#include "surface/facts.h"
#include "talk/call.h"
#include "talk/chain.h"
#include "tasks/lifecycle.h"

#include <string.h>

/* Tells nothing of the nonce by its time but its length, which is no secret. */
static bool admitted(const struct launch *launch, const struct request *request)
{
    size_t length = strlen(launch->nonce);
    unsigned char difference = 0;
    if (length == 0 || request->nonce.length != length) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        difference |= (unsigned char)(launch->nonce[i] ^ request->nonce.at[i]);
    }
    return difference == 0;
}

static void answer_healthz(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    respond(slot, 200, NULL, "{\"status\":\"ok\"}");
}

static void answer(const struct launch *launch, int slot, const struct request *request)
{
    static const struct {
        const char *path, *method, *allow;
        void (*answer)(const struct launch *launch, int slot, const struct request *request);
        bool open;
    } endpoints[] = {{"/healthz", "GET", "Allow: GET\r\n", answer_healthz, true},
                     {"/clock", "GET", "Allow: GET\r\n", answer_clock, false},
                     {"/work", "GET", "Allow: GET\r\n", answer_work, false},
                     {"/job", "GET", "Allow: GET\r\n", answer_job, false},
                     {"/alloc", "POST", "Allow: POST\r\n", answer_alloc, false},
                     {"/facts", "GET", "Allow: GET\r\n", answer_facts, false},
                     {"/measure/syscall", "GET", "Allow: GET\r\n", answer_measure_syscall, false},
                     {"/measure/cpu", "GET", "Allow: GET\r\n", answer_measure_cpu, false},
                     {"/measure/switch", "GET", "Allow: GET\r\n", answer_measure_switch, false},
                     {"/measure/memory", "GET", "Allow: GET\r\n", answer_measure_memory, false},
                     {"/measure/fsync", "GET", "Allow: GET\r\n", answer_measure_fsync, false},
                     {"/surface/facts", "GET", "Allow: GET\r\n", answer_surface_facts, false},
                     {"/surface/calls", "GET", "Allow: GET\r\n", answer_surface_calls, false},
                     {"/compat", "GET", "Allow: GET\r\n", answer_compat, false},
                     {"/call", "GET", "Allow: GET\r\n", answer_call, false},
                     {"/payload", "POST", "Allow: POST\r\n", answer_payload, false},
                     {"/chain", "GET", "Allow: GET\r\n", answer_chain, false},
                     {"/chain/next", "POST", "Allow: POST\r\n", answer_chain_next, false},
                     {"/mix", "POST", "Allow: POST\r\n", answer_mix, false},
                     {"/task/start", "POST", "Allow: POST\r\n", answer_task_start, false},
                     {"/task", "GET", "Allow: GET\r\n", answer_task, false}};
    size_t count = sizeof endpoints / sizeof *endpoints, i = 0;
    while (i < count && !slice_is(request->path, endpoints[i].path)) {
        i++;
    }
    if (slice_is(request->method, "OPTIONS")) {
        /* No preflight ever succeeds: a web page of another origin cannot send the nonce's header. */
        respond(slot, 405, i < count ? endpoints[i].allow : "Allow: GET\r\n", "{\"error\":\"method\"}");
    } else if (i == count) {
        respond(slot, 404, NULL, "{\"error\":\"no such endpoint\"}");
    } else if (!slice_is(request->method, endpoints[i].method)) {
        respond(slot, 405, endpoints[i].allow, "{\"error\":\"method\"}");
    } else if (!endpoints[i].open && !admitted(launch, request)) {
        respond(slot, 403, NULL, "{\"error\":\"X-Lab-Nonce\"}");
    } else {
        endpoints[i].answer(launch, slot, request);
    }
}

static void child_reaped(int pid, int status)
{
    work_reaped(pid);
    task_reaped(pid, status);
}

const struct handlers routes = {.answer = answer,
                                .forget = allocation_forget,
                                .busy = allocation_running,
                                .step = allocation_step,
                                .child_ended = task_ended,
                                .child_reaped = child_reaped};
