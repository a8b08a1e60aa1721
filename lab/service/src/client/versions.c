/* The versions of the service that answers named, each told by a number. */
#include "client/versions.h"

#include <string.h>

#define MAX_VERSIONS 64
#define MAX_VERSION_BYTES 64

static char versions[MAX_VERSIONS][MAX_VERSION_BYTES + 1] = {"", "(others)"};
static size_t version_count = 2;

const char *version_name(uint8_t version)
{
    return versions[version];
}

uint8_t version_number(const char *at, size_t length)
{
    length = length > MAX_VERSION_BYTES ? MAX_VERSION_BYTES : length;
    for (size_t i = 0; i < version_count; i++) {
        if (strlen(versions[i]) == length && memcmp(versions[i], at, length) == 0) {
            return (uint8_t)i;
        }
    }
    if (version_count == MAX_VERSIONS) {
        return 1;
    }
    memcpy(versions[version_count], at, length);
    return (uint8_t)version_count++;
}
