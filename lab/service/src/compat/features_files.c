/* Files: locks, kinds of writing, attributes and nodes, in the probe's own directory. */
#include "compat/features.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437 /* Linux 5.6, on every machine */
#endif
#define RESOLVE_BENEATH_FLAG 0x08
#define OTHER_USER 12345
#define BLOCK 4096

static int file(void)
{
    return open("file", O_RDWR | O_CREAT, 0600);
}

/* Whether another process meets EAGAIN where this one holds the lock. */
static int refused_elsewhere(bool (*take)(int fd))
{
    int fd = file(), status = 0;
    if (fd < 0 || !take(fd)) {
        return outcome_of(false);
    }
    pid_t child = fork();
    if (child == 0) {
        int again = file();
        _exit(again >= 0 && !take(again) && (errno == EAGAIN || errno == EACCES) ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return outcome_of(false);
    }
    return status == 0 ? 0 : WRONG;
}

static bool by_flock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static bool by_fcntl(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_SETLK, &whole) == 0;
}

static bool by_description(int fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

static int lock_flock(struct text *given)
{
    (void)given;
    return refused_elsewhere(by_flock);
}

static int lock_posix(struct text *given)
{
    (void)given;
    return refused_elsewhere(by_fcntl);
}

static int lock_description(struct text *given)
{
    (void)given;
    return refused_elsewhere(by_description);
}

static int lease(struct text *given)
{
    int fd = file();
    (void)given;
    return outcome_of(fd >= 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0);
}

static int through(ssize_t (*move)(int from, int to))
{
    char byte = 0;
    int from = file(), to = open("other", O_RDWR | O_CREAT, 0600);
    if (from < 0 || to < 0 || pwrite(from, "x", 1, 0) != 1 || move(from, to) != 1 || pread(to, &byte, 1, 0) != 1) {
        return outcome_of(false);
    }
    return byte == 'x' ? 0 : WRONG;
}

static ssize_t by_sendfile(int from, int to)
{
    off_t begin = 0;
    return sendfile(to, from, &begin, 1);
}

static ssize_t by_splice(int from, int to)
{
    int ends[2];
    loff_t begin = 0;
    return pipe(ends) == 0 && splice(from, &begin, ends[1], NULL, 1, 0) == 1 ? splice(ends[0], NULL, to, NULL, 1, 0) : -1;
}

static ssize_t by_copy(int from, int to)
{
    loff_t begin = 0;
    return syscall(SYS_copy_file_range, from, &begin, to, NULL, 1, 0);
}

static int send_file(struct text *given)
{
    (void)given;
    return through(by_sendfile);
}

static int splicing(struct text *given)
{
    (void)given;
    return through(by_splice);
}

static int copy_range(struct text *given)
{
    (void)given;
    return through(by_copy);
}

static int direct(struct text *given)
{
    static char bytes[2 * BLOCK];
    char *block = bytes + BLOCK - (uintptr_t)bytes % BLOCK;
    int fd = open("direct", O_RDWR | O_CREAT | O_DIRECT, 0600);
    (void)given;
    return outcome_of(fd >= 0 && write(fd, block, BLOCK) == BLOCK);
}

static int nameless(struct text *given)
{
    (void)given;
    return outcome_of(open(".", O_RDWR | O_TMPFILE, 0600) >= 0);
}

static int allocated(struct text *given)
{
    int fd = file();
    (void)given;
    return outcome_of(fd >= 0 && fallocate(fd, 0, 0, BLOCK) == 0);
}

static int punched(struct text *given)
{
    int fd = file();
    (void)given;
    return outcome_of(fd >= 0 && ftruncate(fd, 4 * BLOCK) == 0 &&
                      fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK) == 0);
}

static int synced(struct text *given)
{
    int fd = file();
    (void)given;
    return outcome_of(fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0 && fdatasync(fd) == 0);
}

static int attribute(const char *name)
{
    char value = 0;
    if (file() < 0 || setxattr("file", name, "x", 1, 0) != 0 || getxattr("file", name, &value, 1) != 1) {
        return outcome_of(false);
    }
    return value == 'x' ? 0 : WRONG;
}

static int attribute_user(struct text *given)
{
    (void)given;
    return attribute("user.lab");
}

static int attribute_trusted(struct text *given)
{
    (void)given;
    return attribute("trusted.lab");
}

static int fifo(struct text *given)
{
    (void)given;
    return outcome_of(mkfifo("fifo", 0600) == 0);
}

/* /dev/null's number: of a node whose name goes with the directory. */
static int device(struct text *given)
{
    (void)given;
    return outcome_of(mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0);
}

static int device_opened(struct text *given)
{
    (void)given;
    return outcome_of(mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0 && open("null", O_RDWR) >= 0);
}

static int linked(struct text *given)
{
    struct stat about;
    (void)given;
    if (file() < 0 || link("file", "link") != 0 || stat("link", &about) != 0) {
        return outcome_of(false);
    }
    return about.st_nlink == 2 ? 0 : WRONG;
}

static int exchanged(struct text *given)
{
    (void)given;
    return outcome_of(file() >= 0 && mkdir("other", 0700) == 0 &&
                      syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "other", RENAME_EXCHANGE) == 0);
}

static int owned(struct text *given)
{
    struct stat about;
    (void)given;
    if (file() < 0 || chown("file", OTHER_USER, OTHER_USER) != 0 || stat("file", &about) != 0) {
        return outcome_of(false);
    }
    return about.st_uid == OTHER_USER ? 0 : WRONG;
}

static int set_user_id(struct text *given)
{
    struct stat about;
    (void)given;
    if (file() < 0 || chmod("file", 04700) != 0 || stat("file", &about) != 0) {
        return outcome_of(false);
    }
    return about.st_mode & S_ISUID ? 0 : WRONG;
}

static int holes(struct text *given)
{
    int fd = file();
    (void)given;
    if (fd < 0 || ftruncate(fd, 64 * BLOCK) != 0 || pwrite(fd, "x", 1, 32 * BLOCK) != 1) {
        return outcome_of(false);
    }
    off_t data = lseek(fd, 0, SEEK_DATA);
    return data < 0 ? outcome_of(false) : data > 0 ? 0 : WRONG;
}

static int beneath(struct text *given)
{
    uint64_t how[3] = {O_RDONLY, 0, RESOLVE_BENEATH_FLAG};
    (void)given;
    return outcome_of(file() >= 0 && syscall(SYS_openat2, AT_FDCWD, "file", how, sizeof how) >= 0);
}

static int handle(struct text *given)
{
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } found = {.head.handle_bytes = 128};
    int mount;
    (void)given;
    if (file() < 0 || name_to_handle_at(AT_FDCWD, "file", &found.head, &mount, 0) != 0) {
        return outcome_of(false);
    }
    int directory = open(".", O_RDONLY | O_DIRECTORY);
    return outcome_of(open_by_handle_at(directory, &found.head, O_RDONLY) >= 0);
}

static int run_from_tmp(struct text *given)
{
    int to = open("program", O_WRONLY | O_CREAT, 0700), from = open("/proc/self/exe", O_RDONLY), status = 0;
    struct stat about;
    (void)given;
    if (to < 0 || from < 0 || fstat(from, &about) != 0) {
        return outcome_of(false);
    }
    for (off_t done = 0; done < about.st_size;) {
        if (sendfile(to, from, &done, (size_t)(about.st_size - done)) <= 0) {
            return outcome_of(false);
        }
    }
    close(to);
    pid_t child = fork();
    if (child == 0) {
        execl("./program", "program", "nothing", NULL);
        _exit(errno & 0x7f);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
        return outcome_of(false);
    }
    return WEXITSTATUS(status);
}

static const struct feature list[] = {
    {"locks: flock", lock_flock},
    {"locks: POSIX", lock_posix},
    {"locks: of open file descriptions", lock_description},
    {"locks: leases", lease},
    {"files: sendfile", send_file},
    {"files: splice", splicing},
    {"files: copy_file_range", copy_range},
    {"files: O_DIRECT", direct},
    {"files: without a name", nameless},
    {"files: fallocate", allocated},
    {"files: holes punched", punched},
    {"files: holes found", holes},
    {"files: fsync", synced},
    {"files: attributes, user", attribute_user},
    {"files: attributes, trusted", attribute_trusted},
    {"files: FIFO", fifo},
    {"files: device node made", device},
    {"files: device node opened", device_opened},
    {"files: hard link", linked},
    {"files: exchange of names", exchanged},
    {"files: another owner", owned},
    {"files: set-user-ID", set_user_id},
    {"files: openat2", beneath},
    {"files: opened by handle", handle},
    {"files: a program run from /tmp", run_from_tmp},
};

const struct features features_files = FEATURES(list);
