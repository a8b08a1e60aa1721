/* The probes of GET /surface/facts, by group: each fills the JSON object that is begun. Numbers of errors are the
 * kernel's errno, 0 where what was tried was done. */
#ifndef LAB_PROBES_H
#define LAB_PROBES_H

#include "common/text.h"

struct probe {
    const char *name;
    void (*look)(struct text *json);
};

struct probes {
    const char *group;
    const struct probe *at;
    size_t count;
};

#define PROBES(name, list) {name, list, sizeof list / sizeof *list}

extern const struct probes surface_self;   /* probes_self.c: what it is, in its own /proc entries */
extern const struct probes surface_places; /* probes_places.c: devices and mounts */
extern const struct probes surface_paths;  /* probes_paths.c: what it may read and write of /proc and /sys */
extern const struct probes surface_kernel; /* probes_kernel.c: what it can learn of its kernel, and ask it to do */

#endif
