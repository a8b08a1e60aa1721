/* Files where a write has to reach a disk. */
#include "machine/disk.h"

#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

/* linux/magic.h; "" for what keeps its files in memory. */
static const char *file_system(uint64_t type, char *unnamed, size_t capacity)
{
    static const struct {
        uint64_t type;
        const char *name;
    } known[] = {{0x01021994, ""},          {0x858458f6, ""},         {0x62656572, ""},
                 {0xef53, "ext2-4"},        {0x58465342, "xfs"},      {0x9123683e, "btrfs"},
                 {0x794c7630, "overlay"},   {0x2fc12fc1, "zfs"},      {0xf2f52010, "f2fs"},
                 {0x01021997, "9p"},        {0x65735546, "fuse"},     {0x6969, "nfs"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].type == type) {
            return known[i].name;
        }
    }
    struct text text = {unnamed, 0, capacity, false};
    text_add(&text, "type ");
    text_number(&text, type);
    text_bytes(&text, "", 1);
    return unnamed;
}

/* The file's name is always the same, so that one killed at its work is taken away by the next; and it keeps its name
 * while it is written, since some file systems do nothing for the fsync of a file without one. */
bool open_on_disk(const char *name, struct on_disk *made)
{
    static const char *const directories[] = {"/var/tmp", "/"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        struct statfs about;
        struct text path = {made->path, 0, sizeof made->path, false};
        made->directory = directories[i];
        if (statfs(made->directory, &about) < 0) {
            continue;
        }
        made->type = file_system((uint64_t)about.f_type & 0xffffffff, made->unnamed, sizeof made->unnamed);
        text_add(&path, made->directory[1] ? made->directory : "");
        text_add(&path, "/");
        text_add(&path, name);
        text_bytes(&path, "", 1);
        if (made->type[0] == '\0' || path.full) {
            continue;
        }
        unlink(made->path);
        made->fd = open(made->path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (made->fd >= 0) {
            return true;
        }
    }
    return false;
}

bool append_blocks(int fd, uint64_t count)
{
    static const char block[BLOCK_BYTES] = {1};
    for (uint64_t i = 0; i < count; i++) {
        ssize_t written = write(fd, block, sizeof block);
        if (written != (ssize_t)sizeof block) {
            errno = written < 0 ? errno : ENOSPC;
            return false;
        }
        if (fsync(fd) < 0) {
            return false;
        }
    }
    return true;
}
