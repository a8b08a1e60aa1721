"""The service in a virtual machine of its own: QEMU through libvirt, with direct kernel boot and transient domains.

A launch is one `createXML`: it gives the labels, so that a domain exists never without them, and there is no `created`
apart from `started`. The guest's console tells `kernel`, `init`, `main` and `listening`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from drivers.libvirt import cold, kernel
from drivers.libvirt.console import Console, GuestEnd
from drivers.libvirt.domain import GUEST_GATEWAY, Plan, command_line, domain_xml
from drivers.libvirt.engine import connect, dotted, translated
from drivers.libvirt.host import Host, ask_host, slow_launch
from drivers.libvirt.instance import Domains, LibvirtInstance
from drivers.libvirt.joined import ALONE, Joined, next_address, why_no_vsock
from drivers.libvirt.joined import network as joining
from drivers.libvirt.kernels.architecture import X86_64
from drivers.libvirt.media import Media, may_have_vsock, own_folder, prepare_media, write_overlay
from drivers.libvirt.sleep import save_format
from drivers.libvirt.variants import VARIANTS
from drivers.libvirt.whole import disk as disks
from drivers.libvirt.whole import stock
from drivers.libvirt.whole.building import build
from drivers.libvirt.whole.instance import WholeInstance
from drivers.libvirt.whole.kept import place_of
from drivers.libvirt.whole.launching import FEATURES as FEATURES_OF_WHOLE
from drivers.libvirt.whole.launching import LEAST_MEMORY_BYTES, WholeGuests
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import DriverError, DriverUnavailable, LaunchError, Unsupported
from lab.features import Feature
from lab.host import procs
from lab.host.rlimits import granted
from lab.image.process import NO_NAMES, surroundings
from lab.service.build import cross_compiles
from lab.spec import Endpoint, Spec
from lab.store.place import filling
from lab.timeline import Phase, Source
from lab.units import MIB

_DEFAULT_VARIANT = "q35"
_DAEMON = re.compile(r"libvirtd|virt(qemu|log|lock|proxy|network|storage|secret|nodedev|nwfilter|interface)d")
"""libvirtd, or virtqemud and its kin, beside virtlogd and virtlockd (https://libvirt.org/daemons.html)."""
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.HOST_PIDS, Feature.COLD}
    | {Feature.ENGINE_PIDS, Feature.STORAGE, Feature.GUEST_MEMORY, Feature.PINNING}
    | {Feature.OWN_KERNEL, Feature.SLEEP, Feature.PEERS}
)


class LibvirtDriver:
    """QEMU through libvirt. Options: `kernel` (a path), `guest-kernel` (a version in the archive; for one target alone
    it stands behind its variant: `q35+6.12`), `accel` (kvm or tcg), `libvirt-uri`; of whole guests `suite`,
    `guest-image` and `sha256`; of a disk that boots by itself `firmware`, `bus` and `nic`."""

    apart: ClassVar[frozenset[str]] = frozenset(
        name for name, one in VARIANTS.items() if one.architecture is not X86_64
    )
    """Variants whose contract is tested when it is asked for by name (tests/contract/conftest.py)."""

    by_flag_only: ClassVar[frozenset[str]] = frozenset(name for name, one in VARIANTS.items() if one.boots_itself)

    whole_variants = tuple(name for name, variant in VARIANTS.items() if variant.whole)

    def __init__(self, variant: str, context: Context) -> None:
        """Asks no engine yet. Raises Unsupported for an unknown variant, BadInput for options that cannot be meant."""
        variant, chosen, version = variant.partition("+")
        if variant not in self.variants():
            raise Unsupported(f"libvirt has no variant '{variant}'", resolution="see `lab targets`")
        self.name = "libvirt"
        self.variant = variant or _DEFAULT_VARIANT
        self._variant = VARIANTS[self.variant]
        self._context = context
        self._wanted = kernel.Wanted(
            path=self._option("kernel"),
            version=version or chosen or self._option("guest-kernel"),
            architecture=self._variant.architecture,
            say=context.say,
        )
        self._whole = WholeGuests(self._variant, self.variant, context) if self._variant.whole else None
        self._lock = threading.Lock()
        self._domains: Domains | None = None
        self._host: Host | None = None
        self._media_lock = threading.Lock()
        self._prepared: list[tuple[Spec, Media]] = []

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        about = {name: variant.about for name, variant in VARIANTS.items()}
        return {"": f"a virtual machine as most are: the same as {_DEFAULT_VARIANT}", **about}

    def info(self) -> Info:
        """Raises DriverUnavailable, and BadInput for options that cannot be meant."""
        info = self._info()
        if self._variant.boots_itself:
            return replace(info, features=disks.FEATURES, facts={**info.facts, **disks.facts(self._context)})
        if self._whole is None:
            return info
        return replace(
            info,
            features=FEATURES_OF_WHOLE,
            qualifiers={**info.qualifiers, "memory": f"at least {LEAST_MEMORY_BYTES // MIB} MiB"},
            facts={**info.facts, **self._whole.facts(self._asked())},
        )

    def _info(self) -> Info:
        """What is told of any guest."""
        connection = self._connected().connection
        host = self._asked()
        if self._variant.architecture is not X86_64 and not cross_compiles():
            raise DriverUnavailable(
                f"the service cannot be built for {self._variant.architecture.debian} here",
                resolution="pip install 'stratalab[zig]'",
            )
        found = kernel.find(self._wanted, self._context.cache_dir)
        package = "" if found else kernel.fetchable(self._wanted, self._context.cache_dir)
        if found is None and not package and self._whole is None and not self._variant.boots_itself:
            raise DriverUnavailable(
                "there is no kernel for guests, and none can be fetched",
                resolution="sudo apt-get update, or give one with --kernel /boot/vmlinuz-RELEASE",
            )
        with translated("ask for its version"):
            mapped = "with" if save_format(connection) else "without"
            version, uri = dotted(connection.getLibVersion()), connection.getURI()
        emulator = host.emulator
        slow = slow_launch(connection)
        release = found.release if found else package.removeprefix("linux-image-")
        left_out = [part.what for part in self._variant.parts(host.accel)]
        return Info(
            engine="libvirt and QEMU",
            version=f"libvirt {version}, QEMU {emulator.version}",
            isolation="virtual machine, KVM" if host.accel == "kvm" else "virtual machine, emulated (TCG)",
            features=_FEATURES,
            qualifiers={"accel": host.accel} | ({"kernel": release} if self._wanted.version else {}),
            facts={
                "uri": uri,
                "libvirt_version": version,
                "qemu_version": emulator.version,
                "emulator": str(emulator.path),
                "machine": emulator.machine,
                "guest_kernel": found.release if found else None,
                "guest_kernel_from": found.origin if found else f"to be fetched: package {package}",
                "guest_command_line": self._command_line(host, Spec(nonce="NONCE"), disk=False),
                "kvm_proven": host.proof.proven,
                "kvm_reason": host.proof.told(),
                "surroundings": surroundings(
                    rlimits=granted(),
                    seccomp="no filter",
                    names=NO_NAMES,
                    init="the lab's own: the service is its child, and signals have their default effect on it",
                ),
                "entropy": "virtio-rng from the host's /dev/urandom, where the guest's kernel has its driver",
                "network": "QEMU's user mode, restrict=on, forwarded from loopback; where guests call their peers "
                "restrict=off, and beside it a bridge of the run's own",
                "limits": {
                    "memory": "the guest's own",
                    "swap": "none, as the guest has no swap",
                    "cpus": "virtual CPUs, and a cgroup quota for a fraction" if host.cpu_quota else "virtual CPUs",
                    "pids": "not set: a guest has no limit on processes",
                },
                "cpu_limit": "virtual CPUs, and a cgroup quota for a fraction" if host.cpu_quota else "virtual CPUs",
                **({"slow_launch": slow} if slow else {}),
                **({"left_out": left_out} if left_out else {}),
                "stop_request": "a line on the guest's console, then destroy",
                "saved_by": f"libvirt's save and restore: QEMU's migration to a file, {mapped} mapped-ram",
            },
        )

    def prepare(self, spec: Spec) -> None:
        """Write kernel, initramfs and, for a foreign image, the root disk into the run's directory, unless they are
        there; fetches the kernel where none is. Raises Unsupported, BadInput, DriverUnavailable."""
        if self._whole is not None:
            self._whole.prepare(spec)
        else:
            self._media(spec)

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        if endpoint is None or not ipaddress.ip_address(endpoint.host).is_loopback:
            raise LaunchError(f"a guest's port is forwarded from a loopback address, and {endpoint} is none")
        if self._whole is not None:
            return self._whole.launch(self._connected, self._asked(), spec, endpoint, mark)
        domains, host, media = self._connected(), self._asked(), self._media(spec)
        joined = self._joined(spec, domains, media)
        identity = str(uuid.uuid4())
        name = f"lab-{self.variant}-{identity[:13]}"
        folder = self._context.run_dir / name
        end = GuestEnd(
            mark.failed,
            console=lambda: console.text(),  # noqa: PLW0108  it is made below, with this
            unasked=lambda: domains.watched(identity),
            memory_bytes=spec.memory_bytes,
        )
        with contextlib.ExitStack() as undo:
            with own_folder(folder, undo, what="a guest's console and disk"):
                console = Console(folder / "console", mark, end.line, end.gone)
                undo.callback(console.close)
                disk = write_overlay(media.disk, folder / "root.qcow2", size=media.disk_bytes) if media.disk else None
                settings = disks.own_settings(media.hardware, folder)
            xml = domain_xml(
                Plan(
                    name=name,
                    uuid=identity,
                    machine=media.hardware.machine if self._variant.boots_itself else self._variant.machine,
                    architecture=self._variant.architecture,
                    accel=host.accel,
                    spec=spec,
                    kernel=media.kernel,
                    initramfs=media.initramfs,
                    command_line=self._command_line(host, spec, disk=disk is not None, joined=joined),
                    console=console.path,
                    endpoint=endpoint,
                    disk=disk,
                    backing=media.disk,
                    backing_format="raw" if media.disk_bytes is None else "qcow2",
                    hardware=media.hardware,
                    settings=settings,
                    entropy=media.entropy,
                    joined=joined,
                    cpu_quota=host.cpu_quota and not spec.cpus.is_integer(),
                )
            )
            domains.watch(
                identity,
                lambda: mark(Phase.STARTED, source=Source.EVENT),
                end.gone,
            )
            undo.callback(domains.unwatch, identity)
            undo.callback(domains.abandon, identity)
            with translated("start the domain"):
                domain = domains.connection.createXML(xml, 0)
            mark(Phase.STARTED, source=Source.RETURN)
            undo.pop_all()
        return LibvirtInstance(
            self._connected,
            domain,
            labels=spec.labels,
            endpoint=endpoint,
            xml=xml,
            console=console,
            joined=joined,
        )

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        found = [one for one in self._connected().all_of_the_lab(self._connected) if bears(one.labels, labels)]
        return [WholeInstance(one, folder=one.folder) if one.whole else one for one in found]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """The networks of runs whose guests call one another: a transient domain leaves nothing with libvirt, and the
        files lie in the run's directory."""
        with translated("list the networks"):
            return joining.networks(self._connected().connection, labels)

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        files = self._whole.files(spec) if self._whole is not None else self._media(spec).files
        return cold.launch_files(files, self._asked().emulator.path)

    def others_running(self) -> Sequence[str]:
        return cold.others_running(self._connected().connection)

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:  # noqa: ARG002  guests have no names
        """The port that its QEMU forwards from the host's loopback, to which user-mode networking leads by 10.0.2.2."""
        return GUEST_GATEWAY, published.port

    def engine_pids(self) -> Mapping[int, str]:
        """libvirt's daemons: one for all, or several; none with an embedded driver, whose process is the lab's."""
        with translated("ask for the connection's URI"):
            if urlsplit(self._connected().connection.getURI()).path == "/embed":
                return {}
        return {pid: entry.name for pid, entry in procs.table().items() if _DAEMON.fullmatch(entry.name)}

    def guest_build(self, suite: str, say: Callable[[str], None], *, mirror: str, again: bool) -> Mapping[str, Any]:
        cache_dir = self._context.cache_dir
        return stock.told(place_of(cache_dir, suite), build(cache_dir, suite, say=say, mirror=mirror, again=again))

    def guest_images(self) -> Sequence[Mapping[str, Any]]:
        return stock.images(self._context.cache_dir)

    def guest_remove(self, name: str) -> Mapping[str, Any]:
        return stock.remove(self._context.cache_dir, name)

    def close(self) -> None:
        with self._lock:
            domains, self._domains = self._domains, None
        if domains is not None:
            domains.close()

    def _connected(self) -> Domains:
        """The live connection, opened anew where it broke. Raises DriverUnavailable."""
        with self._lock:
            if self._domains is not None and not self._domains.alive():
                self._domains.close()
                self._domains = None
            if self._domains is None:
                self._domains = Domains(connect(self._option("libvirt-uri")))
            return self._domains

    def _asked(self) -> Host:
        """What this host can do for the variant; asked once."""
        if self._host is None:
            self._host = ask_host(
                self._connected().connection,
                self._variant.machine,
                accel=self._option("accel"),
                wanted=self._wanted,
                cache_dir=self._context.cache_dir,
            )
        return self._host

    def _media(self, spec: Spec) -> Media:
        """What `spec` boots from, made at the first call. Raises LabError."""
        wanted = _without_launch(spec)
        with self._media_lock:
            for known, media in self._prepared:
                if known == wanted:
                    return media
            media = self._made_media(spec)
            self._prepared.append((wanted, media))
            return media

    def _made_media(self, spec: Spec) -> Media:
        try:
            if self._variant.boots_itself:
                return disks.media(spec, self._context)
            cache = self._context.cache_dir
            found = kernel.find(self._wanted, cache)
            if found is None:
                found = kernel.obtain(self._wanted, cache)
                self._host = None  # without a kernel KVM could not be proven: it is asked anew
            with filling("what guests boot from", self._context.run_dir):
                return prepare_media(spec, self._variant, found, self._context)
        except OSError as error:
            raise DriverError(
                f"the guest's kernel, initramfs or disk could not be written: {error.strerror}",
                details=str(error),
                resolution=f"see that there is room in {self._context.run_dir} and {self._context.cache_dir}",
            ) from error

    def _joined(self, spec: Spec, domains: Domains, media: Media) -> Joined:
        """How a guest of `spec` is joined to its peers, and to this host, beside its user-mode network; its run's
        network is made unless it is there."""
        if not spec.peers or self._variant.boots_itself:
            return ALONE
        no_vsock = why_no_vsock(has_module=media.vsock)
        try:
            network = joining.provide(domains.connection, spec.labels)
        except DriverError as error:
            return Joined(vsock=not no_vsock, why_no_bridge=error.brief, why_no_vsock=no_vsock)
        mac, address = next_address()
        return Joined(network=network, mac=mac, address=address, vsock=not no_vsock, why_no_vsock=no_vsock)

    def _command_line(self, host: Host, spec: Spec, *, disk: bool, joined: Joined = ALONE) -> str:
        return command_line(self._variant, host.accel, spec, disk=disk, tsc_khz=host.tsc_khz, joined=joined)

    def _option(self, name: str) -> str:
        return self._context.options.get(name, "")


def _without_launch(spec: Spec) -> Spec:
    """What of a spec its media depend on: all but the launch's own labels and nonce, and what only a domain has."""
    peers = spec.peers if may_have_vsock(spec) else ""
    of_domain = replace(spec, peers=peers, alias="", cpuset=(), guest_panic=False, guest_clock_offset_s=0)
    return replace(of_domain, labels={}, nonce="")
