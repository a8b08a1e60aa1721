/* The guest's interfaces, by ioctl: there is no iproute in an initramfs of one binary. */
#include "guest/network.h"

#include "guest/ending.h"
#include "guest/waiting.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define INTERFACE_WAIT_NS UINT64_C(10000000000)

static int control_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket: %s", strerror(errno));
    }
    return fd;
}

static void set_up(int fd, const char *name)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0) {
        die("flags of %s: %s", name, strerror(errno));
    }
    request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) {
        die("bring %s up: %s", name, strerror(errno));
    }
}

static void set_address(int fd, const char *name, unsigned long what, struct in_addr address)
{
    struct ifreq request = {0};
    struct sockaddr_in socket_address = {.sin_family = AF_INET, .sin_addr = address};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    memcpy(&request.ifr_addr, &socket_address, sizeof socket_address);
    if (ioctl(fd, what, &request) < 0) {
        die("address of %s: %s", name, strerror(errno));
    }
}

static void allow(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || (write(fd, value, strlen(value)) < 0 && errno != EINVAL)) { /* as for groups that a namespace lacks */
        dprintf(STDOUT_FILENO, "lab-guest error: %s: %s\n", path, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

void bring_up_loopback(void)
{
    int fd = control_socket();
    set_up(fd, "lo");
    close(fd);
    /* As Docker's containers have them (since 20.10): an image's user who is not root may listen on port 80, and
     * ping. */
    allow("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    allow("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
}

struct mac {
    unsigned char bytes[6];
    bool given;
};

static struct mac parse_mac(const char *text)
{
    struct mac mac = {.given = text != NULL};
    unsigned char *to = mac.bytes;
    char end;
    if (text && sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", to, to + 1, to + 2, to + 3, to + 4, to + 5, &end) != 6) {
        die("lab.peersmac=%s is no MAC", text);
    }
    return mac;
}

/* The first Ethernet interface in the order of its index whose MAC is, or is not, `mac`; true when there is one. */
static bool find_ethernet(int fd, const struct mac *mac, bool is, char *name)
{
    int first = 0;
    DIR *directory = opendir("/sys/class/net");
    if (!directory) {
        return false;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct ifreq request = {0};
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] == '.' || length >= IFNAMSIZ) {
            continue;
        }
        memcpy(request.ifr_name, entry->d_name, length);
        if (ioctl(fd, SIOCGIFHWADDR, &request) < 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER ||
            (mac->given && is != (memcmp(request.ifr_hwaddr.sa_data, mac->bytes, sizeof mac->bytes) == 0)) ||
            ioctl(fd, SIOCGIFINDEX, &request) < 0 || (first && request.ifr_ifindex > first)) {
            continue;
        }
        first = request.ifr_ifindex;
        memcpy(name, entry->d_name, length + 1);
    }
    closedir(directory);
    return first != 0;
}

static void bring_up(int fd, const char *address, const struct mac *mac, bool is)
{
    char name[IFNAMSIZ] = "", host[64];
    struct in_addr own, mask;
    const char *slash = strchr(address, '/');
    size_t length = slash ? (size_t)(slash - address) : strlen(address);
    int bits = slash ? atoi(slash + 1) : 24;
    if (length >= sizeof host || bits < 1 || bits > 32) {
        die("%s is no address", address);
    }
    memcpy(host, address, length);
    host[length] = '\0';
    if (inet_pton(AF_INET, host, &own) != 1) {
        die("%s is no address", address);
    }
    uint64_t deadline = monotonic_ns() + INTERFACE_WAIT_NS;
    while (!find_ethernet(fd, mac, is, name)) {
        if (monotonic_ns() > deadline) {
            die("no Ethernet interface appeared; is its driver among the modules?");
        }
        pause_briefly();
    }
    mask.s_addr = htonl(~UINT32_C(0) << (32 - bits));
    set_address(fd, name, SIOCSIFADDR, own);
    set_address(fd, name, SIOCSIFNETMASK, mask);
    set_up(fd, name);
}

void bring_up_second(const char *address, const char *mac)
{
    int fd = control_socket();
    struct mac wanted = parse_mac(mac);
    bring_up(fd, address, &wanted, true);
    close(fd);
}

void bring_up_ethernet(const char *address, const char *gateway, const char *other)
{
    struct in_addr next;
    int fd = control_socket();
    struct mac unwanted = parse_mac(other);
    bring_up(fd, address, &unwanted, false);
    if (gateway) {
        struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
        if (inet_pton(AF_INET, gateway, &next) != 1) {
            die("lab.gw=%s is no address", gateway);
        }
        struct sockaddr_in via = {.sin_family = AF_INET, .sin_addr = next}, any = {.sin_family = AF_INET};
        memcpy(&route.rt_gateway, &via, sizeof via);
        memcpy(&route.rt_dst, &any, sizeof any);
        memcpy(&route.rt_genmask, &any, sizeof any);
        if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST) {
            die("route by %s: %s", gateway, strerror(errno));
        }
    }
    close(fd);
}
