"""A function without a cloud: the lab's service, started by its first connection and ended when nobody calls.

| variant | who keeps the socket | who takes a call |
|---|---|---|
| `activator` | the lab's own activator (activator.py) | the service, which is given the socket |
| `proxyd` | the same | systemd-socket-proxyd, which forwards to the service, as to any other program |
| `systemd` | this host's systemd, by transient units (units.py) | the service, which is given the socket |

The default is `systemd` where one manages this host, or this user's session, and else `activator`.
`systemd-socket-activate` is none of these: it becomes the program at the first connection, and what comes after that
has ended is refused.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from drivers.barehost.labelled import instances
from drivers.barehost.limited import empty_groups, make_group
from drivers.socket import activator, units
from drivers.socket.options import keep_alive_s
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverUnavailable, LaunchError, Unsupported
from lab.features import Feature
from lab.host import cgroup
from lab.host.procfs import read_text
from lab.host.programs import run
from lab.host.rlimits import granted
from lab.image.process import surroundings
from lab.service.build import build_activator, build_enter, build_service
from lab.spec import Endpoint, Spec
from lab.store.place import require_exec

_VARIANTS = {
    "activator": "behind the lab's own activator, which starts it at the first connection",
    "proxyd": "behind systemd-socket-proxyd, which the lab's own activator starts at the first connection",
    "systemd": "behind systemd's own socket activation, by transient units",
}
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.HOST_PIDS, Feature.ENGINE_PIDS, Feature.STORAGE, Feature.COLD, Feature.PINNING}
    | {Feature.RESTART, Feature.SLEEP, Feature.FUNCTION}
)
_RESTART = "anew at the next connection"
_PROXYD = "systemd-socket-proxyd"
_PROXYD_DIRS = ("/usr/lib/systemd", "/lib/systemd")


class SocketDriver:
    """Functions behind a listening socket. What is made is found again by the processes' environment and the cgroup's
    name, or by its units' names and descriptions."""

    name = "socket"

    def __init__(self, variant: str, context: Context) -> None:
        if variant not in self.variants():
            known = ", ".join(f"socket:{one}" for one in _VARIANTS)
            raise BadInput(f"'socket' has no variant '{variant}'", resolution=f"write socket, or {known}")
        self._variant = variant or _default()
        self._by_default = not variant
        self._context = context
        self._keep_alive_s = keep_alive_s(context.options)
        self._programs: activator.Programs | None = None
        self._rlimits = granted()

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The default is what this host has; each is told in a line."""
        return {"": f"the same as {_default()}", **_VARIANTS}

    def info(self) -> Info:
        """What starts a function here, and how long an idle one stays. Raises DriverUnavailable."""
        if platform.system() != "Linux":
            raise DriverUnavailable(f"this is {platform.system()}, and the lab needs Linux's /proc")
        require_exec(self._context.cache_dir)
        engine, version, limits = "Linux", platform.release(), dict(self._places.limits)
        if self._variant == "systemd":
            where = units.manager()
            engine, version, limits = "systemd", where.version(), where.limits()
        if self._variant == "proxyd":
            said = run([str(_proxyd()), "--version"], doing="tell its version", timeout_s=10).stdout.decode()
            engine, version = _PROXYD, said.partition("\n")[0].removeprefix("systemd ")
        return Info(
            engine=engine,
            version=version,
            isolation="none (a process among the host's)",
            features=_FEATURES,
            # What the default is differs from host to host, and its figures with it.
            qualifiers={"activation": self._variant} if self._by_default else {},
            facts={
                "limits": limits,
                "restart": {"default": _RESTART, "best": _RESTART},
                "keep_alive_s": self._keep_alive_s,
                "activation": _VARIANTS[self._variant],
                "surroundings": surroundings(
                    rlimits=self._rlimits,
                    seccomp="no filter",
                    names="the host's",
                    init="the host's: the service is a child of what keeps the socket",
                    oom_score_adj=read_text(Path("/proc/self/oom_score_adj")) or "not known",
                    tmp="not limited: the host's own",
                ),
            },
        )

    def prepare(self, spec: Spec) -> None:
        """Build the programs. Raises Unsupported for any other image; LabError."""
        _require_own_service(spec)
        self._built()

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Listen, and have the activator (in its cgroup) or systemd hold the socket; nothing of the service runs yet.
        Raises Unsupported, LaunchError."""
        _require_own_service(spec)
        if endpoint is None:
            raise LaunchError("a function behind a socket needs an endpoint to listen at")
        programs = self._built()
        if self._variant == "systemd":
            return units.start(
                units.manager(),
                programs.service,
                spec,
                endpoint,
                mark,
                run_dir=self._context.run_dir,
                rlimits=self._rlimits,
                keep_alive_s=self._keep_alive_s,
            )
        group = make_group(spec, self._places)
        try:
            return activator.start(
                programs,
                spec,
                endpoint,
                mark,
                group=group,
                rlimits=self._rlimits,
                keep_alive_s=self._keep_alive_s,
            )
        except BaseException:
            group.remove()
            raise

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Those whose processes say so in their environment, where this user may read it, or by their cgroup, and
        those that systemd knows."""
        found: list[Instance] = [
            activator.ActivatedInstance(labels=one.labels, endpoint=one.endpoint, group=group)
            for one, group in instances(self.name, self._places).values()
        ]
        if units.manages():
            found += units.found(units.manager())
        return [one for one in found if bears(one.labels, labels)]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Cgroups in which no process is, and to which no instance's processes belong."""
        return empty_groups(self.name, self._places, labels)

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The programs that a launch runs. Raises Unsupported for any other image; LabError."""
        _require_own_service(spec)
        programs = self._built()
        every = (programs.service, programs.enter, programs.activator, programs.proxy)
        if self._variant == "systemd":
            return [programs.service]
        return [program for program in every if program is not None]

    def others_running(self) -> Sequence[str]:
        """None: every other process of the host runs without this driver."""
        return ()

    def engine_pids(self) -> Mapping[int, str]:
        """The systemd that keeps the sockets; none where each function has an activator of its own."""
        return units.manager().pids() if self._variant == "systemd" else {}

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _places(self) -> cgroup.Places:
        return cgroup.places()

    def _built(self) -> activator.Programs:
        if self._programs is None:
            cache = self._context.cache_dir
            self._programs = activator.Programs(
                service=build_service(cache),
                enter=build_enter(cache),
                activator=build_activator(cache),
                proxy=_proxyd() if self._variant == "proxyd" else None,
            )
        return self._programs


def _default() -> str:
    """The variant that is right on this host: by files alone, no engine is asked."""
    return "systemd" if units.manages() else "activator"


def _proxyd() -> Path:
    """Raises DriverUnavailable."""
    found = shutil.which(_PROXYD, path=":".join(_PROXYD_DIRS))
    if found is None:
        raise DriverUnavailable(
            f"there is no {_PROXYD} in {' or '.join(_PROXYD_DIRS)}", resolution="apt-get install systemd"
        )
    return Path(found)


def _require_own_service(spec: Spec) -> None:
    if not spec.builtin:
        raise Unsupported(
            f"a function behind a socket cannot run the image '{spec.image}': it has no root filesystem of its own",
            resolution="leave 'socket' out of --targets, or leave out --image",
        )
