/* Giving up what a root process could do beyond any other, for good. */
#ifndef LAB_PRIVILEGES_H
#define LAB_PRIVILEGES_H

#include <stdbool.h>

/* This process, meant to be a child, becomes nobody without capabilities, also where it was not root, and still ends
 * with its parent; false when something is left that it could not give up. */
bool drop_privileges(void);

#endif
