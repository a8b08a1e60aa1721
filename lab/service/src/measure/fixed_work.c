/* Fixed amounts of work of one kind each, timed by the service's own clock: what the platform takes while it runs.
 *
 * Each runs in a child (see server/children.h), in up to CHUNKS equal chunks after one that is not counted, each
 * chunk's time being told; no chunk begins after LIMIT_NS. The loops are the service's own and not a library's, which
 * would choose other instructions on another (virtual) CPU.
 */
#include "measure/fixed_work.h"

#include "common/clock.h"
#include "common/json.h"
#include "machine/disk.h"
#include "machine/memory.h"
#include "server/children.h"
#include "server/connections.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNKS 100 /* short ones: most of them then pass without another's turn on the CPU */
#define PASSES 20
#define STEPS 8 /* of the clock; its longest are 10 ms */
#define LIMIT_NS (3 * NS_PER_S)
#define MAX_SYSCALLS 10000000
#define MAX_CPU_STEPS 1000000000
#define MAX_SWITCHES 1000000
#define MAX_FSYNCS 1000
#define MAX_MEMORY_MIB 4096

/* Does `count` of the work; false, with errno, when it cannot. */
typedef bool piece(void *state, uint64_t count);

static int failed(struct text *json, const char *problem)
{
    json_string(json, "error", problem);
    return 500;
}

/* The least step that the clock makes, or else the time that reading it takes: a guest's may go by its timer's ticks. */
static uint64_t clock_step_ns(void)
{
    uint64_t least = UINT64_MAX, before = clock_ns(CLOCK_MONOTONIC);
    for (int steps = 0; steps < STEPS;) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        if (now > before) {
            least = now - before < least ? now - before : least;
            before = now;
            steps++;
        }
    }
    return least;
}

static int in_chunks(struct text *json, piece *piece, void *state, uint64_t count)
{
    uint64_t chunk_ns[CHUNKS], each = count < CHUNKS ? 1 : count / CHUNKS;
    size_t wanted = count < CHUNKS ? (size_t)count : CHUNKS, chunks = 0;
    uint64_t step = clock_step_ns(), limit = clock_ns(CLOCK_MONOTONIC) + LIMIT_NS;
    if (!piece(state, each)) {
        return failed(json, strerror(errno));
    }
    uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), start = clock_ns(CLOCK_MONOTONIC), now = start;
    do {
        uint64_t before = now;
        if (!piece(state, each)) {
            return failed(json, strerror(errno));
        }
        now = clock_ns(CLOCK_MONOTONIC);
        chunk_ns[chunks++] = now - before;
    } while (chunks < wanted && now < limit);
    json_number(json, "count", each * chunks);
    json_number(json, "elapsed_ns", now - start);
    json_number(json, "cpu_ns", clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    json_number(json, "clock_step_ns", step);
    json_number(json, "chunk_count", each);
    json_key(json, "chunks_ns");
    for (size_t i = 0; i < chunks; i++) {
        text_add(json, i == 0 ? "[" : ",");
        text_number(json, chunk_ns[i]);
    }
    text_add(json, "]");
    return 200;
}

/* A call that does next to nothing, made by number: libc keeps no copy of its answer. */
static bool call(void *state, uint64_t count)
{
    (void)state;
    for (uint64_t i = 0; i < count; i++) {
        syscall(SYS_getppid);
    }
    return true;
}

static int measure_syscall(struct text *json, uint64_t count)
{
    return in_chunks(json, call, NULL, count);
}

/* Each step needs the one before: nothing to be guessed or done side by side. */
static bool compute(void *state, uint64_t count)
{
    uint64_t value = *(uint64_t *)state;
    for (uint64_t i = 0; i < count; i++) {
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        __asm__ volatile("" : "+r"(value));
    }
    *(volatile uint64_t *)state = value;
    return true;
}

static int measure_cpu(struct text *json, uint64_t count)
{
    uint64_t value = 1;
    return in_chunks(json, compute, &value, count);
}

struct pair {
    int to, from;
};

/* There and back: two switches. */
static bool ping(void *state, uint64_t count)
{
    const struct pair *pair = state;
    char byte = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (write(pair->to, &byte, 1) != 1 || read(pair->from, &byte, 1) != 1) {
            errno = errno ? errno : EPIPE;
            return false;
        }
    }
    return true;
}

static void pong(int from, int to)
{
    char byte;
    while (read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1) {
    }
    _exit(0);
}

/* Two processes on one CPU, so that each handing over is a switch and no message to another CPU. */
static int measure_switch(struct text *json, uint64_t count)
{
    int there[2], back[2];
    cpu_set_t one;
    CPU_ZERO(&one);
    int cpu = sched_getcpu();
    if (cpu >= 0 && cpu < CPU_SETSIZE) {
        CPU_SET(cpu, &one);
    }
    if (sched_setaffinity(0, sizeof one, &one) < 0 || pipe2(there, O_CLOEXEC) < 0 || pipe2(back, O_CLOEXEC) < 0) {
        return failed(json, strerror(errno));
    }
    pid_t partner = fork();
    if (partner < 0) {
        return failed(json, strerror(errno));
    }
    if (partner == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* and where its partner died before this, the pipe has an end */
        close(there[1]);
        close(back[0]);
        pong(there[0], back[1]);
    }
    close(there[0]);
    close(back[1]);
    struct pair pair = {.to = there[1], .from = back[0]};
    return in_chunks(json, ping, &pair, count);
}

struct buffers {
    uint64_t *to;
    const uint64_t *from;
    size_t words;
};

static bool copy(void *state, uint64_t count)
{
    const struct buffers *buffers = state;
    for (uint64_t pass = 0; pass < count; pass++) {
        copy_words(buffers->to, buffers->from, buffers->words);
    }
    return true;
}

/* Copies one half of `mib` to the other, and asks for no more than a guest has: its kernel would kill for it. */
static int measure_memory(struct text *json, uint64_t mib)
{
    uint64_t bytes = mib * MIB;
    if (!memory_is_free(bytes)) {
        json_string(json, "absent", "no room");
        return 200;
    }
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        return failed(json, strerror(errno));
    }
    memset(at, 0x5a, bytes);
    struct buffers buffers = {(uint64_t *)(void *)at, (const uint64_t *)(void *)(at + bytes / 2), bytes / 2 / 8};
    json_number(json, "bytes_per_pass", bytes / 2);
    return in_chunks(json, copy, &buffers, PASSES);
}

static bool append(void *state, uint64_t count)
{
    return append_blocks(*(int *)state, count);
}

static int measure_fsync(struct text *json, uint64_t count)
{
    struct on_disk file;
    if (!open_on_disk(".lab-fsync", &file)) {
        json_string(json, "absent", "no disk");
        return 200;
    }
    json_string(json, "directory", file.directory);
    json_string(json, "file_system", file.type);
    json_number(json, "block_bytes", BLOCK_BYTES);
    int status = in_chunks(json, append, &file.fd, count);
    unlink(file.path);
    return status;
}

static void measure(const struct launch *launch, int slot, const struct request *request, work_body *body,
                    const char *name, uint64_t max)
{
    uint64_t count;
    if (!query_number(request, name, max, &count) || count == 0) {
        JSON_TEXT(json, 128);
        static char problem[64];
        struct text text = {problem, 0, sizeof problem, false};
        text_add(&text, name);
        text_add(&text, " must be a number from 1 to ");
        text_number(&text, max);
        text_bytes(&text, "", 1);
        json_string(&json, "error", problem);
        respond(slot, 400, NULL, json_end(&json));
        return;
    }
    work_apart(launch, slot, body, count);
}

void answer_measure_syscall(const struct launch *launch, int slot, const struct request *request)
{
    measure(launch, slot, request, measure_syscall, "count", MAX_SYSCALLS);
}

void answer_measure_cpu(const struct launch *launch, int slot, const struct request *request)
{
    measure(launch, slot, request, measure_cpu, "count", MAX_CPU_STEPS);
}

void answer_measure_switch(const struct launch *launch, int slot, const struct request *request)
{
    measure(launch, slot, request, measure_switch, "count", MAX_SWITCHES);
}

void answer_measure_memory(const struct launch *launch, int slot, const struct request *request)
{
    measure(launch, slot, request, measure_memory, "mib", MAX_MEMORY_MIB);
}

void answer_measure_fsync(const struct launch *launch, int slot, const struct request *request)
{
    measure(launch, slot, request, measure_fsync, "count", MAX_FSYNCS);
}
