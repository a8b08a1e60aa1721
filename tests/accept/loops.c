/* loops syscall|cpu COUNT: a plain loop, in 100 parts after one that warms up; prints each part's ns on a line.
 *
 * Shares nothing with the lab's service. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PARTS 100

static volatile uint64_t sink = 1;

static void syscalls(long count)
{
    while (count-- > 0) {
        syscall(SYS_getppid);
    }
}

static void cpu(long count)
{
    uint64_t x = sink;
    while (count-- > 0) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    sink = x;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[1], "syscall") != 0 && strcmp(argv[1], "cpu") != 0)) {
        return 2;
    }
    void (*loop)(long) = strcmp(argv[1], "cpu") == 0 ? cpu : syscalls;
    long each = atol(argv[2]) / PARTS;
    long long took[PARTS];
    loop(each);
    for (int part = 0; part < PARTS; part++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        loop(each);
        clock_gettime(CLOCK_MONOTONIC, &b);
        took[part] = (b.tv_sec - a.tv_sec) * 1000000000LL + (b.tv_nsec - a.tv_nsec);
    }
    for (int part = 0; part < PARTS; part++) {
        printf("%lld\n", took[part]);
    }
    return 0;
}
