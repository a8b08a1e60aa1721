/* The versions of the service that answers named, each told by a number. */
#ifndef LAB_VERSIONS_H
#define LAB_VERSIONS_H

#include <stddef.h>
#include <stdint.h>

/* 0 is no version, and 1 any beyond the first 62. */
const char *version_name(uint8_t version);
uint8_t version_number(const char *at, size_t length);

#endif
