/* What services do, each as a probe of GET /compat: tried in a process of its own, in a directory of its own, which is
 * gone afterwards. A probe changes nothing beyond these two, also as root with every capability on the host.
 *
 * A probe gives 0 where it works, an errno where it was refused, or WRONG where every call succeeded and what they did
 * is not what they say. It may tell what it was given, in a word that is the same on equal platforms. */
#ifndef LAB_FEATURES_H
#define LAB_FEATURES_H

#include "common/text.h"

#define WRONG (-1)

struct feature {
    const char *name; /* "group: feature" */
    int (*try)(struct text *given);
};

struct features {
    const struct feature *at;
    size_t count;
};

#define FEATURES(list) {list, sizeof list / sizeof *list}

extern const struct features features_sockets;   /* features_sockets.c */
extern const struct features features_files;     /* features_files.c */
extern const struct features features_events;    /* features_events.c: waiting, timers, asynchronous input and output */
extern const struct features features_memory;    /* features_memory.c */
extern const struct features features_processes; /* features_processes.c: processes, rights, namespaces */
extern const struct features features_kernel;    /* features_kernel.c: its kernel, its devices, its own measure */

/* errno where `done` is false, else 0. */
int outcome_of(bool done);

#endif
