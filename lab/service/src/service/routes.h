/* Which endpoint answers a request, whether the request is admitted to it, and who is told what the loop sees. */
#ifndef LAB_ROUTES_H
#define LAB_ROUTES_H

#include "server/connections.h"

extern const struct handlers routes;

#endif
