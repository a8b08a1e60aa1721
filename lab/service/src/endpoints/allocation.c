/* POST /alloc: memory that the service takes and holds, a bounded piece of it a turn of the loop. */
#include "endpoints/allocation.h"

#include "common/clock.h"
#include "common/json.h"
#include "server/connections.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB ((size_t)1024 * 1024)
#define MAX_ALLOCATED_MIB 4096

/* One more than can ever be asked for, each mapping being at least 1 MiB. */
static struct {
    char *at;
    size_t mib;
} held[MAX_ALLOCATED_MIB + 1];
static size_t held_count, held_mib;

static struct {
    bool running;
    int slot; /* -1 once nobody waits for it */
    size_t touched, length;
} allocation = {.slot = -1};

static void answer_held(int slot)
{
    JSON_TEXT(json, 128);
    json_number(&json, "held_mib", held_mib);
    respond(slot, 200, NULL, json_end(&json));
}

void answer_alloc(const struct launch *launch, int slot, const struct request *request)
{
    (void)launch;
    uint64_t mib;
    if (!query_number(request, "mib", MAX_ALLOCATED_MIB, &mib)) {
        respond(slot, 400, NULL, "{\"error\":\"mib must be a number of at most 4096\"}");
        return;
    }
    if (allocation.running) {
        respond(slot, 409, NULL, "{\"error\":\"an allocation is under way\"}");
        return;
    }
    if (mib == 0) {
        while (held_count > 0) {
            held_count--;
            munmap(held[held_count].at, held[held_count].mib * MIB);
        }
        held_mib = 0;
        answer_held(slot);
        return;
    }
    if (held_mib + mib > MAX_ALLOCATED_MIB) {
        respond(slot, 507, NULL, "{\"error\":\"at most 4096 MiB are held in all\"}");
        return;
    }
    void *at = mmap(NULL, (size_t)mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        respond(slot, 507, NULL, "{\"error\":\"the kernel has no such memory\"}");
        return;
    }
    held[held_count].at = at;
    held[held_count].mib = (size_t)mib;
    held_count++;
    held_mib += (size_t)mib;
    allocation.running = true;
    allocation.slot = slot;
    allocation.touched = 0;
    allocation.length = (size_t)mib * MIB;
}

size_t allocated_mib(void)
{
    return held_mib;
}

bool allocation_running(void)
{
    return allocation.running;
}

void allocation_forget(int slot)
{
    if (allocation.slot == slot) {
        allocation.slot = -1;
    }
}

void allocation_step(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *at = held[held_count - 1].at;
    for (size_t end = allocation.touched + MIB; allocation.touched < end; allocation.touched += page) {
        /* A different word in every page, lest same-page merging takes them back. */
        uint64_t word = (uint64_t)(uintptr_t)(at + allocation.touched) ^ clock_ns(CLOCK_MONOTONIC);
        memcpy(at + allocation.touched, &word, sizeof word);
    }
    if (allocation.touched >= allocation.length) {
        int slot = allocation.slot;
        allocation.running = false;
        allocation.slot = -1;
        if (slot >= 0) {
            answer_held(slot);
        }
    }
}
