"""The XML of a domain, built by lxml (https://libvirt.org/formatdomain.html), and the labels that it bears."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.libvirt.joined import ALONE, Joined
from drivers.libvirt.kernels.architecture import X86_64, Architecture
from drivers.libvirt.labels import labels_element
from drivers.libvirt.variants import WITHOUT_PCI, Variant
from drivers.libvirt.whole.hardware import CARDS, USUAL, Hardware
from drivers.libvirt.xml import element as _e
from drivers.libvirt.xml import parsed, text_of
from lab.errors import Unsupported
from lab.features import GuestMemory
from lab.host.pinning import cpu_list
from lab.spec import Endpoint, Spec

if TYPE_CHECKING:
    from lxml import etree

QEMU_URI = "http://libvirt.org/schemas/domain/qemu/1.0"
GUEST_ADDRESS, GUEST_GATEWAY = "10.0.2.15/24", "10.0.2.2"
"""What QEMU's user-mode network gives its guest (qemu-system(1), -netdev user)."""
_PERIOD_US = 100_000
_TB_CACHE_MIB = 64
"""TCG's translations, which are thrown away when there is no more room: a guest needs some 40 MiB to become ready."""
_DISK_SLOT, _NETWORK_SLOT, _ENTROPY_SLOT, _SEED_SLOT = "0x10", "0x11", "0x12", "0x13"
_BRIDGE_SLOT, _VSOCK_SLOT = "0x14", "0x15"
"""Slots of the root PCI bus that neither QEMU nor libvirt uses of itself."""
_MIB = 1024 * 1024
_MEMORY_UNITS = {"b": 1, "bytes": 1, "KiB": 1024, "MiB": _MIB, "GiB": 1024 * _MIB}
"""Those that libvirt writes; it always writes KiB into the XML of a domain that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a domain's XML is made of; `machine` is QEMU's. Without `kernel` the disk boots by itself. A whole guest
    may have a `seed`, a disk that it only reads, and strings for its SMBIOS tables; `ssh` leads to its port 22."""

    name: str
    uuid: str
    machine: str
    accel: str
    spec: Spec
    kernel: Path | None
    initramfs: Path | None
    command_line: str
    console: Path
    endpoint: Endpoint
    disk: Path | None = None
    backing: Path | None = None
    backing_format: str = "raw"
    seed: Path | None = None
    oem_strings: Sequence[str] = ()
    ssh: Endpoint | None = None
    cpu_quota: bool = False
    entropy: bool = True
    architecture: Architecture = X86_64
    hardware: Hardware = USUAL
    settings: Path | None = None
    joined: Joined = ALONE


def domain_xml(plan: Plan) -> str:
    """The XML of `plan`'s transient domain. Raises Unsupported for sizes that QEMU cannot give exactly."""
    spec = plan.spec
    if spec.memory_bytes % _MIB:
        raise Unsupported(
            f"a virtual machine's memory is whole MiB, and {spec.memory_bytes} bytes are not",
            resolution="choose a multiple of 1 MiB",
        )
    held = cpu_list(spec.cpuset)
    domain = _e(
        "domain",
        _e("name", plan.name),
        _e("uuid", plan.uuid),
        _e("title", "Stratalab guest"),
        _e("metadata", labels_element(spec.labels)),
        _e("memory", str(spec.memory_bytes // 1024), unit="KiB"),
        _vcpu(spec, held),
        *_tuning(plan, held),
        _e(
            "os",
            _e("type", "hvm", arch=plan.architecture.name, machine=plan.machine),
            *_kernel(plan),
            *([_e("smbios", mode="sysinfo")] if plan.oem_strings else []),
        ),
        *_smbios(plan),
        _features(plan),
        *_cpu(plan),
        _clock(plan),
        _e("on_poweroff", "destroy"),
        # A disk may restart its machine as part of its first boot.
        _e("on_reboot", "restart" if plan.kernel is None else "destroy"),
        _e("on_crash", "destroy"),
        _devices(plan),
        _qemu_arguments(plan),
        prefixes={"qemu": QEMU_URI},
        type="kvm" if plan.accel == "kvm" else "qemu",
    )
    return text_of(domain)


def command_line(
    variant: Variant,
    accel: str,
    spec: Spec,
    *,
    disk: bool,
    tsc_khz: int | None = None,
    joined: Joined = ALONE,
) -> str:
    """The guest kernel's command line.

    `loglevel=6` leaves the kernel's notices and warnings on the console, so that it does not wait for the serial line
    much, and its first line comes as soon as it runs (earlyprintk). A panic ends the guest at once.
    """
    architecture = variant.architecture
    words = ["loglevel=6", architecture.early, f"console={architecture.console},115200", "panic=-1"]
    words += variant.words(accel)
    if architecture is X86_64:
        words.append("reboot=t")
    if accel == "tcg" and architecture is X86_64:
        words.append("no_timer_check")  # timers that an emulator delays are not broken
        words.append("noreplace-smp")  # locks cost nothing where one CPU is emulated, and taking 9,000 of them out does
        if variant.machine == "microvm" and tsc_khz:
            words.append(f"tsc_early_khz={tsc_khz}")  # no other timer is there to calibrate it by
            # Nor to check it by, but ticks: those that come late on a busy host would make the guest give up its clock.
            words.append("tsc=reliable")
    if launch := spec.labels.get("lab.launch"):
        words.append(f"lab.hostname={launch[:12]}")
    words += [f"lab.ip={GUEST_ADDRESS}", f"lab.gw={GUEST_GATEWAY}", f"lab.port={spec.port}", *joined.words()]
    if accel == "kvm" and spec.guest_clock_offset_s:
        words.append("no-kvmclock")  # by which the guest would learn the host's time
    if spec.nonce:
        words.append(f"lab.nonce={spec.nonce}")
        if spec.guest_panic:
            words.append(f"lab.panic={spec.nonce}")
    if disk:
        words += ["lab.root=/dev/vda", "lab.rootfstype=ext4"]
    return " ".join(words)


def vcpus(cpus: float) -> int:
    """How many virtual CPUs stand for `cpus`."""
    return max(1, math.ceil(cpus))


def endpoint_of(xml: str) -> Endpoint | None:
    """The host's side of the service's forwarding in a running domain's XML: the first."""
    root = parsed(xml)
    for argument in root.iter(f"{{{QEMU_URI}}}arg"):
        found = re.search(r"hostfwd=tcp:([0-9.]+):(\d+)-", argument.get("value", ""))
        if found:
            return Endpoint(found[1], int(found[2]))
    return None


def service_port_of(xml: str) -> int:
    """The guest's side of that forwarding; 0 where there is none."""
    for argument in parsed(xml).iter(f"{{{QEMU_URI}}}arg"):
        if found := re.search(r"hostfwd=tcp:[0-9.]+:\d+-:(\d+)", argument.get("value", "")):
            return int(found[1])
    return 0


def boots_itself(xml: str) -> bool:
    """Whether a running domain has no kernel beside its disk: what its boot loader boots is none of the lab's. (libvirt
    writes `boot` into every domain's.)"""
    return parsed(xml).find("os/kernel") is None


def has_ssh(xml: str) -> bool:
    """Whether a running domain's XML forwards to its guest's port 22 too."""
    arguments = parsed(xml).iter(f"{{{QEMU_URI}}}arg")
    return any(re.search(r",hostfwd=tcp:[0-9.]+:\d+-:22$", argument.get("value", "")) for argument in arguments)


def console_of(xml: str) -> Path | None:
    """The FIFO pair's common path in a running domain's XML."""
    root = parsed(xml)
    source = root.find("devices/serial/source")
    path = source.get("path") if source is not None else None
    return Path(path) if path else None


def boot_files_of(xml: str) -> dict[str, list[Path]]:
    """The files in a domain's XML that launches share: kernel, initramfs, and a foreign image's root disk."""
    root = parsed(xml)
    found = {
        "kernel": [root.findtext("os/kernel")],
        "initramfs": [root.findtext("os/initrd")],
        "root": [source.get("file") for source in root.findall("devices/disk/backingStore/source")],
    }
    named = {part: [Path(path) for path in paths if path] for part, paths in found.items()}
    return {part: paths for part, paths in named.items() if paths}


def guest_memory_of(xml: str) -> GuestMemory:
    """What a domain's XML gives its guest."""
    root = parsed(xml)
    memory, balloon = root.find("memory"), root.find("devices/memballoon")
    scale = _MEMORY_UNITS[memory.get("unit", "KiB")] if memory is not None else 0
    return GuestMemory(
        declared_bytes=int(root.findtext("memory") or 0) * scale,
        balloon=(balloon.get("model") if balloon is not None else None) or "none",
        free_page_reporting=balloon is not None and balloon.get("freePageReporting") == "on",
    )


def _kernel(plan: Plan) -> Iterator[etree._Element]:
    """Booted directly; without one the disk has a boot loader of its own."""
    if plan.kernel is None or plan.initramfs is None:
        if plan.hardware.uefi is not None:
            yield _e("loader", str(plan.hardware.uefi.code), readonly="yes", type="pflash")
            yield _e("nvram", str(plan.settings))
        yield _e("boot", dev="hd")
        return
    yield _e("kernel", str(plan.kernel))
    yield _e("initrd", str(plan.initramfs))
    yield _e("cmdline", plan.command_line)


def _smbios(plan: Plan) -> Iterator[etree._Element]:
    if plan.oem_strings:
        strings = (_e("entry", text) for text in plan.oem_strings)
        yield _e("sysinfo", _e("oemStrings", *strings), type="smbios")


def _clock(plan: Plan) -> etree._Element:
    """The guest's battery-backed clock (https://libvirt.org/formatdomain.html#time-keeping). Raises Unsupported."""
    offset_s = plan.spec.guest_clock_offset_s
    if not offset_s:
        return _e("clock", offset="utc")
    if plan.machine == "microvm" and plan.accel == "kvm":
        # QEMU, hw/i386/microvm.c: it gets its RTC only where there is no KVM to tell it the time.
        raise Unsupported(
            "a microvm under KVM has no clock of its own that could be wrong", resolution="choose libvirt:q35"
        )
    return _e("clock", offset="variable", adjustment=str(offset_s), basis="utc")


def _features(plan: Plan) -> etree._Element:
    features = _e("features")
    if plan.architecture is X86_64:  # elsewhere ACPI comes with a firmware, and these have a device tree
        features.append(_e("acpi"))
        if plan.machine not in WITHOUT_PCI:
            features.append(_e("apic"))
    if plan.accel == "tcg":
        features.append(_e("tcg", _e("tb-cache", str(_TB_CACHE_MIB), unit="MiB")))
    return features


def _cpu(plan: Plan) -> Iterator[etree._Element]:
    model = plan.architecture.cpu
    if plan.accel == "kvm":
        yield _e("cpu", mode="host-passthrough")
    elif model:
        yield _e("cpu", _e("model", model), mode="custom", match="exact")


def _vcpu(spec: Spec, held: str) -> etree._Element:
    vcpu = _e("vcpu", str(vcpus(spec.cpus)), placement="static")
    if held:
        vcpu.set("cpuset", held)
    return vcpu


def _tuning(plan: Plan, held: str) -> Iterator[etree._Element]:
    """The whole process's quota and CPUs: what QEMU itself uses counts too, as a container's every thread does. The
    virtual CPUs' threads are held by `<vcpu cpuset>`."""
    tuned = []
    if plan.cpu_quota:
        quota_us = max(1000, round(plan.spec.cpus * _PERIOD_US))
        tuned += [_e("global_period", str(_PERIOD_US)), _e("global_quota", str(quota_us))]
    if held:
        tuned.append(_e("emulatorpin", cpuset=held))
    if tuned:
        yield _e("cputune", *tuned)


def _devices(plan: Plan) -> etree._Element:
    devices = _e(
        "devices",
        _e("serial", _e("source", path=str(plan.console)), _e("target", port="0"), type="pipe"),
        _e("memballoon", model="none"),
        _e("controller", type="usb", index="0", model="none"),  # or libvirt adds one, for which a microvm has no bus
    )
    if plan.entropy:
        devices.append(_entropy(plan))
    if plan.disk is not None:
        devices.append(_disk(plan))
    if plan.seed is not None:
        devices.append(_seed(plan))
    devices.extend(plan.joined.interface(_address(plan, _BRIDGE_SLOT)))
    devices.extend(plan.joined.socket(_address(plan, _VSOCK_SLOT)))
    if plan.hardware.screen:
        devices.append(_e("video", _e("model", type="vga", vram="16384", heads="1")))
    return devices


def _disk(plan: Plan) -> etree._Element:
    disk = _e(
        "disk",
        _e("driver", name="qemu", type="qcow2", cache="unsafe"),
        _e("source", file=str(plan.disk)),
        _e("backingStore", _e("format", type=plan.backing_format), _e("source", file=str(plan.backing)), type="file"),
        _e("target", dev=plan.hardware.disk, bus=plan.hardware.bus),
        type="file",
        device="disk",
    )
    if plan.hardware.bus == "virtio":
        disk.append(_address(plan, _DISK_SLOT))
    return disk


def _seed(plan: Plan) -> etree._Element:
    """A virtio disk: Debian's cloud kernel of version 12 has no driver for a CD on q35."""
    return _e(
        "disk",
        _e("driver", name="qemu", type="raw"),
        _e("source", file=str(plan.seed)),
        _e("target", dev="vdb", bus="virtio"),
        _e("readonly"),
        _address(plan, _SEED_SLOT),
        type="file",
        device="disk",
    )


def _entropy(plan: Plan) -> etree._Element:
    """The host's random numbers, as virt-install gives every guest: without them the guest's kernel waits for a second
    of its own jitter before it gives any to a service."""
    source = _e("backend", "/dev/urandom", model="random")
    return _e("rng", source, _address(plan, _ENTROPY_SLOT), model="virtio")


def _address(plan: Plan, slot: str) -> etree._Element:
    if plan.machine in WITHOUT_PCI:
        return _e("address", type="virtio-mmio")
    # A place of our own on the root bus, or libvirt adds PCI Express ports that nothing else needs.
    return _e("address", type="pci", domain="0", bus="0", slot=slot, function="0")


def _qemu_arguments(plan: Plan) -> etree._Element:
    """The network as QEMU's own arguments: libvirt 9.0's `<interface type='user'>` can neither forward nor restrict."""
    forward = f"tcp:{plan.endpoint.host}:{plan.endpoint.port}-:{plan.spec.port}"
    if plan.ssh is not None:
        forward += f",hostfwd=tcp:{plan.ssh.host}:{plan.ssh.port}-:22"
    device = f"{CARDS[plan.hardware.card]},netdev=lab0,romfile=,addr={_NETWORK_SLOT}"
    if plan.machine in WITHOUT_PCI:
        device = "virtio-net-device,netdev=lab0"
    restrict = "off" if plan.spec.peers else "on"  # a peer is called by way of this host, as 10.0.2.2
    arguments = ("-netdev", f"user,id=lab0,restrict={restrict},ipv6=off,hostfwd={forward}", "-device", device)
    return _e(f"{{{QEMU_URI}}}commandline", *(_e(f"{{{QEMU_URI}}}arg", value=argument) for argument in arguments))
