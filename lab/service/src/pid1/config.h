/* What to run, as /lab/config tells it. */
#ifndef LAB_CONFIG_H
#define LAB_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

#define MAX_WORDS 1024
#define MAX_GROUPS 64
#define MAX_VOLUMES 64
#define MAX_LIMITS 16

struct config {
    char *argv[MAX_WORDS + 1], *env[MAX_WORDS + 8];
    size_t argc, envc, groups;
    gid_t group[MAX_GROUPS];
    uid_t uid;
    gid_t gid;
    const char *volume[MAX_VOLUMES];
    size_t volumes;
    struct {
        int which;
        struct rlimit values;
    } limit[MAX_LIMITS];
    size_t limits;
    int stop_signal;
    const char *cwd, *hostname, *scratch, *resolv_conf;
    bool service, told_hostname;
};

void read_config(struct config *config);

#endif
