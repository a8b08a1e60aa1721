"""How a container of a bare runtime sleeps: frozen by its cgroup, or written to files by CRIU, which runc asks to."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from drivers.oci.runtime import Container, Runtime
from lab.errors import DriverError, LabError
from lab.features import SleepState
from lab.host import cgroup, programs
from lab.store.place import remove_tree

_ONCE = "an OCI runtime starts a container once: one that has ended can only be deleted"
_SAVES = "runc"
_CHECK_S = 10.0


def states(runtime: str, *, own_network: bool) -> Mapping[SleepState, str]:
    """Each state that OCI runtimes know, and why `runtime` cannot put a container into it here. Takes a moment: CRIU
    looks at this kernel."""
    freezes = cgroup.offers("freezer") or Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return {
        SleepState.PAUSED: "" if freezes else "this kernel offers no cgroup freezer",
        SleepState.STOPPED: _ONCE,
        SleepState.SAVED: _not_saved(runtime, own_network=own_network),
    }


class Saved:
    """What a container that was written to `folder` needs when it comes back. While it sleeps this holds on to the
    pipe that it wrote to, which would else have ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._output: int | None = None

    def save(self, runtime: Runtime, container: Container, pid: int) -> None:
        """Raises DriverError, after which the container runs on."""
        self.forget()
        try:
            self.folder.mkdir(mode=0o700)
            self._output = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DriverError(f"container {container.id} cannot be saved: {error.strerror}") from error
        try:
            runtime.checkpoint(container, self.folder)
        except DriverError:
            self.forget()
            raise

    def restore(self, runtime: Runtime, container: Container) -> None:
        """Raises DriverError; the files stay as they are either way."""
        if self._output is None:
            raise DriverError(f"container {container.id} was not saved by this lab, and what it wrote to is gone")
        runtime.restore(container, self.folder, self._output)
        self._let_go()

    def forget(self) -> None:
        """Remove the files. Idempotent."""
        self._let_go()
        remove_tree(self.folder)

    def _let_go(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            with contextlib.suppress(OSError):
                os.close(output)


def _not_saved(runtime: str, *, own_network: bool) -> str:
    """Why no container can be saved here; empty where it can."""
    if runtime != _SAVES:
        return f"the lab has containers saved by {_SAVES} alone, and this is {runtime or 'not known'}"
    if own_network:
        return "its network namespace, in which the lab's relay is, would be another one afterwards"
    criu = shutil.which("criu")
    if criu is None:
        return "it takes CRIU, and there is no 'criu' on this host"
    try:
        programs.run([criu, "check"], doing="check this kernel", timeout_s=_CHECK_S)
    except LabError as error:
        return f"CRIU cannot save on this kernel: {error.brief}"
    return ""
