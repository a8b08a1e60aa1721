"""Linux capabilities by name: a mask as /proc/PID/status has it, in words that are the same where the masks are."""

from __future__ import annotations

_TEXT = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
NAMES = tuple(_TEXT.split())
"""By number, without `cap_`. Source: include/uapi/linux/capability.h."""

_LEAST_ALL = 38
"""How many kernels of the last ten years have at least (Linux 3.16): a full mask is no shorter."""
_FEW = 6


def names(mask: str) -> list[str]:
    """The capabilities of a hexadecimal mask, sorted; one that has no name here is `cap_N`. Raises ValueError."""
    bits = int(mask, 16)
    return sorted(
        NAMES[number] if number < len(NAMES) else f"cap_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    )


def said(mask: str) -> str:
    """`none`, `all`, `all but sys_admin`, or the names; `not told` for what is no mask."""
    try:
        found = names(mask)
    except ValueError:
        return "not told"
    length = int(mask, 16).bit_length()
    missing = sorted(set(NAMES[:length]) - set(found))
    if not found:
        return "none"
    if length >= _LEAST_ALL and len(missing) <= _FEW:
        return f"all but {', '.join(missing)}" if missing else "all"
    return ", ".join(found)
