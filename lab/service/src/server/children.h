/* What the service does in children of its own, bounded in number and in time. */
#ifndef LAB_CHILDREN_H
#define LAB_CHILDREN_H

#include "common/launch.h"
#include "common/text.h"

/* What a child does: fills the answer's JSON, begun, and gives its status. */
typedef int work_body(struct text *json, uint64_t argument);
/* Run `body` in a child that answers on this connection, ends with the service, and is killed at its deadline: a
 * piece of work in the loop would stall every other connection. */
void work_apart(const struct launch *launch, int slot, work_body *body, uint64_t argument);
void work_apart_within(const struct launch *launch, int slot, work_body *body, uint64_t argument, unsigned seconds);
/* How many of them there are. */
size_t work_running(void);
void work_reaped(int pid);

#endif
