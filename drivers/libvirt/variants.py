"""The variants: which machine of QEMU's a guest gets, and what of its kernel is left out.

That is by its command line (Documentation/admin-guide/kernel-parameters.txt) and the modules that it is given. Words
and start-up calls that a kernel does not know change nothing in it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drivers.libvirt.kernels.architecture import AARCH64, RISCV64, X86_64, Architecture

_SELF_TESTS = "cryptomgr.notests=1"
"""Of the kernel's ciphers, each at its registration (crypto/algboss.c): nothing that a service could see."""
_SELF_TEST_CALLS = ("crypto_kdf108_init",)
"""Start-up calls that do nothing but test: a key derivation (crypto/kdf_sp800108.c)."""


WITHOUT_PCI = frozenset({"microvm", "virt"})
"""QEMU's machines whose devices the lab puts on virtio-mmio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`what` is left out of a kernel, for a reader: by words of its command line, by start-up calls that are not made,
    by modules without their signatures (`unsigned`). `emulated`: only where that is dear, in an emulator."""

    what: str
    words: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    unsigned: bool = False
    emulated: bool = False


class Whole(enum.StrEnum):
    """How a whole guest is told what is one launch's own: with its initramfs and systemd's credentials, or by
    cloud-init."""

    CREDENTIALS = "credentials"
    CLOUD_INIT = "cloud-init"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """QEMU's `machine`, what it is in words, what of the guest's kernel is left out, and for which architecture; for a
    `whole` guest, how it learns what is this launch's own. One that `boots_itself` is a disk that the user brings, with
    all that is on it."""

    machine: str
    about: str
    left_out: tuple[Part, ...] = ()
    whole: Whole | None = None
    architecture: Architecture = X86_64
    boots_itself: bool = False

    @property
    def has_pci(self) -> bool:
        """Whether its devices are on PCI; else each has a place of its own in memory (virtio-mmio)."""
        return self.machine not in WITHOUT_PCI

    @property
    def unsigned(self) -> bool:
        """Whether the guest's modules come without their signatures."""
        return any(part.unsigned for part in self.left_out)

    def parts(self, accel: str) -> list[Part]:
        """What is left out where guests run by `accel`."""
        return [part for part in self.left_out if accel == "tcg" or not part.emulated]

    def words(self, accel: str) -> Iterator[str]:
        """The kernel's words for what is left out, the self-tests of every guest's among them."""
        yield _SELF_TESTS
        parts = self.parts(accel)
        for part in parts:
            yield from part.words
        calls = [*_SELF_TEST_CALLS, *(call for part in parts for call in part.calls)]
        yield f"initcall_blacklist={','.join(calls)}"


_LEAN = (
    Part(
        what="tracing and kprobes",
        calls=(
            "init_kprobes", "init_optprobes",
            "trace_eval_init", "trace_eval_sync", "tracer_init_tracefs", "event_trace_init", "event_trace_enable",
            "init_dynamic_event", "init_kprobe_trace", "init_trace_printk_function_export",
        ),
    ),
    Part(what="IPv6", words=("ipv6.disable=1",)),
    Part(what="Linux security modules", words=("lsm=capability", "apparmor=0")),
    Part(what="auditing", words=("audit=0",)),
    Part(what="zeroing of allocated memory", words=("init_on_alloc=0",)),
    Part(
        what="certificates, module signatures, IMA and EVM",
        calls=(
            "load_system_certificate_list", "blacklist_init", "platform_keyring_init", "machine_keyring_init",
            "init_encrypted", "init_ima", "init_evm",
        ),
        unsigned=True,
    ),
    Part(
        what="kernel functions for BPF, and CUBIC",  # each registration makes the kernel read its own type information
        calls=(
            "btf_module_init", "kfunc_init", "bpf_rstat_kfunc_init", "bpf_key_sig_kfuncs_init",
            "bpf_prog_test_run_init", "bpf_tcp_ca_kfunc_init", "cubictcp_register",
        ),
    ),
    Part(
        what="PS/2, a PC's speaker, serial ports but the console, /sys/kernel/slab",
        words=("8250.nr_uarts=1",),
        calls=("i8042_init", "add_pcspkr", "slab_sysfs_init"),
    ),
    Part(what="repeated string instructions", words=("clearcpuid=rep_good",), emulated=True),
)  # fmt: skip

VARIANTS: Mapping[str, Variant] = {
    "q35": Variant(machine="q35", about="QEMU's PC with PCI Express"),
    "pc": Variant(machine="pc", about="QEMU's older PC with PCI (i440FX)"),
    "microvm": Variant(machine="microvm", about="QEMU's minimal machine, without PCI"),
    "microvm-lean": Variant(
        machine="microvm",
        about=f"a microvm whose kernel starts without: {'; '.join(part.what for part in _LEAN)}",
        left_out=_LEAN,
    ),
    "arm64": Variant(
        machine="virt",
        about="another machine: a 64-bit Arm, always emulated, with a kernel for it",
        architecture=AARCH64,
    ),
    "riscv64": Variant(
        machine="virt",
        about="another machine: a 64-bit RISC-V, always emulated, with a kernel for it",
        architecture=RISCV64,
    ),
    "debian": Variant(
        machine="q35",
        about="a whole Debian: systemd, sshd, its own network, the service as a unit; built by `lab guest build`",
        whole=Whole.CREDENTIALS,
    ),
    "debian-cloud": Variant(
        machine="q35",
        about="the same Debian, or another image with --guest-image, set up by cloud-init (NoCloud)",
        whole=Whole.CLOUD_INIT,
    ),
    "disk": Variant(
        machine="q35",
        about="a disk image of yours, of any system, that boots by itself and serves: --guest-image, --sha256, --port",
        boots_itself=True,
    ),
}
