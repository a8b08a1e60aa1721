"""Launches of whole guests: what they boot from, what each is given, and what is told of them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drivers.libvirt.console import Console, GuestEnd
from drivers.libvirt.domain import Plan, domain_xml
from drivers.libvirt.engine import translated
from drivers.libvirt.host import Host
from drivers.libvirt.instance import Connected, LibvirtInstance
from drivers.libvirt.media import own_folder, write_overlay
from drivers.libvirt.variants import Variant, Whole
from drivers.libvirt.whole import images, seed
from drivers.libvirt.whole.images import GuestImage
from drivers.libvirt.whole.instance import Login, WholeInstance
from drivers.libvirt.whole.keys import Keys, new_keys, sdk
from drivers.libvirt.whole.progress import Progress
from drivers.libvirt.whole.unit import (
    ENVIRONMENT_FILE,
    PROGRAM,
    RESTARTS,
    SERVICE_UNIT,
    TOLD_UNIT,
    WORKLOAD_UNIT,
    end_drop_in,
    ending_of,
    environment_file,
    service_unit,
    told_unit,
    workload_unit,
)
from drivers.libvirt.whole.way_in import WayIn
from lab.driver import Context, Mark
from lab.errors import Unsupported
from lab.features import Feature
from lab.image.process import surroundings
from lab.launch.waiter import reserve_port
from lab.service.build import build_service
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source
from lab.units import MIB

LEAST_MEMORY_BYTES = 512 * MIB
"""What a distribution needs to boot; a spec that declares less is given this, and its row says so."""
FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.COLD}
    | {Feature.ENGINE_PIDS, Feature.STORAGE, Feature.GUEST_MEMORY, Feature.PINNING}
    | {Feature.OWN_KERNEL, Feature.SLEEP, Feature.UNITS}
)
_LIKELY_S = {"kvm": 20.0, "tcg": 70.0}
"""A launch with its removal, roughly: where it is emulated, half of that is the CPU time of one CPU."""
_READY_TIMEOUT_S = 600.0
_STOP_TIMEOUT_S = 120.0
"""A distribution ends its own units one after the other, each within 90 s by systemd's default."""
_FOLDER = "guests"
_UNITS = "/etc/systemd/system"


class WholeGuests:
    """The whole guests of one driver: a variant's, of the image that the options choose."""

    def __init__(self, variant: Variant, name: str, context: Context) -> None:
        assert variant.whole is not None  # noqa: S101  the caller has looked
        self._machine = variant.machine
        self._how = variant.whole
        self._name = name
        self._context = context
        self._placed: GuestImage | None = None

    def facts(self, host: Host) -> Mapping[str, Any]:
        """What is told of them beside what is told of any guest. Raises DriverUnavailable, BadInput, Unsupported."""
        sdk()
        if self._how is Whole.CLOUD_INIT:
            seed.disk_library()
        image = self._chosen()
        return {
            "guest_image": {"suite": image.suite, "sha256": image.sha256, **image.facts},
            "guest_kernel": image.facts.get("kernel"),
            "guest_kernel_from": "the image's own" if image.kernel else "the image's own, by its boot loader",
            "guest_command_line": self._command_line(host, image),
            "whole_guest": self._how.value,
            "least_memory_bytes": LEAST_MEMORY_BYTES,
            "surroundings": surroundings(
                rlimits="systemd's defaults",
                seccomp="no filter",
                names="those that the guest's network tells, unanswered: it reaches nobody (restrict=on)",
                init="systemd, the distribution's: the service is a unit of it",
            ),
            "entropy": "virtio-rng from the host's /dev/urandom",
            "login": "root by SSH, forwarded from loopback; key and host key made for each launch",
            "restart": {str(policy): f"systemd's Restart={word}" for policy, word in RESTARTS.items()},
            "likely_s": _LIKELY_S[host.accel],
            "ready_timeout_s": _READY_TIMEOUT_S,
            "stop_timeout_s": _STOP_TIMEOUT_S,
            "stop_request": "ACPI's power button, then systemctl poweroff by SSH, then destroy",
        }

    def prepare(self, spec: Spec) -> GuestImage:
        """The image with its files in the run's directory. Raises Unsupported, BadInput, DriverError."""
        if not spec.builtin and spec.unit is None:
            raise Unsupported(
                f"libvirt:{self._name} boots a distribution and no image",
                resolution="choose libvirt:q35, which boots an image's root file system, or give --unit and --copy",
            )
        build_service(self._context.cache_dir)
        if self._placed is None:
            self._placed = images.placed(self._chosen(), self._context.run_dir / _FOLDER)
        return self._placed

    def files(self, spec: Spec) -> list[Path]:
        """What each launch reads. Raises as `prepare`."""
        image = self.prepare(spec)
        return [path for path in (image.kernel, image.initramfs, image.disk) if path is not None]

    def launch(self, connected: Connected, host: Host, spec: Spec, endpoint: Endpoint, mark: Mark) -> WholeInstance:
        """One guest; returns when libvirt has started it. Raises LaunchError, Unsupported, DriverUnavailable."""
        image, domains = self.prepare(spec), connected()
        spec = replace(spec, memory_bytes=max(spec.memory_bytes, LEAST_MEMORY_BYTES))
        identity = str(uuid.uuid4())
        name = f"lab-{self._name}-{identity[:13]}"
        folder = self._context.run_dir / name
        keys = new_keys()
        environment = spec.service_environment(host="0.0.0.0", port=spec.port)  # noqa: S104  the guest's own

        def text() -> bytes:
            return console.text()  # it is made below, with those that ask it

        end = GuestEnd(
            mark.failed,
            console=text,
            unasked=lambda: domains.watched(identity),
            memory_bytes=spec.memory_bytes,
        )
        progress = Progress(lambda how, status: _unit_ended(how, status, spec=spec, end=end, output=text))
        with contextlib.ExitStack() as undo:
            with own_folder(folder, undo, what="a guest's console, initramfs and disk"):
                console = Console(folder / "console", mark, end.line, end.gone, progress.shown)
                undo.callback(console.close)
                disk = write_overlay(image.disk, folder / "root.qcow2", size=image.virtual_bytes)
                initramfs, own_disk = self._own(image, spec, environment, keys, folder)
                ssh = Endpoint(endpoint.host, reserve_port())
            xml = domain_xml(
                Plan(
                    name=name,
                    uuid=identity,
                    machine=self._machine,
                    accel=host.accel,
                    spec=spec,
                    kernel=image.kernel,
                    initramfs=initramfs,
                    command_line=self._command_line(host, image),
                    console=console.path,
                    endpoint=endpoint,
                    disk=disk,
                    backing=image.disk,
                    backing_format="qcow2",
                    seed=own_disk,
                    oem_strings=seed.login_credentials(keys) if self._how is Whole.CREDENTIALS else (),
                    ssh=ssh,
                    cpu_quota=host.cpu_quota and not spec.cpus.is_integer(),
                )
            )
            domains.watch(identity, lambda: mark(Phase.STARTED, source=Source.EVENT), end.gone)
            undo.callback(domains.unwatch, identity)
            undo.callback(domains.abandon, identity)
            with translated("start the domain"):
                domain = domains.connection.createXML(xml, 0)
            mark(Phase.STARTED, source=Source.RETURN)
            undo.pop_all()
        inner = LibvirtInstance(connected, domain, labels=spec.labels, endpoint=endpoint, xml=xml, console=console)
        way_in = WayIn(ssh, keys)
        return WholeInstance(
            inner,
            folder=folder,
            environment=environment,
            way_in=way_in,
            login=Login(way_in, progress, mark),
            progress=progress,
            unit=spec.unit.name if spec.unit is not None else "",
        )

    def _chosen(self) -> GuestImage:
        image = images.chosen(self._context)
        if self._how is Whole.CREDENTIALS and (image.kernel is None or image.initramfs is None):
            raise Unsupported(
                f"libvirt:{self._name} boots the kernel of an image that the lab built, and this one was brought",
                resolution="choose libvirt:debian-cloud, or leave out --guest-image",
            )
        return image

    def _own(
        self, image: GuestImage, spec: Spec, environment: Mapping[str, str], keys: Keys, folder: Path
    ) -> tuple[Path | None, Path | None]:
        """The launch's own initramfs, or the run's; and its seed, where it has one. Raises OSError, BadInput."""
        units, placed = self._units(spec, environment)
        packed = seed.archive(placed, enabled=units, copies=spec.unit.copies if spec.unit else ())
        if self._how is Whole.CLOUD_INIT:
            iso = seed.no_cloud(packed, units, keys, instance=spec.labels.get("lab.launch", spec.nonce))
            return image.initramfs, _secret(folder / "seed.iso", iso)
        assert image.initramfs is not None  # noqa: S101  `_chosen` has looked
        return _secret(folder / "initramfs", seed.initramfs_with(image.initramfs, packed, keys)), None

    def _units(self, spec: Spec, environment: Mapping[str, str]) -> tuple[list[str], list[seed.Placed]]:
        """The units that are started, and they and what they need as files."""
        given = spec.unit
        texts = {TOLD_UNIT: told_unit()}
        placed = [seed.Placed(path=ENVIRONMENT_FILE, data=environment_file(environment).encode(), mode=0o600)]
        if given is None:
            texts[SERVICE_UNIT] = service_unit(spec)
            program = build_service(self._context.cache_dir).read_bytes()
            placed.append(seed.Placed(path=PROGRAM, data=program, mode=0o755))
        else:
            texts[given.name] = given.text
            texts[WORKLOAD_UNIT] = workload_unit(given.name, spec.nonce)
            drop_in = f"{_UNITS}/{given.name}.d/50-lab.conf"
            placed.append(seed.Placed(path=drop_in, data=end_drop_in(with_environment=bool(environment)).encode()))
        placed += [seed.Placed(path=f"{_UNITS}/{name}", data=text.encode()) for name, text in texts.items()]
        return list(texts), placed

    def _command_line(self, host: Host, image: GuestImage) -> str:
        """What the distribution's own boot loader would say, and that the kernel and systemd speak on the console."""
        if image.kernel is None:
            return ""
        words = [f"root={image.root}", "rw", "loglevel=6", "earlyprintk=serial,ttyS0,115200", "console=ttyS0,115200"]
        # Who prompts for a login there hangs the line up first: what was being written just then is lost.
        words += ["systemd.mask=serial-getty@ttyS0.service"]
        words += ["panic=-1", "systemd.show_status=true", "systemd.log_color=false"]
        words += ["cloud-init=disabled"] if self._how is Whole.CREDENTIALS else []
        # As for every emulated guest: its timers are late and not broken, and its locks cost nothing.
        words += ["no_timer_check", "noreplace-smp"] if host.accel == "tcg" else []
        return " ".join(words)


def _secret(path: Path, data: bytes) -> Path:
    """Not for all: libvirt gives it to QEMU's user."""
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def _unit_ended(how: str, status: str, *, spec: Spec, end: GuestEnd, output: Callable[[], bytes]) -> None:
    """The service's unit has ended: one that is started again is waited for."""
    if spec.restart is not Restart.BEST:
        end.tell(ending_of(how, status).error(memory_bytes=spec.memory_bytes, output=output()))
