/* The guest's interfaces. */
#ifndef LAB_NETWORK_H
#define LAB_NETWORK_H

void bring_up_loopback(void);
/* `address` is a.b.c.d/bits; `gateway` may be NULL. */
void bring_up_ethernet(const char *address, const char *gateway);

#endif
