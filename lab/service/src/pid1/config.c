/* Reads /lab/config: NUL-terminated words, alternately key and value, as guest_config.py writes them. */
#include "pid1/config.h"

#include "guest/ending.h"
#include "guest/files.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG (256 * 1024)

static char config_bytes[MAX_CONFIG];

static uint32_t number(const char *key, const char *value)
{
    char *end;
    errno = 0;
    unsigned long parsed = strtoul(value, &end, 10);
    if (errno || *end || end == value || *value == '-' || parsed > UINT32_MAX - 1) {
        die("/lab/config: %s is not a number: %s", key, value);
    }
    return (uint32_t)parsed;
}

/* `NUMBER:SOFT:HARD`, in the kernel's own numbers. */
static void add_limit(struct config *config, const char *value)
{
    char *end = (char *)value;
    unsigned long long parts[3];
    for (size_t i = 0; i < 3; i++) {
        errno = 0;
        const char *from = i ? end + 1 : value;
        parts[i] = strtoull(from, &end, 10);
        if (errno || end == from || *end != (i < 2 ? ':' : '\0')) {
            die("/lab/config: %s is no limit", value);
        }
    }
    config->limit[config->limits].which = (int)parts[0];
    config->limit[config->limits++].values = (struct rlimit){.rlim_cur = parts[1], .rlim_max = parts[2]};
}

void read_config(struct config *config)
{
    ssize_t length = read_file("/lab/config", config_bytes, sizeof config_bytes);
    if (length <= 0 || length == sizeof config_bytes || config_bytes[length - 1] != '\0') {
        die("/lab/config is missing, empty, too long or cut short");
    }
    *config = (struct config){.cwd = "/", .hostname = "lab", .stop_signal = SIGTERM};
    for (char *at = config_bytes, *end = config_bytes + length; at < end;) {
        const char *key = at;
        char *value = at + strlen(at) + 1;
        if (value >= end) {
            die("/lab/config: %s has no value", key);
        }
        at = value + strlen(value) + 1;
        if (config->argc >= MAX_WORDS || config->envc >= MAX_WORDS || config->groups >= MAX_GROUPS ||
            config->volumes >= MAX_VOLUMES || config->limits >= MAX_LIMITS) {
            die("/lab/config has too many words");
        }
        if (strcmp(key, "argv") == 0) {
            config->argv[config->argc++] = value;
        } else if (strcmp(key, "env") == 0) {
            config->env[config->envc++] = value;
        } else if (strcmp(key, "uid") == 0) {
            config->uid = number(key, value);
        } else if (strcmp(key, "gid") == 0) {
            config->gid = number(key, value);
        } else if (strcmp(key, "group") == 0) {
            config->group[config->groups++] = number(key, value);
        } else if (strcmp(key, "cwd") == 0) {
            config->cwd = value;
        } else if (strcmp(key, "hostname") == 0) {
            config->hostname = value;
        } else if (strcmp(key, "scratch_bytes") == 0) {
            config->scratch = value;
        } else if (strcmp(key, "volume") == 0) {
            config->volume[config->volumes++] = value;
        } else if (strcmp(key, "rlimit") == 0) {
            add_limit(config, value);
        } else if (strcmp(key, "stop_signal") == 0) {
            config->stop_signal = (int)number(key, value);
        } else if (strcmp(key, "resolv_conf") == 0) {
            config->resolv_conf = value;
        } else if (strcmp(key, "told_hostname") == 0) {
            config->told_hostname = strcmp(value, "1") == 0;
        } else if (strcmp(key, "service") == 0) {
            config->service = strcmp(value, "1") == 0;
        } else {
            die("/lab/config: unknown key %s", key);
        }
    }
    if (config->argc == 0) {
        die("/lab/config names no program");
    }
}
