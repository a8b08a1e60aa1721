/* Which devices and mounts the workload has. No device is opened: some do things when they are (a watchdog, a tape, a
 * terminal), so that faccessat(2) is asked, which looks at modes, capabilities and the cgroup's devices as well. */
#include "surface/probes.h"

#include "common/files.h"
#include "common/json.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 4
#define MAX_DEVICES 1200
#define MAX_MOUNTS 250
/* Bytes of the answer, which has room for both: `seen` tells what there was beyond. */
#define MAX_DEVICES_BYTES 22000
#define MAX_MOUNTS_BYTES 33000

static const char *separator(const struct text *json)
{
    return json->at[json->length - 1] == '[' ? "" : ",";
}

static size_t devices_seen;

/* Adds ["path","c","rw"] for every device below `directory`, whose name within /dev is `prefix`. */
static void walk_devices(struct text *json, int directory, const char *prefix, int depth)
{
    DIR *stream = fdopendir(directory);
    struct dirent *entry;
    while (stream && (entry = readdir(stream))) {
        struct stat about;
        char path[256];
        struct text text = {path, 0, sizeof path, false};
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(dirfd(stream), entry->d_name, &about, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
            continue;
        }
        text_add(&text, prefix);
        text_add(&text, entry->d_name);
        if (S_ISDIR(about.st_mode) && depth < MAX_DEPTH) {
            text_add(&text, "/");
            text_bytes(&text, "", 1);
            int below = openat(dirfd(stream), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0 && text.full) {
                close(below);
            } else if (below >= 0) {
                walk_devices(json, below, path, depth + 1);
            }
        } else if ((S_ISCHR(about.st_mode) || S_ISBLK(about.st_mode)) && ++devices_seen <= MAX_DEVICES &&
                   json->length < MAX_DEVICES_BYTES) {
            text_bytes(&text, "", 1);
            text_add(json, separator(json));
            text_add(json, "[");
            text_json(json, text.full ? entry->d_name : path);
            text_add(json, S_ISCHR(about.st_mode) ? ",\"c\",\"" : ",\"b\",\"");
            text_add(json, faccessat(dirfd(stream), entry->d_name, R_OK, 0) == 0 ? "r" : "");
            text_add(json, faccessat(dirfd(stream), entry->d_name, W_OK, 0) == 0 ? "w" : "");
            text_add(json, "\"]");
        }
    }
    if (stream) {
        closedir(stream);
    }
}

static void devices(struct text *json)
{
    int directory = open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    json_number(json, "readable", directory >= 0);
    json_key(json, "listed");
    text_add(json, "[");
    if (directory >= 0) {
        walk_devices(json, directory, "", 0);
    }
    text_add(json, "]");
    json_number(json, "seen", devices_seen);
}

/* The next of a line's words; empty at its end. */
static char *word(char **at)
{
    char *start = *at + strspn(*at, " ");
    *at = start + strcspn(start, " ");
    if (**at) {
        *(*at)++ = '\0';
    }
    return start;
}

static const char *access_of(const char *options)
{
    return strncmp(options, "ro", 2) == 0 && (options[2] == ',' || !options[2]) ? "ro" : "rw";
}

/* Adds ["point","type","ro" or "rw","shared" or ..] of one line of mountinfo, proc_pid_mountinfo(5). */
static void add_mount(struct text *json, char *line)
{
    char *at = line;
    word(&at), word(&at), word(&at), word(&at);
    const char *point = word(&at), *options = word(&at), *propagation = "private", *field;
    while (*(field = word(&at)) && strcmp(field, "-") != 0) {
        if (strncmp(field, "shared:", 7) == 0) {
            propagation = "shared";
        } else if (strncmp(field, "master:", 7) == 0 && strcmp(propagation, "private") == 0) {
            propagation = "slave";
        } else if (strcmp(field, "unbindable") == 0) {
            propagation = "unbindable";
        }
    }
    const char *type = word(&at);
    word(&at);
    const char *own = access_of(options), *of_all = access_of(word(&at));
    text_add(json, separator(json));
    text_add(json, "[");
    text_json(json, point);
    text_add(json, ",");
    text_json(json, type);
    text_add(json, ",");
    text_json(json, strcmp(own, "ro") == 0 ? own : of_all);
    text_add(json, ",");
    text_json(json, propagation);
    text_add(json, "]");
}

static void mounts(struct text *json)
{
    static char content[512 * 1024];
    size_t seen = 0;
    read_text("/proc/self/mountinfo", content, sizeof content);
    json_key(json, "listed");
    text_add(json, "[");
    for (char *line = content, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) {
            *end++ = '\0';
        }
        if (++seen <= MAX_MOUNTS && json->length < MAX_MOUNTS_BYTES) {
            add_mount(json, line);
        }
    }
    text_add(json, "]");
    json_number(json, "seen", seen);
}

static const struct probe list[] = {{"devices", devices}, {"mounts", mounts}};

const struct probes surface_places = PROBES("places", list);
