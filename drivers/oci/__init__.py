"""The bare OCI runtime: a container from the same image with no daemon, which is what Docker starts in the end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from drivers import ociruntimes
from drivers.barehost.groups import EngineGroup
from drivers.barehost.overlay import Overlay
from drivers.barehost.relay import ADDRESS, Relay
from drivers.barehost.unpacked import Images, Unpacked, open_directory
from drivers.oci import bundle as bundles
from drivers.oci import runtime as runtimes
from drivers.oci.adopted import adopting
from drivers.oci.instance import CGROUPS, OciContainer, Record, container_id
from drivers.oci.runtime import Container, Runtime
from drivers.ociruntimes import gvisor
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import DriverError, DriverUnavailable, LabError, LaunchError
from lab.features import Feature
from lab.host import cgroup
from lab.host.cgroup_memory import killed_in
from lab.host.ownership import Owner
from lab.host.rlimits import granted
from lab.image.process import NO_NAMES, RESOLV_CONF, Process, hosts_file, surroundings
from lab.launch.ends import ChildWatch
from lab.launch.output import Output
from lab.service.build import build_enter
from lab.spec import Endpoint, Spec, new_nonce
from lab.store.place import require_exec
from lab.timeline import Phase, Source

BUNDLES = Path("/run/stratalab-oci")
"""Where bundles and the runtimes' own state lie: known to every later lab of this boot, after which they are void."""
_PIPE_BYTES = 1024 * 1024  # the kernel's default for pipe-max-size (pipe(7))
_NAMED = ("crun", "youki", "runsc")
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.COLD}
    | {Feature.ENGINE_PIDS, Feature.STORAGE, Feature.SLEEP, Feature.PEERS}
)


class OciDriver:
    """One OCI runtime with runc's command line, found in PATH; '' is runc, or else the first known one.

    The lab's own service runs in the host's network, on 127.0.0.1: there is no bridge without a daemon. Any other
    image, which may listen on every address, gets a network of its own and a relay.
    """

    name = "oci"
    # Hardly another in code.
    apart: ClassVar[frozenset[str]] = frozenset(_NAMED)

    def __init__(self, variant: str, context: Context) -> None:
        self._context = context
        self._variant = variant
        self._images = Images(context, "oci")
        self._kernel: bundles.Kernel | None = None
        self._rlimits = granted()
        self._enter: Path | None = None

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The default, and the runtimes that the lab knows; any other variant is looked up in PATH as well."""
        named = {name: f"a container with no daemon, by {ociruntimes.KNOWN[name].about}" for name in _NAMED}
        return {"": "a container by runc with no daemon; oci:NAME uses another OCI runtime, such as crun", **named}

    def info(self) -> Info:
        """What the runtime is, after it has made a container here. Raises DriverUnavailable with the reason."""
        runtime = runtimes.find(self._variant)
        version = runtime.version()
        require_exec(self._context.cache_dir)
        if os.geteuid() != 0:
            raise DriverUnavailable(f"{runtime.name} without a daemon needs root", resolution="run the lab with sudo")
        self._prove(runtime)
        limits = cgroup.places().limits
        _, missing = bundles.allowed_capabilities()
        return Info(
            engine=runtime.name,
            version=version,
            isolation=_isolation(runtime),
            features=_FEATURES | ({Feature.PINNING} if cgroup.offers("cpuset") else set()),
            facts={
                "program": str(runtime.path),
                **gvisor.facts(runtime.name, str(runtime.path)),
                "network": "the host's for the lab's own service; for other images their own, through a relay",
                "capabilities_missing": missing,
                "mandatory_access_control": "no profile, where Docker has one by default",
                "storage": "overlay over one copy of the image's files for each run",
                "limits": dict(limits),
                "surroundings": surroundings(
                    rlimits=self._rlimits,
                    seccomp="no filter",
                    names=NO_NAMES,
                ),
            },
            qualifiers={"network": "no bridge"},
        )

    def prepare(self, spec: Spec) -> None:
        """Unpack the image's files once for the run. Raises Unsupported, BadInput, DriverError."""
        self._image(spec)

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Write the bundle, create, start. Raises LaunchError after removing what it had made."""
        if endpoint is None:
            raise LaunchError("a container needs an endpoint on this host to answer at")
        runtime, image = runtimes.find(self._variant), self._image(spec)
        bundle = _make_bundle(spec)
        record = Record(
            labels=dict(spec.labels),
            runtime=str(runtime.path),
            scratch=str(self._images.folder() / container_id(spec.labels)),
            host=endpoint.host,
            port=endpoint.port,
            stop_signal=image.process.stop_signal,
        )
        instance = OciContainer(bundle, record)
        try:
            self._write(spec, endpoint, image, bundle, record)
            instance = self._run(runtime, spec, bundle, record, mark)
        except BaseException as error:
            problems = _undo(instance)
            if isinstance(error, OSError):
                raise LaunchError(
                    f"the bundle cannot be written: {error.strerror}", details="\n".join([str(error), *problems])
                ) from error
            if isinstance(error, DriverError):
                error.details = "\n".join(filter(None, [error.details, *problems]))
                if not isinstance(error, LaunchError | DriverUnavailable):
                    raise LaunchError(error.brief, details=error.details, resolution=error.resolution) from error
            raise
        return instance

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Those that have a bundle, in whatever state."""
        return [
            OciContainer(bundle, record)
            for bundle in _bundles()
            if bears((record := Record.read(bundle)).labels, labels)
        ]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Cgroups that no bundle tells of."""
        gone = sorted(CGROUPS.names() - {bundle.name for bundle in _bundles()})
        return [EngineGroup(CGROUPS, name) for name in gone if bears(cgroup.labels_of(name), labels)]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The image's files and the runtime. Raises DriverError."""
        return [self._image(spec).files, runtimes.find(self._variant).path]

    def others_running(self) -> Sequence[str]:
        """The containers in the runtime's usual place, where others that use it bare have theirs."""
        usual = Path("/run") / runtimes.find(self._variant).name
        return sorted(path.name for path in usual.iterdir() if path.is_dir()) if usual.is_dir() else ()

    def engine_pids(self) -> Mapping[int, str]:
        """None: the runtime ends once the service runs."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    def _prove(self, runtime: Runtime) -> None:
        """Have the runtime make a container whose program is an empty file, and remove it: a version does not tell
        whether it can on this kernel, with these cgroups. Raises DriverUnavailable."""
        spec = Spec(labels={"lab.run": "probe", "lab.scenario": "probe", "lab.owner": str(Owner.current())})
        spec = spec.for_launch()
        files = self._images.folder() / f"probe-{new_nonce()}"
        record = Record(labels=dict(spec.labels), runtime=str(runtime.path), scratch=str(files), host="", port=0)
        bundle = _make_bundle(spec)
        instance = OciContainer(bundle, record)
        try:
            for directory in (files, files / "rootfs", files / "upper", files / "work"):
                open_directory(directory)
            (files / "rootfs" / "probe").touch(mode=0o755)
            record.write(bundle)
            process = Process(argv=("/probe",), environment={}, cwd="/", uid=0, gid=0, groups=(0,))
            _write_names(bundle, _hostname(spec), own_network=False)
            self._write_config(spec, process, bundle, own_network=False)
            Overlay(lower=files / "rootfs", upper=files / "upper", work=files / "work").mount(bundle / "rootfs")
            runtime.create(Container(instance.id, bundle), subprocess.DEVNULL)
        except OSError as error:
            raise DriverUnavailable(
                f"no bundle can be made on this host: {error.strerror}",
                details=str(error),
                resolution=f"see that {files.parent} lies on a disk with room, which overlay can use",
            ) from error
        except DriverError as error:
            raise DriverUnavailable(
                f"{runtime.name} makes no container on this host: {error.brief}",
                details=error.details,
                resolution="try another runtime, such as oci:runc" if runtime.name != "runc" else "",
            ) from error
        finally:
            instance.delete()

    def _image(self, spec: Spec) -> Unpacked:
        if self._enter is None:
            self._enter = build_enter(self._context.cache_dir)
        return self._images.of(spec)

    def _write(self, spec: Spec, endpoint: Endpoint, image: Unpacked, bundle: Path, record: Record) -> None:
        scratch = Path(record.scratch)
        for directory in (scratch, scratch / "upper", scratch / "work"):
            open_directory(directory)
        record.write(bundle)
        if spec.cpuset:
            CGROUPS.give_cpus()
        own = spec.service_environment(host=endpoint.host, port=endpoint.port)
        process = replace(image.process, environment={**image.process.environment, **own})
        _write_names(bundle, _hostname(spec), own_network=not spec.builtin)
        self._write_config(spec, process, bundle, own_network=not spec.builtin)
        Overlay(lower=image.files, upper=scratch / "upper", work=scratch / "work").mount(bundle / "rootfs")

    def _write_config(self, spec: Spec, process: Process, bundle: Path, *, own_network: bool) -> None:
        if self._kernel is None:
            places = cgroup.places()
            held, _ = bundles.allowed_capabilities()
            self._kernel = bundles.Kernel(
                unified=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
                limits=frozenset(limit for limit, how in places.limits.items() if how.startswith("cgroup")),
                capabilities=held,
            )
        written = bundles.config(
            spec,
            process,
            self._kernel,
            bundle=bundle,
            hostname=_hostname(spec),
            rlimits=self._rlimits,
            cgroups_path=f"/{CGROUPS.name}/{bundle.name}",
            own_network=own_network,
        )
        file = bundle / "config.json"
        file.touch(mode=0o600)  # before it has content: it holds the service's environment
        file.write_text(json.dumps(written))

    def _run(self, runtime: Runtime, spec: Spec, bundle: Path, record: Record, mark: Mark) -> OciContainer:
        container = Container(container_id(spec.labels), bundle)
        endpoint = Endpoint(record.host, record.port)
        reading, writing = os.pipe()
        if runtime.has_kernel:
            # gVisor hands a full pipe's EAGAIN on to the service, however that has opened its output.
            with contextlib.suppress(OSError):  # more than this user may have
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        output = Output(reading, mark, name="a container")
        relay: Relay | None = None
        watch: ChildWatch | None = None
        try:
            with os.fdopen(writing, "wb") as pipe, adopting():
                runtime.create(container, pipe, enter=self._enter)
            pid, group = int(container.pid_file.read_text()), CGROUPS.of(bundle.name)
            watch = ChildWatch(
                pid,
                mark,
                output=output,
                memory_bytes=spec.memory_bytes,
                killed_for_memory=lambda: killed_in(group),
                itself=not runtime.has_kernel,
                reap=True,  # what a later process with its number is, the container's cgroup tells
            )
            mark(Phase.CREATED, source=Source.RETURN)
            if not spec.builtin:
                relay = Relay(endpoint, pid, spec.port)
            runtime.start(container)
            mark(Phase.STARTED, source=Source.RETURN)
        except BaseException as error:
            if watch is not None:
                watch.expect()
            if relay is not None:
                relay.close()
            if isinstance(error, DriverError):
                error.details = "\n".join(filter(None, [error.details, output.tail().decode(errors="replace")]))
            raise
        instance = OciContainer(bundle, record, output=output, relay=relay, watch=watch)
        if runtime.has_kernel:
            instance.note_children()
        return instance


def _isolation(runtime: Runtime) -> str:
    if not runtime.has_kernel:
        return f"namespaces ({runtime.name}, no daemon)"
    return f"{ociruntimes.isolation_of(runtime.name)}, no daemon, the host's network stack"


def _make_bundle(spec: Spec) -> Path:
    """A new bundle whose name tells its labels, so that it is found whenever the lab dies after this call."""
    try:
        BUNDLES.mkdir(mode=0o700, exist_ok=True)
        bundle = BUNDLES / cgroup.name_of(spec.labels)
        bundle.mkdir(mode=0o700)
        (bundle / "rootfs").mkdir()
    except OSError as error:
        raise LaunchError(f"a bundle cannot be made in {BUNDLES}: {error.strerror}", details=str(error)) from error
    return bundle


def _hostname(spec: Spec) -> str:
    return spec.labels["lab.launch"][:12]


def _write_names(bundle: Path, hostname: str, *, own_network: bool) -> None:
    """The container's own /etc/hosts and the like, to be mounted over the image's. Raises OSError."""
    files = {"hosts": hosts_file(hostname, ADDRESS if own_network else "127.0.0.1"), "hostname": f"{hostname}\n"}
    if own_network:
        files["resolv.conf"] = RESOLV_CONF
    for name, text in files.items():
        (bundle / name).write_text(text)
        (bundle / name).chmod(0o644)  # whatever the umask says


def _bundles() -> list[Path]:
    try:
        return sorted(path for path in BUNDLES.iterdir() if "lab.run" in cgroup.labels_of(path.name))
    except FileNotFoundError:
        return []
    except PermissionError:  # root's, as all that is in it; this user can have launched nothing
        return []


def _undo(instance: OciContainer) -> list[str]:
    try:
        instance.delete()
    except LabError as error:
        return [f"not cleaned up: {error}"]
    CGROUPS.remove_folders()
    return []
