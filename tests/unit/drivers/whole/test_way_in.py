"""The way in by SSH, against a server of paramiko's own on loopback."""

from __future__ import annotations

import io
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

paramiko = pytest.importorskip("paramiko")

from drivers.libvirt.whole.keys import Keys, new_keys  # noqa: E402  paramiko first
from drivers.libvirt.whole.way_in import NotYet, WayIn  # noqa: E402
from lab.errors import DriverError  # noqa: E402
from lab.spec import Endpoint  # noqa: E402


class Guest(paramiko.ServerInterface):
    """Lets in who has the key, and runs what is asked."""

    def __init__(self, keys: Keys, ran: list[str]) -> None:
        self._key = keys.user.public.split()[1]
        self._ran = ran

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and key.get_base64() == self._key
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._ran.append(command.decode())
        threading.Thread(target=_answer, args=(channel, command.decode()), daemon=True).start()
        return True


def _answer(channel: paramiko.Channel, command: str) -> None:
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    channel.sendall(done.stdout)
    channel.sendall_stderr(done.stderr)
    channel.send_exit_status(done.returncode % 256)
    channel.close()


class Server:
    """Accepts connections, and hands each to `serve`."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.listener.getsockname()[1])

    def _run(self) -> None:
        while True:
            try:
                taken, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._serve(taken)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return new_keys()


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def serve(keys: Keys, ran: list[str]) -> Iterator[Callable[..., Server]]:
    """Makes servers, by default one that has the host key that the lab gave."""
    made: list[Server] = []
    transports: list[paramiko.Transport] = []

    def ssh(host: Keys) -> Callable[[socket.socket], None]:
        def one(taken: socket.socket) -> None:
            transport = paramiko.Transport(taken)
            transports.append(transport)
            transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(host.host.private)))
            transport.start_server(event=threading.Event(), server=Guest(keys, ran))

        return one

    def make(serve: Callable[[socket.socket], None] | None = None, *, host: Keys | None = None) -> Server:
        made.append(Server(serve or ssh(host or keys)))
        return made[-1]

    yield make
    for server in made:
        server.listener.close()
    for transport in transports:
        transport.close()


@pytest.fixture
def way_in(keys: Keys) -> Iterator[Callable[[Server], WayIn]]:
    made: list[WayIn] = []

    def make(server: Server) -> WayIn:
        made.append(WayIn(server.endpoint, keys))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_words_bytes_streams_and_exit_code_are_as_they_are(
    serve: Callable[..., Server], way_in: Callable[..., WayIn]
) -> None:
    server = serve()
    way = way_in(server)
    hostile = "a b;\"c' $HOME \\ \n *"
    done = way.run(
        ["sh", "-c", 'printf "%s|%s" "$1" "$X"; printf "\\377" >&2; exit 7', "x", hostile],
        timeout_s=20,
        environment={"X": hostile},
    )
    assert (done.exit_code, done.stdout, done.stderr) == (7, f"{hostile}|{hostile}".encode(), b"\xff")
    assert way.run(["true"], timeout_s=20).exit_code == 0
    assert server.connections == 1, "one connection, kept"


def test_a_host_key_that_the_lab_did_not_give_is_not_taken_and_not_tried_again(
    serve: Callable[..., Server], way_in: Callable[..., WayIn], ran: list[str]
) -> None:
    server = serve(host=new_keys())
    with pytest.raises(DriverError, match="host key") as raised:
        way_in(server).run(["true"], timeout_s=20)
    assert not isinstance(raised.value, NotYet) and not ran


def test_where_nobody_serves_yet_a_later_connection_is_another(
    serve: Callable[..., Server], way_in: Callable[..., WayIn]
) -> None:
    server = serve(lambda taken: taken.close())
    way = way_in(server)
    for connections in (1, 2):
        with pytest.raises(NotYet, match=re.escape(str(server.endpoint))):
            way.run(["true"], timeout_s=20)
        assert server.connections == connections, "one attempt, one connection"
    server.listener.close()
    with pytest.raises(NotYet):
        way.run(["true"], timeout_s=20)


def test_a_user_who_is_not_let_in_yet_may_be_later(serve: Callable[..., Server], keys: Keys) -> None:
    way = WayIn(serve().endpoint, Keys(user=new_keys().user, host=keys.host))
    with pytest.raises(NotYet, match="does not let the lab in"):
        way.run(["true"], timeout_s=20)
    way.close()


def test_no_thread_outlives_what_went_wrong(serve: Callable[..., Server], way_in: Callable[..., WayIn]) -> None:
    before = {thread.name for thread in threading.enumerate()}
    server = serve(lambda taken: taken.close())
    with pytest.raises(NotYet):
        way_in(server).run(["true"], timeout_s=20)
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if "Thread" in name and "(_run)" not in name]


def test_what_does_not_end_in_time_is_ended_by_the_guest(
    serve: Callable[..., Server], way_in: Callable[..., WayIn], ran: list[str]
) -> None:
    with pytest.raises(DriverError, match=r"did not end within 0\.3 s"):
        way_in(serve()).run(["sleep", "60"], timeout_s=0.3)
    assert shlex.split(ran[0])[:4] == ["exec", "timeout", "--kill-after=1", "0.300"]


def test_what_cannot_be_run_is_an_error_and_a_programs_own_127_is_not(
    serve: Callable[..., Server], way_in: Callable[..., WayIn]
) -> None:
    way = way_in(serve())
    with pytest.raises(DriverError, match="/no-such-program cannot be run"):
        way.run(["/no-such-program"], timeout_s=20)
    assert way.run(["sh", "-c", "exit 127"], timeout_s=20).exit_code == 127


def test_after_close_nothing_is_run(serve: Callable[..., Server], way_in: Callable[..., WayIn]) -> None:
    way = way_in(serve())
    way.close()
    with pytest.raises(DriverError, match="gone"):
        way.run(["true"], timeout_s=20)
