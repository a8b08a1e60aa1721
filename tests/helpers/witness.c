/* A service of another maker that tells, as JSON to whoever asks on port 8080, what it found around it when it started.
 *
 * GET /resolve also tells how long an unknown name took. It ends by the signal that it is sent, and says which. With
 * DEAF in its environment no signal that can be ignored ends it.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <arpa/nameser.h>
#include <resolv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; text && *text; text++) {
        if (*text == '"' || *text == '\\' || (unsigned char)*text < 32) {
            fprintf(out, "\\u%04x", (unsigned char)*text);
        } else {
            fputc(*text, out);
        }
    }
    fputc('"', out);
}

static void words(FILE *out, const char *key, char *const *list)
{
    fprintf(out, "\"%s\":[", key);
    for (size_t i = 0; list[i]; i++) {
        fputs(i ? "," : "", out);
        string(out, list[i]);
    }
    fputs("],", out);
}

static void content(FILE *out, const char *path)
{
    char text[16384];
    int fd = open(path, O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[length > 0 ? length : 0] = '\0';
    string(out, path);
    fputc(':', out);
    length < 0 ? fputs("null", out) : string(out, text);
    fputc(',', out);
    close(fd);
}

static void place(FILE *out, const char *path)
{
    struct stat info;
    struct statfs system;
    struct statvfs flags;
    string(out, path);
    if (lstat(path, &info) < 0 || statfs(path, &system) < 0 || statvfs(path, &flags) < 0) {
        fputs(":null,", out);
        return;
    }
    fprintf(out, ":{\"mode\":\"%o\",\"uid\":%u,\"gid\":%u,\"tmpfs\":%s,\"noexec\":%s,\"nosuid\":%s,\"bytes\":%llu},",
            info.st_mode, info.st_uid, info.st_gid, system.f_type == 0x01021994 ? "true" : "false",
            flags.f_flag & ST_NOEXEC ? "true" : "false", flags.f_flag & ST_NOSUID ? "true" : "false",
            (unsigned long long)flags.f_blocks * flags.f_frsize);
}

static void listing(FILE *out, const char *path)
{
    DIR *directory = opendir(path);
    const char *between = "";
    fprintf(out, "\"listing\":[");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (entry->d_name[0] != '.') {
            fputs(between, out);
            string(out, entry->d_name);
            between = ",";
        }
    }
    fputs("],", out);
}

/* Whether a program written to /tmp can be run. */
static const char *runs_from_tmp(const char *self)
{
    char block[65536];
    ssize_t got;
    int from = open(self, O_RDONLY), to = open("/tmp/copy", O_CREAT | O_EXCL | O_WRONLY, 0700);
    while (to >= 0 && (got = read(from, block, sizeof block)) > 0) {
        if (write(to, block, (size_t)got) != got) {
            break;
        }
    }
    close(from);
    close(to);
    const char *answer = access("/tmp/copy", X_OK) == 0 ? "true" : "false";
    unlink("/tmp/copy");
    return answer;
}

static void ended(int number)
{
    char text[] = "witness: ended by 00\n";
    text[18] = (char)('0' + number / 10);
    text[19] = (char)('0' + number % 10);
    if (write(1, text, sizeof text - 1) < 0) {
        _exit(1);
    }
    _exit(0);
}

static char *describe(char **argv, size_t *length)
{
    char cwd[4096], host[256], *body = NULL;
    gid_t groups[64];
    unsigned seed;
    double before = now_ms();
    ssize_t drawn = getrandom(&seed, sizeof seed, 0);
    double random_ms = now_ms() - before;
    FILE *out = open_memstream(&body, length);
    int count = getgroups(64, groups);
    gethostname(host, sizeof host);
    fprintf(out, "{\"uid\":%u,\"gid\":%u,\"pid\":%d,\"random_ms\":%f,\"groups\":[", getuid(), getgid(), getpid(),
            drawn < 0 ? -1.0 : random_ms);
    for (int i = 0; i < count; i++) {
        fprintf(out, "%s%u", i ? "," : "", groups[i]);
    }
    fputs("],", out);
    words(out, "argv", argv);
    words(out, "env", environ);
    fputs("\"cwd\":", out);
    string(out, getcwd(cwd, sizeof cwd) ? cwd : strerror(errno));
    fputs(",\"hostname\":", out);
    string(out, host);
    fputs(",\"rlimits\":[", out);
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit limit;
        getrlimit((__rlimit_resource_t)i, &limit);
        fprintf(out, "%s[%lld,%lld]", i ? "," : "", (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    fprintf(out, "],\"runs_from_tmp\":%s,", runs_from_tmp("/proc/self/exe"));
    listing(out, "/tmp");
    fputs("\"files\":{", out);
    const char *const files[] = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/self/status",
                                 "/proc/self/oom_score_adj", "/proc/sys/net/ipv4/ip_unprivileged_port_start"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        content(out, files[i]);
    }
    fputs("\"\":null},\"places\":{", out);
    const char *const places[] = {"/", "/tmp", "/dev/shm", "/data", "/srv/deep/volume", "/srv/made"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        place(out, places[i]);
    }
    fputs("\"\":null}}", out);
    fclose(out);
    return body;
}

int main(int argc, char **argv)
{
    (void)argc;
    int one = 1;
    size_t length;
    char *told = describe(argv, &length);
    for (int number = 1; number <= 64; number++) {
        signal(number, getenv("DEAF") ? SIG_IGN : ended);
    }
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) {
        perror("port 8080");
        return 1;
    }
    for (;;) {
        char request[2048] = "", answer[64];
        unsigned char reply[512];
        int connection = accept(listener, NULL, NULL);
        if (connection < 0 || read(connection, request, sizeof request - 1) <= 0) {
            close(connection);
            continue;
        }
        const char *body = told;
        if (strncmp(request, "GET /resolve ", 13) == 0) {
            double before = now_ms();
            int found = res_query("nowhere.example", C_IN, T_A, reply, sizeof reply);
            snprintf(answer, sizeof answer, "{\"found\":%d,\"ms\":%f}", found, now_ms() - before);
            body = answer;
        }
        dprintf(connection, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
        close(connection);
    }
}
