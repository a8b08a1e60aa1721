"""The way into a whole guest: SSH by paramiko, its host key known before it is met.

What is kept to, each found by trying (OpenSSH 9.2 and 10.0, paramiko 3.5 to 5.1, QEMU 7.2):
- nobody asks until the console has said that sshd is up and has a network. OpenSSH 10 counts each connection that is
  dropped before a login against its address, and behind QEMU's user-mode network all clients have one address;
- each attempt is a connection of its own. One that QEMU took before the guest had a network is answered late, if ever;
- what can come out of `connect` where nobody serves yet is a refusal, a reset, or a bare EOFError;
- `timeout` is never below `banner_timeout`: else paramiko says 'No existing session', and its thread stays;
- whatever went wrong, the client is closed, and its thread with it;
- another host key than the one that the lab gave is never taken, and never tried again.
"""

from __future__ import annotations

import contextlib
import io
import select
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drivers.libvirt.whole.keys import Keys, sdk
from lab.errors import DriverError
from lab.features import ExecResult
from lab.spec import Endpoint

if TYPE_CHECKING:
    import paramiko

_ATTEMPT_S, _LEAST_ATTEMPT_S = 60.0, 20.0
"""For an attempt: an emulated guest takes seconds for one key exchange, and more on a busy host."""
_ENDS_LATE_S = 20.0
"""So long after its time a remote command's end is waited for, that `timeout` in the guest brings about."""
_KILL_AFTER_S = 1
_TIMED_OUT = (124, 137)  # timeout(1)
_NOT_RUN = (126, 127)  # env(1)
_OUTPUT_S = 1.0
"""So long after a command's end its output's is waited for."""
_MOST_BYTES = 64 << 20


class NotYet(DriverError):
    """Nobody serves SSH there yet: a new connection, later, may do."""


class WayIn:
    """Logs in as root at `endpoint` by `keys`; one connection at a time, kept between commands."""

    def __init__(self, endpoint: Endpoint, keys: Keys) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._lock = threading.Lock()
        self._client: paramiko.SSHClient | None = None
        self._closed = False

    def run(self, argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None) -> ExecResult:
        """Run `argv`, with `environment` added. Raises NotYet where nobody serves, DriverError where it cannot be run
        or does not end in time; then it is ended in the guest too."""
        if any("\0" in word for word in argv):
            raise DriverError("a command's words have no NUL byte")
        with self._lock:
            transport = self._transport(max(_LEAST_ATTEMPT_S, min(timeout_s, _ATTEMPT_S)))
            try:
                return _run(transport, argv, timeout_s=timeout_s, environment=environment or {})
            except _Broken as error:
                self._drop()
                raise DriverError(f"the connection to the guest ended while {argv[0]} ran: {error}") from error
            except DriverError:
                raise
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """End the connection, and its thread. Idempotent; nothing is run after it."""
        self._closed = True
        with self._lock:
            self._drop()

    def abort(self) -> None:
        """As `close`, also while another thread runs a command, which then fails."""
        self._closed = True
        if (client := self._client) is not None:
            client.close()

    def _transport(self, within_s: float) -> paramiko.Transport:
        if self._closed:
            raise DriverError("the guest is gone, and nothing can be run in it")
        if self._client is not None:
            transport = self._client.get_transport()
            if transport is not None and transport.is_active():
                return transport
            self._drop()
        self._client = self._connected(within_s)
        transport = self._client.get_transport()
        if transport is None:
            raise NotYet(f"the connection to {self._endpoint} ended at once")
        return transport

    def _connected(self, within_s: float) -> paramiko.SSHClient:
        library = sdk()
        client = library.SSHClient()
        client.set_missing_host_key_policy(library.RejectPolicy())
        host = library.Ed25519Key.from_private_key(io.StringIO(self._keys.host.private))
        # As OpenSSH names a host at another port than 22; a bare address would be another entry.
        client.get_host_keys().add(f"[{self._endpoint.host}]:{self._endpoint.port}", host.get_name(), host)
        user = library.Ed25519Key.from_private_key(io.StringIO(self._keys.user.private))
        try:
            client.connect(
                self._endpoint.host,
                self._endpoint.port,
                username="root",
                pkey=user,
                allow_agent=False,
                look_for_keys=False,
                timeout=within_s,
                banner_timeout=within_s,
                auth_timeout=within_s,
                channel_timeout=within_s,
            )
        except BaseException as error:
            client.close()
            mapped = _mapped(library, error, self._endpoint)
            if mapped is None:
                raise
            raise mapped from error
        return client  # type: ignore[no-any-return]

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class _Broken(Exception):
    """The connection ended before the command did."""


def _mapped(library: Any, error: BaseException, endpoint: Endpoint) -> DriverError | None:
    """The one place where paramiko's errors of connecting become the lab's; None for what is none of them."""
    if isinstance(error, library.BadHostKeyException):
        return DriverError(
            f"who answers at {endpoint} is not the guest: its host key is not the one that the lab gave it"
        )
    if isinstance(error, library.AuthenticationException):
        return NotYet(f"the guest does not let the lab in: {error}")
    if isinstance(error, EOFError | OSError | library.SSHException):
        return NotYet(f"nobody serves SSH at {endpoint} yet: {str(error) or type(error).__name__}")
    return None


def _run(
    transport: paramiko.Transport, argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str]
) -> ExecResult:
    added = [f"{name}={value}" for name, value in environment.items()]
    # The guest itself ends what takes too long: closing the connection would leave it running there.
    words = ["timeout", f"--kill-after={_KILL_AFTER_S}", f"{timeout_s:.3f}", "env", "--", *added, *argv]
    library = sdk()
    begun = time.monotonic()
    try:
        with contextlib.closing(transport.open_session(timeout=_ATTEMPT_S)) as channel:
            channel.exec_command("exec " + shlex.join(words))
            code, out, err = _collect(channel, argv[0], begun + timeout_s + _ENDS_LATE_S, timeout_s)
    except (EOFError, OSError, library.SSHException) as error:
        raise _Broken(str(error) or type(error).__name__) from error
    if code in _TIMED_OUT and time.monotonic() - begun >= timeout_s:
        raise DriverError(f"{argv[0]} did not end within {timeout_s:g} s, and was ended")
    if code in _NOT_RUN and err.startswith(b"env: "):
        raise DriverError(f"{argv[0]} cannot be run: {err.decode(errors='replace').strip()}"[:500])
    return ExecResult(code, out, err)


def _collect(channel: paramiko.Channel, program: str, deadline: float, timeout_s: float) -> tuple[int, bytes, bytes]:
    out, err = bytearray(), bytearray()
    ended: float | None = None
    while True:
        closed = channel.closed  # looked at first: what came before it was closed is then there
        while channel.recv_ready():
            out += channel.recv(65536)
        while channel.recv_stderr_ready():
            err += channel.recv_stderr(65536)
        now = time.monotonic()
        if channel.exit_status_ready():
            # What it has left running may hold its output open for good.
            ended = ended or now
            if channel.eof_received or closed or now - ended > _OUTPUT_S:
                return channel.recv_exit_status(), bytes(out), bytes(err)
        elif closed:
            raise _Broken("it was closed without an exit code")
        if len(out) + len(err) > _MOST_BYTES:
            raise DriverError(f"{program} wrote more than {_MOST_BYTES >> 20} MiB")
        if now > deadline:
            raise DriverError(f"{program} did not end within {timeout_s:g} s, nor did the guest end it")
        if channel.eof_received:
            channel.status_event.wait(0.05)
        else:
            select.select([channel], [], [], 0.2)
