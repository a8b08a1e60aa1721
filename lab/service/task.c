#include "service.h"

void answer_task_start(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    respond(slot, 404, NULL, "{\"error\":\"no such endpoint\"}");
}

void answer_task(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    respond(slot, 404, NULL, "{\"error\":\"no such endpoint\"}");
}
