/* Waiting for devices, a step at a time. */
#include "guest/waiting.h"

#include <time.h>

#define WAIT_STEP_NS 2000000L

void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
}

uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
