/* The connection loop, and the answers on its connections, each known by its slot. */
#ifndef LAB_CONNECTIONS_H
#define LAB_CONNECTIONS_H

#include "common/launch.h"

int serve(const struct launch *launch, int listener);
void respond(int slot, int status, const char *headers, const char *json);
/* Another process answers on this connection; forget it here. */
void hand_over(int slot);
/* In that process: close every descriptor of the server's but this connection's, which is returned. */
int take_over(int slot);

#endif
