"""Credentials from the program that a kubeconfig names for them (`exec`), asked by the lab itself.

The client's own way gives that program the lab's terminal and all the time that it likes, and passes over its failure
with a line on the root logger, after which the cluster calls the user `system:anonymous`.

Source: kubernetes.io, "Authenticating: client-go credential plugins".
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from drivers.kubernetes.connection import leash
from drivers.kubernetes.connection.telling import ran
from lab.errors import DriverUnavailable

LIMIT_S = 30.0
"""For the program's answer. Those of the clouds ask a server of theirs, which takes some seconds."""

_AFTER_KILL_S = 2.0
_EARLY = timedelta(seconds=60)  # so long before its end a token is renewed, or a fifth of a shorter life
_SHOWN = 300
_BY_HAND = "run it by hand, and log in where it asks for that; or use another context"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the program gave: a token, or a certificate and its key as PEM; `expires_at` where it said when."""

    token: str = ""
    certificate: str = ""
    key: str = ""
    expires_at: datetime | None = None
    given_at: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)

    def expired(self) -> bool:
        """Whether it is time to ask again."""
        if self.expires_at is None:
            return False
        # Some tokens live for less than that: renewed so early, they would be before each request.
        early = min(_EARLY, max(timedelta(0), (self.expires_at - self.given_at) / 5))
        return datetime.now(UTC) >= self.expires_at - early

    def of_user(self) -> Json:
        """As a kubeconfig's `user` has them."""
        found = {"token": self.token} if self.token else {}
        for name, text in (("client-certificate-data", self.certificate), ("client-key-data", self.key)):
            if text:
                found[name] = base64.b64encode(text.encode()).decode()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A user's `exec`: `directory` is the kubeconfig's, and `cluster` what the program is told of the cluster."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    api_version: str
    install_hint: str
    needs_terminal: bool
    cluster: Json | None
    directory: Path

    @classmethod
    def of(cls, told: Json, *, cluster: Json, directory: Path) -> Program:
        """The program that `told`, a user's `exec`, names. Raises DriverUnavailable where it names none."""
        try:
            argv = [str(told["command"]), *map(str, told.get("args") or ())]
            environment = {str(one["name"]): str(one["value"]) for one in told.get("env") or ()}
            api_version = str(told["apiVersion"])
        except (KeyError, TypeError) as error:
            raise DriverUnavailable(
                f"the kubeconfig's `exec` lacks {error}", resolution="see `kubectl config view`"
            ) from error
        return cls(
            argv=argv,
            environment=environment,
            api_version=api_version,
            install_hint=" ".join(str(told.get("installHint") or "").split()),
            needs_terminal=told.get("interactiveMode") == "Always",
            cluster=_cluster(cluster) if told.get("provideClusterInfo") else None,
            directory=directory,
        )

    def ask(self, limit_s: float | None = None) -> Credentials:
        """Run it, without a terminal or anything to read, for `limit_s` (`LIMIT_S`) at most; it ends with the lab.

        Raises DriverUnavailable, with the program's own words.
        """
        if self.needs_terminal:
            raise self._refused("asks on a terminal each time, which a measurement has not")
        path = self._path()
        begun = time.monotonic()
        code, out, err = self._run(path, LIMIT_S if limit_s is None else limit_s)
        ran(time.monotonic() - begun)
        if code != 0:
            raise self._refused(f"failed with exit status {code}", _words(err or out))
        return self._read(out, err)

    def _path(self) -> str:
        """As client-go looks for it: a name without a slash in PATH, else from the kubeconfig's directory."""
        command = self.argv[0]
        path = str(self.directory / command) if "/" in command else shutil.which(command)
        if path is None or not Path(path).exists():
            raise DriverUnavailable(
                f"the kubeconfig's credential program `{command}` is not installed",
                resolution=self.install_hint or "install it, or use another context",
            )
        return path

    def _run(self, path: str, limit_s: float) -> tuple[int, bytes, bytes]:
        info: Json = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        if self.cluster is not None:
            info["spec"]["cluster"] = self.cluster
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), path, *self.argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            start_new_session=True,  # no terminal, and a group that can be ended as a whole
        )
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            out, err = _rest(process)
            said = _words(err or out)
            raise self._refused(f"gave no answer within {limit_s:g} s, and was ended", said) from None
        except BaseException:
            _kill(process)
            raise
        return process.returncode, out, err

    def _read(self, out: bytes, err: bytes) -> Credentials:
        try:
            found = json.loads(out)
            status = found["status"]
            if found["kind"] != "ExecCredential":
                raise KeyError("kind")
            told = str(status.get("expirationTimestamp") or "")
            given = Credentials(
                token=str(status.get("token") or ""),
                certificate=str(status.get("clientCertificateData") or ""),
                key=str(status.get("clientKeyData") or ""),
                expires_at=_instant(told) if told else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._refused("printed no ExecCredential", _words(err or out)) from error
        if not given.token and not (given.certificate and given.key):
            raise self._refused("gave neither a token nor a certificate", _words(err))
        if found.get("apiVersion") != self.api_version:
            raise self._refused(
                f"speaks {found.get('apiVersion')}, where the kubeconfig names {self.api_version}", _words(err)
            )
        return given

    def _refused(self, what: str, said: str = "") -> DriverUnavailable:
        """Its arguments are not told: they may hold secrets."""
        words = f": {said}" if said else ""
        return DriverUnavailable(
            f"the kubeconfig's credential program `{self.argv[0]}` {what}{words}",
            details=f"command: {shlex.quote(self.argv[0])}, with {len(self.argv) - 1} arguments",
            resolution=_BY_HAND,
        )


def _cluster(cluster: Json) -> Json:
    """What of a kubeconfig's cluster the program is told (client.authentication.k8s.io, `Cluster`)."""
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    found = {name: cluster[name] for name in names if name in cluster}
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            found["config"] = extension.get("extension")
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _rest(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What it had said; one that left the group may still hold the pipes open."""
    try:
        return process.communicate(timeout=_AFTER_KILL_S)
    except subprocess.TimeoutExpired as error:
        return error.stdout or b"", error.stderr or b""


def _words(said: bytes) -> str:
    """The end of what it said, as one line without control characters."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    text = "; ".join(lines[-3:])
    return "".join(letter if letter.isprintable() else "?" for letter in text)[-_SHOWN:]


def _instant(text: str) -> datetime:
    """Of RFC 3339. Raises ValueError."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=UTC)
