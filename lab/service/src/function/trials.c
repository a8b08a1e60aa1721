/* What a function's own limits are tried by:
 *
 *     /function/event            how many bytes the event had, the how-manieth call it is, how long it may take
 *     /function/sleep?ms=N       answers after so long (at most 15 minutes)
 *     /function/answer?bytes=N   an answer of so many bytes (at most 12 MiB)
 *     /function/tmp?mib=N        writes so much to /tmp (at most 4096), and removes it: how much was taken, and errno
 */
#include "function/trials.h"

#include "common/clock.h"
#include "common/json.h"
#include "http/request.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MAX_SLEEP_MS 900000
#define MAX_ANSWER_BYTES (12 * 1024 * 1024)
#define MAX_TMP_MIB 4096
#define MIB (1024 * 1024)

static void write_tmp(struct text *into, uint64_t mib)
{
    static char block[MIB];
    static const char path[] = "/tmp/lab-trial";
    uint64_t bytes = 0;
    int error = 0, fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    memset(block, 'x', sizeof block);
    while (fd >= 0 && bytes < mib * MIB && !error) {
        ssize_t written = write(fd, block, sizeof block);
        error = written < 0 && errno != EINTR ? errno : 0;
        bytes += written > 0 ? (uint64_t)written : 0;
    }
    error = fd < 0 ? errno : error;
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    json_number(into, "written_bytes", bytes);
    json_number(into, "errno", (uint64_t)error);
}

static void fill(struct text *into, uint64_t bytes)
{
    text_add(into, "\"padding\":\"");
    while (into->length + 2 < bytes && !into->full) {
        text_add(into, "x");
    }
    text_add(into, "\"");
}

bool answer_trial(struct slice path, struct slice query, const struct called *called, struct text *into, int *status)
{
    struct request request = {.query = query};
    uint64_t number = 0;
    *status = 200;
    text_add(into, "{");
    if (slice_is(path, "/function/event")) {
        json_number(into, "event_bytes", called->event_bytes);
        json_number(into, "call", called->call);
        json_number(into, "remaining_ms", called->remaining_ms);
    } else if (slice_is(path, "/function/sleep") && query_number(&request, "ms", MAX_SLEEP_MS, &number)) {
        struct timespec left = {(time_t)(number / 1000), (long)(number % 1000 * NS_PER_MS)};
        while (nanosleep(&left, &left) < 0 && errno == EINTR) {
        }
        json_number(into, "slept_ms", number);
    } else if (slice_is(path, "/function/answer") && query_number(&request, "bytes", MAX_ANSWER_BYTES, &number)) {
        fill(into, number);
    } else if (slice_is(path, "/function/tmp") && query_number(&request, "mib", MAX_TMP_MIB, &number)) {
        write_tmp(into, number);
    } else {
        into->length = 0;
        return false;
    }
    text_add(into, "}");
    return true;
}
