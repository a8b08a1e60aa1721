/* The probes of GET /surface/facts, by group: each fills the JSON object that is begun. Numbers of errors are the
 * kernel's errno, 0 where what was tried was done. */
#ifndef LAB_SURFACE_H
#define LAB_SURFACE_H

#include "common/service.h"

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

extern const struct probes surface_self;    /* surface_self.c: what it is, in its own /proc entries */
extern const struct probes surface_places;  /* surface_places.c: devices and mounts */
extern const struct probes surface_paths;   /* surface_paths.c: what it may read and write of /proc and /sys */
extern const struct probes surface_kernel;  /* surface_kernel.c: what it can learn of its kernel, and ask it to do */

#endif
