"""Counts to a million inside a KVM guest in long mode and writes the seconds that it took; run as its own process.

Standard library only, started with `python -I`, so that a hanging ioctl can be killed with it. Constants and
structures are those of <linux/kvm.h> for x86-64. A counted loop tells a CPU that runs guest code from a host that
opens /dev/kvm and interprets each instruction.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import sys
import time

_CREATE_VM, _GET_VCPU_MMAP_SIZE, _CREATE_VCPU, _RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
_SET_USER_MEMORY_REGION, _SET_REGS, _GET_SREGS, _SET_SREGS = 0x4020AE46, 0x4090AE82, 0x8138AE83, 0x4138AE84
_EXIT_HLT = 5
_LOOPS = 1_000_000
_MEMORY = 0x400000
_TABLES, _CODE = 0x1000, 0x8000


def _guest_memory() -> mmap.mmap:
    memory = mmap.mmap(-1, _MEMORY)
    for level in range(2):  # PML4 and PDPT point at the next page; the PD maps 2 MiB onto itself
        struct.pack_into("<Q", memory, _TABLES + level * 0x1000, (_TABLES + (level + 1) * 0x1000) | 3)
    struct.pack_into("<Q", memory, _TABLES + 2 * 0x1000, 0x83)
    # mov ecx, LOOPS; 1: dec ecx; jnz 1b; hlt
    memory[_CODE : _CODE + 10] = b"\xb9" + struct.pack("<I", _LOOPS) + b"\xff\xc9\x75\xfc\xf4"
    return memory


def _segment(kind: int, *, long_mode: bool) -> bytes:
    big = 0 if long_mode else 1
    return struct.pack("<QIH10B", 0, 0xFFFFFFFF, 8 if long_mode else 16, kind, 1, 0, big, 1, int(long_mode), 1, 0, 0, 0)


def _enter_long_mode(vcpu: int) -> None:
    special = bytearray(0x138)
    fcntl.ioctl(vcpu, _GET_SREGS, special)
    special[:24] = _segment(11, long_mode=True)
    for index in range(1, 6):  # ds, es, fs, gs, ss
        special[index * 24 : (index + 1) * 24] = _segment(3, long_mode=False)
    # cr0 = PE|PG (with ET, NE), cr2, cr3, cr4 = PAE, cr8, EFER = LME|LMA
    struct.pack_into("<QQQQQQ", special, 8 * 24 + 2 * 16, 0x80000031, 0, _TABLES, 0x20, 0, 0x500)
    fcntl.ioctl(vcpu, _SET_SREGS, special)
    registers = bytearray(0x90)
    struct.pack_into("<QQ", registers, 16 * 8, _CODE, 2)
    fcntl.ioctl(vcpu, _SET_REGS, registers)


def main() -> int:
    """Write the seconds of a million iterations to stdout, or the trouble to stderr."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    memory = _guest_memory()
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, _MEMORY, address))
    vcpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    shared = mmap.mmap(vcpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0))
    _enter_long_mode(vcpu)
    start = time.monotonic()
    fcntl.ioctl(vcpu, _RUN, 0)
    seconds = time.monotonic() - start
    (reason,) = struct.unpack_from("<I", shared, 8)
    if reason != _EXIT_HLT:
        sys.stderr.write(f"the guest ended with KVM exit {reason} instead of its HLT\n")
        return 1
    sys.stdout.write(f"{seconds:.6f}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as trouble:
        sys.stderr.write(f"{trouble.strerror}\n")
        sys.exit(1)
