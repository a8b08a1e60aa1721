/* What the guest is called, and whom it asks for other names: as every engine tells a container. */
#include "guest/names.h"

#include "guest/files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void tell_names(const char *hostname, const char *address, const char *resolv_conf)
{
    char text[1024];
    int own = address ? (int)strcspn(address, "/") : 0;
    if (sethostname(hostname, strlen(hostname)) < 0) {
        dprintf(STDOUT_FILENO, "lab-guest error: hostname: %s\n", strerror(errno));
    }
    make_directories("/etc", 0755);
    snprintf(text, sizeof text, "%s\n", hostname);
    replace_file("/etc/hostname", text);
    snprintf(text, sizeof text, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%.*s\t%s\n",
             own ? own : 9, own ? address : "127.0.0.1", hostname);
    replace_file("/etc/hosts", text);
    if (resolv_conf) {
        replace_file("/etc/resolv.conf", resolv_conf);
    }
}
