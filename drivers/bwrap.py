"""bubblewrap: the thinnest sandbox, a process in namespaces without an image, a daemon or root.

Its root is an empty tmpfs with the service, /proc, a /dev of its own and a bounded /tmp. All of bubblewrap's namespaces
are its own, the user's among them where this user may have it, but for the network: `--unshare-all --share-net`, as
those start it who want a service answered. It filters no system calls unless it is given a filter, and lets nobody gain
privileges.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from drivers.barehost import boxed
from drivers.barehost.boxed import INSIDE, Boxed
from drivers.barehost.child import Child
from drivers.barehost.labelled import instances
from drivers.barehost.limited import empty_groups, make_group
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverUnavailable, LaunchError, Unsupported
from lab.features import Feature
from lab.host import cgroup, programs
from lab.host.cgroup_memory import killed_in
from lab.host.procfs import read_fields
from lab.host.rlimits import granted
from lab.image.process import SCRATCH, TMP, Process, surroundings
from lab.launch.ends import Ending
from lab.service.build import build_enter, build_inside, build_service
from lab.spec import Endpoint, Spec
from lab.store.place import require_exec
from lab.timeline import Phase, Source

PROGRAM = "bwrap"

_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.COLD, Feature.ENGINE_PIDS}
    | {Feature.STORAGE, Feature.SLEEP, Feature.PEERS, Feature.PINNING}
)
_ASK_S = 10.0
_SERVICE = "/service"


class BwrapDriver:
    """bubblewrap's program, found in PATH. What it makes is found again by the processes' environment and the cgroup's
    name, as a bare process is; all else is in its namespaces, and goes with them."""

    name = "bwrap"

    def __init__(self, variant: str, context: Context) -> None:
        if variant:
            raise BadInput(f"'bwrap' has no variant '{variant}'", resolution="write 'bwrap'")
        self._context = context
        self._rlimits = granted()

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The one there is."""
        return {"": "a process in bubblewrap's namespaces, without an image, in the host's network"}

    def info(self) -> Info:
        """What it is, after it has made a sandbox here. Raises DriverUnavailable with the reason."""
        if not _there():
            raise DriverUnavailable(f"there is no {PROGRAM} on this host", resolution="sudo apt-get install bubblewrap")
        told = programs.run(
            [str(_there()[0]), "--version"], doing="tell its version", timeout_s=_ASK_S, error=DriverUnavailable
        ).stdout.decode(errors="replace")
        require_exec(self._context.cache_dir)
        user = _prove()
        return Info(
            engine="bubblewrap",
            version=told.split()[-1] if told.split() else "unknown",
            isolation="namespaces (bubblewrap, no daemon)",
            features=_FEATURES,
            facts={
                "isolates": "namespaces of mounts, processes, IPC, host name, cgroups"
                + (" and users" if user else "; not of users, which this host refuses"),
                "network": "the host's",
                "capabilities_more": boxed.more_capabilities(_leaves()),
                "capabilities_over": "its own user namespace alone" if user else "the host's",
                "no_new_privileges": "set",
                "image": "none: the lab's own service, read-only, in an empty tmpfs",
                "mandatory_access_control": "no profile",
                "exec": "by the lab, with the service's user and capabilities",
                "limits": dict(self._places.limits),
                "surroundings": surroundings(
                    rlimits=self._rlimits,
                    seccomp="no filter",
                    names="the host's",
                    init="bubblewrap's own, as process 1",
                    tmp=SCRATCH,
                ),
            },
            qualifiers={"network": "host network"},
        )

    def prepare(self, spec: Spec) -> None:
        """Build the programs. Raises Unsupported for any other image; LabError."""
        _require_own_service(spec)
        _ = self._programs

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Make the cgroup, then start the tool in it; return once it has told the sandbox's first process. Raises
        Unsupported, LaunchError."""
        _require_own_service(spec)
        if endpoint is None:
            raise LaunchError("a sandbox needs an endpoint on this host to answer at")
        enter, inside, service = self._programs
        group = make_group(spec, self._places)
        process = Process(argv=(_SERVICE, *(spec.command or ())), environment={}, cwd="/", uid=0, gid=0, groups=(0,))
        environment = {"HOME": "/", **spec.service_environment(host=endpoint.host, port=endpoint.port)}
        told, telling = os.pipe()
        argv = [
            *boxed.command(enter, spec, self._rlimits, group),
            *_arguments(),
            *("--hostname", spec.labels["lab.launch"][:12]),
            *("--info-fd", str(telling)),
            *("--perms", "1777", "--size", str(max(spec.scratch_bytes, 4096)), "--tmpfs", TMP),
            *("--ro-bind", str(service), _SERVICE),
            *("--ro-bind", str(inside), INSIDE),
            *("--", INSIDE),
        ]
        instance = self._instance(spec.labels, endpoint, group)
        output = b""
        try:
            description = boxed.described(process, environment, self._rlimits)
            try:
                started = boxed.started(argv, spec, endpoint, description, pass_fds=[telling])
            finally:
                os.close(telling)
            child = Child(
                started,
                mark,
                memory_bytes=spec.memory_bytes,
                killed_for_memory=lambda: killed_in(group),
                told_by=_ending,
            )
            instance = self._instance(spec.labels, endpoint, group, child=child)
            try:
                _await_told(told, mark)
            except BaseException:
                child.expect_end()
                child.await_output()
                output = child.tail()
                raise
        except BaseException as error:
            boxed.undo(instance, error, output)
            raise
        finally:
            os.close(told)
        return instance

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Those whose processes say so in their environment, where this user may read it, or by their cgroup."""
        found = instances(self.name, self._places)
        return [
            self._instance(one.labels, one.endpoint, group)
            for one, group in found.values()
            if bears(one.labels, labels)
        ]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Cgroups in which no process is, and to which no instance's processes belong."""
        return empty_groups(self.name, self._places, labels)

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The programs that a launch runs. Raises Unsupported for any other image; LabError."""
        _require_own_service(spec)
        return [*self._programs, *_there()]

    def others_running(self) -> Sequence[str]:
        """None: what others start by it runs without this driver."""
        return ()

    def engine_pids(self) -> Mapping[int, str]:
        """None: each sandbox has a process of the tool's beside it."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _places(self) -> cgroup.Places:
        return cgroup.places()

    @cached_property
    def _programs(self) -> tuple[Path, Path, Path]:
        cache = self._context.cache_dir
        return build_enter(cache), build_inside(cache), build_service(cache)

    def _instance(
        self, labels: Mapping[str, str], endpoint: Endpoint | None, group: cgroup.Group, *, child: Child | None = None
    ) -> Boxed:
        launch = labels.get("lab.launch", "")
        return Boxed(
            instance_id=launch,
            what=f"sandbox {launch}",
            tool=PROGRAM,
            labels=labels,
            endpoint=endpoint,
            group=group,
            way_in=self._way_in,
            program=self._programs[2],
            child=child,
        )

    def _way_in(self, pid: int) -> Sequence[str]:
        enter, inside, _ = self._programs
        entrances = [str(path) for path in cgroup.of_process(pid).entrances if os.access(path, os.W_OK)]
        return [str(enter), *entrances, "--", str(inside), "join", str(pid), "--"]


def _arguments() -> list[str]:
    """The tool's command line up to what a launch has of its own. As uid 0 inside, as every image's service is."""
    namespaces = ["--unshare-all", "--share-net"]
    user = [] if os.geteuid() == 0 else ["--uid", "0", "--gid", "0"]
    return [*map(str, _there()), *namespaces, *user, "--proc", "/proc", "--dev", "/dev", "--chdir", "/"]


def _there() -> list[Path]:
    """The tool's program; none where it is not installed."""
    found = shutil.which(PROGRAM)
    return [Path(found)] if found else []


def _prove() -> bool:
    """Have the tool make a sandbox, whose program is not there, which it tells last; whether it makes one with a user
    namespace of its own. Raises DriverUnavailable."""
    ran = _tried("--unshare-user")
    user = b"/probe" in ran.stderr
    if not user and os.geteuid() == 0:
        ran = _tried()
    if b"/probe" not in ran.stderr:
        raise DriverUnavailable(
            f"{PROGRAM} makes no sandbox on this host: {ran.said}",
            resolution="" if os.geteuid() == 0 else "allow users their own namespaces, or run the lab with sudo",
        )
    return user


def _tried(*more: str) -> programs.Ran:
    argv = [*_arguments(), *more, "--", "/probe"]
    return programs.run(argv, doing="make a sandbox", timeout_s=_ASK_S, check=False, error=DriverUnavailable)


def _leaves() -> int:
    """The capabilities that it leaves: of root all, over the sandbox's namespaces; of others none."""
    return int(read_fields(Path("/proc/self/status")).get("CapBnd", "0"), 16) if os.geteuid() == 0 else 0


def _ending(ending: Ending) -> Ending:
    """How the service ended: its status is bwrap's, and for a signal 128 and that one's number."""
    return boxed.by_code(ending)


def _await_told(descriptor: int, mark: Mark) -> None:
    """Return once the tool has told of the sandbox's first process, by `--info-fd`. Raises LaunchError."""
    deadline, text = time.monotonic() + boxed.START_TIMEOUT_S, b""
    while (left := deadline - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
        data = os.read(descriptor, 4096)
        text += data
        try:
            if json.loads(text or b"0"):
                mark(Phase.STARTED, source=Source.EVENT)
                return
        except ValueError:
            pass
        if not data:
            raise LaunchError(f"{PROGRAM} started no sandbox")
    raise LaunchError(f"{PROGRAM} did not tell within {boxed.START_TIMEOUT_S:g} s that the sandbox runs")


def _require_own_service(spec: Spec) -> None:
    if not spec.builtin:
        raise Unsupported(
            f"bubblewrap cannot run the image '{spec.image}': it has no store of images, and no network for one",
            resolution="leave 'bwrap' out of --targets, or leave out --image",
        )
