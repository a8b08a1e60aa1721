/* The open-loop schedule. */
#ifndef LAB_SCHEDULE_H
#define LAB_SCHEDULE_H

#include "client/plan.h"

/* Opens the early connections, sets the instant of the first request, and runs the plan from there on; false when the
 * kernel refuses what that takes. */
bool run_schedule(const struct plan *plan, struct record *records, uint64_t *start_ns);
uint64_t intended_ns(const struct plan *plan, uint64_t start_ns, uint64_t index);
void stop_schedule(int signal);

#endif
