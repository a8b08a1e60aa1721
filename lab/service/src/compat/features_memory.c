/* Memory: kinds of mappings, what is shared, and what is asked of the kernel about it. */
#include "compat/features.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_HUGETLB
#define MAP_HUGETLB 0x40000
#endif
#define PAGE 4096
#define HUGE_BYTES (2 << 20)

/* What a child writes into `memory`, this process sees. */
static int seen(volatile char *memory)
{
    int status;
    if (memory == MAP_FAILED) {
        return outcome_of(false);
    }
    pid_t child = fork();
    if (child == 0) {
        memory[0] = 'x';
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        return outcome_of(false);
    }
    return memory[0] == 'x' ? 0 : WRONG;
}

static int shared(struct text *given)
{
    (void)given;
    return seen(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

static int shared_file(struct text *given)
{
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    (void)given;
    if (fd < 0 || ftruncate(fd, PAGE) != 0) {
        return outcome_of(false);
    }
    return seen(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
}

/* A page of no page's contents: MAP_SYNC and huge pages need what few machines have, and say so. */
static int huge(struct text *given)
{
    (void)given;
    return outcome_of(mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) !=
                      MAP_FAILED);
}

static int executable(struct text *given)
{
    (void)given;
    return outcome_of(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
                      MAP_FAILED);
}

static int made_executable(struct text *given)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)given;
    return outcome_of(page != MAP_FAILED && mprotect(page, PAGE, PROT_READ | PROT_EXEC) == 0);
}

/* Of its own file: what is mounted noexec gives no such mapping. */
static int executable_file(struct text *given)
{
    int fd = open("file", O_RDWR | O_CREAT, 0700);
    (void)given;
    return outcome_of(fd >= 0 && ftruncate(fd, PAGE) == 0 &&
                      mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED);
}

static int memfd(struct text *given)
{
    int fd = (int)syscall(SYS_memfd_create, "lab", 3 /* MFD_CLOEXEC | MFD_ALLOW_SEALING */);
    (void)given;
    return outcome_of(fd >= 0 && ftruncate(fd, PAGE) == 0 && fcntl(fd, 1033 /* F_ADD_SEALS */, 2 /* SHRINK */) == 0);
}

static int userfault(struct text *given)
{
    (void)given;
    return outcome_of(syscall(SYS_userfaultfd, O_CLOEXEC) >= 0);
}

static int locked(struct text *given)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)given;
    return outcome_of(page != MAP_FAILED && mlock(page, PAGE) == 0);
}

static int advised(int advice)
{
    char *pages = mmap(NULL, 2 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return outcome_of(pages != MAP_FAILED && madvise(pages, 2 * HUGE_BYTES, advice) == 0);
}

static int transparent(struct text *given)
{
    (void)given;
    return advised(14 /* MADV_HUGEPAGE */);
}

static int lazily_freed(struct text *given)
{
    (void)given;
    return advised(8 /* MADV_FREE */);
}

static int policy(struct text *given)
{
    int mode = 0;
    (void)given;
#ifdef SYS_get_mempolicy
    return outcome_of(syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) == 0);
#else
    (void)mode;
    return ENOSYS;
#endif
}

static int barrier(struct text *given)
{
    (void)given;
    return outcome_of(syscall(SYS_membarrier, 0, 0) >= 0);
}

/* Its name goes at once; what was opened stays until this process ends. */
static int posix_shared(struct text *given)
{
    char name[32];
    struct text path = {name, 0, sizeof name - 1, false};
    (void)given;
    text_add(&path, "/lab-compat-");
    text_number(&path, (uint64_t)getpid());
    name[path.length] = '\0';
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        return outcome_of(false);
    }
    bool done = shm_unlink(name) == 0 && ftruncate(fd, PAGE) == 0;
    return done ? seen(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) : outcome_of(false);
}

/* Without a name, and marked to go with its last user. */
static int system_v_shared(struct text *given)
{
    int id = shmget(IPC_PRIVATE, PAGE, 0600);
    (void)given;
    if (id < 0) {
        return outcome_of(false);
    }
    void *memory = shmat(id, NULL, 0);
    int error = memory == (void *)-1 ? errno : 0;
    shmctl(id, IPC_RMID, NULL);
    return error ? error : seen(memory);
}

static int system_v_semaphore(struct text *given)
{
    int id = semget(IPC_PRIVATE, 1, 0600);
    (void)given;
    return outcome_of(id >= 0 && semctl(id, 0, IPC_RMID) == 0);
}

static int system_v_messages(struct text *given)
{
    int id = msgget(IPC_PRIVATE, 0600);
    (void)given;
    return outcome_of(id >= 0 && msgctl(id, IPC_RMID, NULL) == 0);
}

static const struct feature list[] = {
    {"memory: shared with a child", shared},
    {"memory: shared file", shared_file},
    {"memory: huge pages", huge},
    {"memory: transparent huge pages", transparent},
    {"memory: freed lazily", lazily_freed},
    {"memory: writable and executable", executable},
    {"memory: made executable", made_executable},
    {"memory: executable file of /tmp", executable_file},
    {"memory: memfd, sealed", memfd},
    {"memory: userfaultfd", userfault},
    {"memory: locked", locked},
    {"memory: NUMA policy", policy},
    {"memory: membarrier", barrier},
    {"memory: POSIX shared memory", posix_shared},
    {"memory: System V shared memory", system_v_shared},
    {"memory: System V semaphores", system_v_semaphore},
    {"memory: System V messages", system_v_messages},
};

const struct features features_memory = FEATURES(list);
