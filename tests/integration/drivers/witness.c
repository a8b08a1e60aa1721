/* A foreign service: on port 80 it tells, as JSON, who it is and what it sees of its own image. */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static void describe(FILE *out, const char *path)
{
    struct stat info;
    char value[64];
    if (lstat(path, &info) < 0) {
        fprintf(out, "\"%s\":\"%s\"", path, strerror(errno));
        return;
    }
    ssize_t length = lgetxattr(path, "user.note", value, sizeof value);
    fprintf(out, "\"%s\":[%u,%u,\"%o\",%u,%u,%u,\"%.*s\",%lld]", path, info.st_uid, info.st_gid, info.st_mode,
            (unsigned)info.st_nlink, major(info.st_rdev), minor(info.st_rdev), length > 0 ? (int)length : 0, value,
            (long long)info.st_mtime);
}

int main(int argc, char **argv)
{
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) {
        perror("port 80");
        return 1;
    }
    for (;;) {
        char request[2048], cwd[256], *body = NULL;
        size_t length = 0;
        gid_t groups[32];
        int connection = accept(listener, NULL, NULL);
        if (connection < 0 || read(connection, request, sizeof request) <= 0) {
            close(connection);
            continue;
        }
        FILE *out = open_memstream(&body, &length);
        int count = getgroups(32, groups);
        int written = 0;
        FILE *file = fopen("/data/written", "w");
        if (file) {
            written = fputs("x", file) >= 0;
            fclose(file);
        }
        fprintf(out, "{\"uid\":%u,\"gid\":%u,\"groups\":[", getuid(), getgid());
        for (int i = 0; i < count; i++) {
            fprintf(out, "%s%u", i ? "," : "", groups[i]);
        }
        fprintf(out, "],\"cwd\":\"%s\",\"argc\":%d,\"last\":\"%s\",\"env\":\"%s\",\"path\":\"%s\",\"home\":\"%s\",",
                getcwd(cwd, sizeof cwd), argc, argv[argc - 1], getenv("WITNESS"), getenv("PATH"), getenv("HOME"));
        fprintf(out, "\"written\":%d,\"readable\":%d,\"files\":{", written, access("/data/secret", R_OK) == 0);
        const char *const paths[] = {"/data/owned", "/data/secret", "/data/linked", "/data/null",
                                     "/data/pipe",  "/data/symbolic", "/data", "/data/with \"quotes\" and spaces"};
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
            if (i == 7) {
                struct stat info;
                int found = lstat(paths[i], &info);
                fprintf(out, "\"quoted\":[%d,%u]}}", found, info.st_uid);
            } else {
                describe(out, paths[i]);
                fputs(",", out);
            }
        }
        fclose(out);
        dprintf(connection, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", length, body);
        close(connection);
        free(body);
    }
}
