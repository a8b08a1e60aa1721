/* Giving up what a root process could do beyond any other, for good. */
#include "surface/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY 65534

bool drop_privileges(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}}, left[_LINUX_CAPABILITY_U32S_3];
    pid_t parent = getppid();
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 ||
                           setresuid(NOBODY, NOBODY, NOBODY) != 0)) {
        return false;
    }
    /* By hand, since securebits can keep them through a change of user; kernels without ambient ones have none. */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    syscall(SYS_capset, &header, none);
    if (syscall(SYS_capget, &header, left) != 0) {
        return false;
    }
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        if (left[i].effective | left[i].permitted | left[i].inheritable) {
            return false;
        }
    }
    uid_t real, effective, saved;
    if (getresuid(&real, &effective, &saved) != 0 || real == 0 || effective == 0 || saved == 0) {
        return false;
    }
    /* The kernel undoes these two when a process changes its user; without the second, /proc/self is root's. */
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0 && getppid() == parent;
}
