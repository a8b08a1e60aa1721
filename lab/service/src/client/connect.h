/* The client's connections before they are used. */
#ifndef LAB_CONNECT_H
#define LAB_CONNECT_H

#include "client/plan.h"

/* A socket for one connection; -1 when there is none to have. */
int new_socket(const struct plan *plan);
/* One that is connected already; -1 where that takes 100 ms or longer, or goes beyond `until_ns`. */
int connected_socket(const struct plan *plan, uint64_t until_ns);

#endif
