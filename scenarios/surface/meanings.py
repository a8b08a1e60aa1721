"""What the probes of `surface` look at, why a difference in them matters, and where that is documented."""

from __future__ import annotations

from collections.abc import Mapping

from lab.figures.evidence import Meaning

_CAPABILITIES = "capabilities(7)"
_NAMESPACES = "namespaces(7)"
_PROC = "proc(5)"
_SYSCTL = "Documentation/admin-guide/sysctl/kernel.rst"
_SECCOMP = "Documentation/userspace-api/seccomp_filter.rst"
_STATUS = "proc_pid_status(5)"

INSIDE: Mapping[str, Meaning] = {
    "kernel": Meaning(
        "Which kernel the workload runs on: the random id of its boot, its release, the machine that it is for, "
        "what /proc/version says of its build, and whether its machine can tell it that it was copied.",
        "With the host's boot id the workload calls the very kernel that the host runs: a fault in it that it can "
        "reach is the host's fault. With one of its own, a guest's kernel, or one in user space, stands between. A "
        "program for another machine runs in a container too (qemu-user): uname then names that machine, and boot id, "
        "release and /proc/version are still the host's.",
        "random(4)",
    ),
    "host name": Meaning(
        "Whether the workload sees the host's name.",
        "A name of its own comes with a UTS namespace or a kernel of its own; the host's name tells where it runs.",
        "uts_namespaces(7)",
    ),
    "namespaces": Meaning(
        "Which of its namespaces are the host's, compared by their numbers where the kernel is the host's as well.",
        "Each kind of namespace hides one kind of the kernel's resources: processes, mounts, network, users, names. "
        "What is shared is seen and used as the host's own processes do; the kernel itself is never divided by them.",
        _NAMESPACES,
    ),
    "processes in sight": Meaning(
        "Whose processes /proc shows it.",
        "What it sees by number it can ask about and, being the same user or capable of it, signal and trace.",
        "pid_namespaces(7)",
    ),
    "user": Meaning(
        "Its user, groups, and how its user ids are mapped to those outside.",
        "Where ids are not mapped, uid 0 inside is uid 0 to the kernel that it runs on: held back by capabilities, "
        "namespaces and filters alone. What escapes such a container as uid 0 is the host's root user.",
        "user_namespaces(7)",
    ),
    "capabilities": Meaning(
        "Which parts of root's power it has (effective), can take up (permitted), hands on (inheritable, ambient), and "
        "can at most gain by running a program (bounding).",
        "A capability acts on the namespaces that it is held in, and a few, such as sys_module or sys_rawio, on the "
        "whole kernel. Equal sets on different kernels are not equal rights: all of them in a guest rule the guest.",
        _CAPABILITIES,
    ),
    "seccomp": Meaning(
        "Whether its system calls pass a filter first.",
        "A filter refuses calls before the kernel's code for them runs, which keeps faults there out of reach. It can "
        "be tightened, and never taken off again, by the process.",
        _SECCOMP,
    ),
    "no new privileges": Meaning(
        "Whether the kernel was told (`yes`) that no set-user-ID program may give it rights that it has not.",
        "Where it is not, such a program in its file system (or a file capability) may raise it, up to its "
        "bounding set.",
        "Documentation/userspace-api/no_new_privs.rst",
    ),
    "security module": Meaning(
        "The profile by which a security module of its kernel (AppArmor, SELinux) judges it; `none` without a module.",
        "A profile refuses by path or label, also to root: it holds where capabilities and modes would not.",
        "Documentation/admin-guide/LSM/index.rst",
    ),
    "devices": Meaning(
        "The device files below its /dev, and which it may read and write: asked of the kernel by access, since "
        "opening some of them does something (a watchdog starts to count).",
        "A device file is a way to a driver. A disk of the host's, /dev/mem or /dev/kvm are the host's; in a guest all "
        "of them belong to its own virtual hardware.",
        "Documentation/admin-guide/devices.rst",
    ),
    "mounts": Meaning(
        "Its file systems, whether its root may be written, how mounts spread, and what is laid over /proc and /sys.",
        "A shared mount hands mounts made on either side to the other, a slave takes the host's, a private one none. "
        "What covers parts of /proc and /sys keeps the kernel's controls out of reach.",
        "mount_namespaces(7)",
    ),
    "kernel files": Meaning(
        "Of a declared list of files that reach beyond one process, those it may write, those that tell of the kernel "
        "and may be read, and those that something else covers. Modes and mounts are asked; nothing is tried.",
        "core_pattern or modprobe name a program that the kernel starts as root, outside of every container; "
        "sysrq-trigger can halt that kernel. A file may still refuse on opening, as kcore does without its capability.",
        "proc_sys_kernel(5), core(5)",
    ),
    "writable": Meaning(
        "Every file of /proc (but for processes' own) and /sys that it may write, by modes, capabilities and mounts.",
        "These files are the kernel's controls. One that is not of a namespace is the whole kernel's: the host's where "
        "the kernel is shared, its own alone in a guest.",
        "proc_sys(5)",
    ),
    "kernel addresses": Meaning(
        "Whether /proc/kallsyms tells it where the kernel's functions lie.",
        "Addresses defeat the random placement of the kernel, which an exploit must guess otherwise.",
        f"{_SYSCTL}, kptr_restrict",
    ),
    "kernel log": Meaning(
        "Whether it may ask for the kernel's messages, by the system call and by the device.",
        "The log is not divided by namespaces: it tells of the host's hardware, addresses and other workloads.",
        "syslog(2)",
    ),
    "kernel memory": Meaning(
        "Whether /proc/kcore, the memory of its kernel as a file, can be opened and its header read.",
        "It holds every secret of every process on that kernel.",
        "proc_kcore(5)",
    ),
    "settings": Meaning(
        "What its kernel's settings for profiling, BPF, addresses, the log, user namespaces, tracing and modules are, "
        "as it reads them; some are there in some distributions' kernels only.",
        "They bound what a process, most of them one without privileges, may ask of the kernel. Where the kernel is "
        "shared they are the host's, for all workloads at once; max_user_namespaces is of its user namespace, and of "
        "those around it.",
        f"{_SYSCTL} and user.rst",
    ),
    "user namespaces": Meaning(
        "Whether it can make a user namespace, and a further namespace by the rights that this gives: tried, by a "
        "process that ends at once.",
        "In a new one any user holds every capability over it, unless a security module takes them back, and so "
        "reaches code of the kernel that is otherwise kept for root; many of the faults found in recent years need "
        "this first.",
        "user_namespaces(7)",
    ),
    "bpf": Meaning(
        "Whether it can make the smallest BPF map: tried, by a process that ends at once.",
        "BPF runs a workload's code within the kernel, behind a verifier whose faults have given away the host.",
        "bpf(2)",
    ),
    "cgroup": Meaning(
        "Whether it sees its place among the host's cgroups, and could change the groups' files.",
        "The path tells what runs it and its id. Who may write there can lift its own limits, and in version 1, with "
        "sys_admin, name a program (release_agent) that the host's kernel starts.",
        "cgroup_namespaces(7), cgroups(7)",
    ),
    "clock": Meaning(
        "Whether its monotonic clock is the host's, which this launch proved or did not.",
        "A shared clock tells of the host's uptime and is a means to agree with others on the host in time.",
        "time_namespaces(7)",
    ),
    "system calls": Meaning(
        "Which of the system calls tried were refused it, with the error. Each is tried once, by a process that ends, "
        "with arguments that do nothing; those without any such form are not tried.",
        "Each call that is let through is code of the kernel that the workload can run. EPERM may come of a "
        "filter or of a missing right; ENOSYS of a kernel without the call, or of a filter older than it.",
        "syscalls(2)",
    ),
}

OUTSIDE: Mapping[str, Meaning] = {
    "host processes": Meaning(
        "By role, the processes of this host that exist because of the instance.",
        "Each is one more program that runs with rights on the host: an engine's helper often with all of root's.",
        _PROC,
    ),
    "its process": Meaning(
        "Of the processes in which the workload's own code runs (a virtual machine's monitor runs its kernel too): "
        "user, rights, filter, namespaces, root, groups and what they hold open, as the host's kernel tells.",
        "This is what is left on the host to whoever breaks out of the workload's kernel or runtime: a monitor's user "
        "and filter count then, whatever root inside the guest had.",
        _STATUS,
    ),
    "shim": Meaning(
        "The rights of the process that the engine keeps beside each container.",
        "It runs outside the container's namespaces, as root where the engine does, and talks to it by pipes.",
        _STATUS,
    ),
    "proxy": Meaning(
        "The rights of the process that carries the published port's traffic.",
        "It takes connections on the host on the workload's behalf.",
        _STATUS,
    ),
    "helper": Meaning(
        "The rights of other processes of the engine's for this instance.",
        "They serve files, the network or the like to the workload from outside of it.",
        _STATUS,
    ),
}
