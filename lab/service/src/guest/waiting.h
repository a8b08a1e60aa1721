/* Waiting for devices, a step at a time. */
#ifndef LAB_WAITING_H
#define LAB_WAITING_H

#include <stdint.h>

void pause_briefly(void);
uint64_t monotonic_ns(void);

#endif
