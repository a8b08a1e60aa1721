/* What the guest is called, and whom it asks for other names. */
#ifndef LAB_NAMES_H
#define LAB_NAMES_H

/* The guest's own name, also in /etc/hosts (as `address`, a.b.c.d/bits, or without a network NULL) and /etc/hostname;
 * and /etc/resolv.conf of this text, unless NULL. */
void tell_names(const char *hostname, const char *address, const char *resolv_conf);

#endif
