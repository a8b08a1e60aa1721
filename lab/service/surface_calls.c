#include "service.h"

void answer_surface_calls(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    (void)request;
    respond(slot, 404, NULL, "{\"error\":\"no such endpoint\"}");
}
