/* A service that ends as its environment says. Without a word of it, it listens at port 8080 and serves for good.
 * EXIT: ends with this status before it listens | FAULT=1: by a signal | EAT_MIB: takes so much memory first, in a child
 * with CHILD=1, whose failure it then tells by status 7 | ONCE=1: ends with status 4 after its first answer */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

static void eat(long mib)
{
    for (long i = 0; i < mib; i++) {
        char *part = malloc(1 << 20);
        memset(part, 1, 1 << 20);
    }
}

int main(void)
{
    const char *code = getenv("EXIT"), *memory = getenv("EAT_MIB");
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i <= 12; i++) {
        printf("line %d of what it says\n", i);
    }
    if (memory) {
        int status = 0;
        pid_t child = getenv("CHILD") ? fork() : 0;
        if (child == 0) {
            eat(atol(memory));
            return 0;
        }
        waitpid(child, &status, 0);
        if (status) {
            return 7;
        }
    }
    if (getenv("FAULT")) {
        *(volatile int *)8 = 1;
    }
    if (code) {
        printf("without an end of line");
        return atoi(code);
    }
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
        perror("listen");
        return 5;
    }
    for (;;) {
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        char request[4096];
        int client = accept(listener, NULL, NULL);
        if (client >= 0 && read(client, request, sizeof request) > 0) {
            if (write(client, answer, sizeof answer - 1) > 0 && getenv("ONCE")) {
                close(client);
                return 4;
            }
        }
        close(client);
    }
}
