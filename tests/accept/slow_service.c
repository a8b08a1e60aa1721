/* slow_service START_MS DELAY_MS CPU_MS WORKERS [PORT]: an HTTP service that is late, and whose answers take time.
 *
 * It listens START_MS after its start and says so with CLOCK_MONOTONIC's ns; each of its WORKERS then answers one
 * request at a time, after DELAY_MS of sleep and CPU_MS of its own CPU time, and says afterwards how many ns that took.
 * Shares nothing with the lab's service. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static double clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void sleep_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) < 0) {
    }
}

static void answer(int listener, long delay_ms, long cpu_ms)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
    char request[4096];
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) {
        return;
    }
    if (read(connection, request, sizeof request) > 0) {
        double begun = clock_ms(CLOCK_MONOTONIC);
        sleep_ms(delay_ms);
        for (double until = clock_ms(CLOCK_PROCESS_CPUTIME_ID) + (double)cpu_ms;
             clock_ms(CLOCK_PROCESS_CPUTIME_ID) < until;) {
        }
        if (write(connection, text, sizeof text - 1) < 0) {
            perror("slow_service: write");
        }
        printf("slow_service answered after %.0f ns\n", (clock_ms(CLOCK_MONOTONIC) - begun) * 1e6);
        fflush(stdout);
    }
    close(connection);
}

int main(int count, char **words)
{
    if (count < 5) {
        fprintf(stderr, "slow_service START_MS DELAY_MS CPU_MS WORKERS [PORT]\n");
        return 2;
    }
    long workers = atol(words[4]), port = count > 5 ? atol(words[5]) : 8080;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGPIPE, SIG_IGN);
    sleep_ms(atol(words[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    here.sin_addr.s_addr = htonl(count > 5 ? INADDR_LOOPBACK : INADDR_ANY); /* a bare process has no network of its own */
    if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 128) < 0) {
        perror("slow_service: listen");
        return 1;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("slow_service listens at %lld\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
    fflush(stdout);
    for (; workers > 1 && fork() != 0; workers--) {
    }
    for (;;) {
        answer(listener, atol(words[2]), atol(words[3]));
    }
}
