/* The guest's interfaces. */
#ifndef LAB_NETWORK_H
#define LAB_NETWORK_H

void bring_up_loopback(void);
/* The first Ethernet interface but the one of the MAC `other`; `address` is a.b.c.d/bits; `gateway` and `other` may be
 * NULL. */
void bring_up_ethernet(const char *address, const char *gateway, const char *other);
/* The one of that MAC, on a network without a gateway. */
void bring_up_second(const char *address, const char *mac);

#endif
