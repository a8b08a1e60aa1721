"""What the lab asks of Podman, by its own API (libpod) and its own client.

Source of paths and fields: https://docs.podman.io/en/latest/_static/api.html; a container is asked for by Podman's
SpecGenerator, which has what Docker's API has no words for.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.dockerapi.streams import Frames
from drivers.podman.service import Service
from lab.errors import DriverUnavailable

if TYPE_CHECKING:
    from podman import PodmanClient

TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 900.0
"""For images, which may be large or come from far away."""
_JSON = {"Content-Type": "application/json"}
_HEAD_BYTES = 65_536


class Api:
    """A connection to a Podman that the lab serves itself, from the first use until `close`, after which the next use
    serves it anew. Methods raise the client's errors, which `translated` maps."""

    def __init__(self, run_dir: Path, runtime: str) -> None:
        self._run_dir = run_dir
        self._runtime = runtime
        self._service: Service | None = None
        self._client: PodmanClient | None = None
        self._lock = threading.Lock()

    @property
    def service(self) -> Service:
        """The process that serves. Raises DriverUnavailable."""
        self._connected()
        assert self._service is not None  # noqa: S101  it has just been made
        return self._service

    @property
    def client(self) -> PodmanClient:
        """Podman's own client. Raises DriverUnavailable."""
        return self._connected()

    def close(self) -> None:
        """End the connections and the service. Idempotent."""
        with self._lock:
            client, self._client = self._client, None
            service, self._service = self._service, None
        if client is not None:
            client.close()  # type: ignore[no-untyped-call]
        if service is not None:
            service.end()

    def info(self) -> dict[str, Any]:
        """What the engine says of itself."""
        return self._object("/info")

    def version(self) -> dict[str, Any]:
        """Its versions, and those of its components."""
        return self._object("/version")

    def create(self, body: Mapping[str, Any]) -> str:
        """Make a container; returns its id."""
        return str(self._json("POST", "/containers/create", body=body)["Id"])

    def start(self, container: str) -> None:
        """Start it."""
        self._ask("POST", f"/containers/{container}/start")

    def stop(self, container: str, timeout_s: int) -> None:
        """Its stop signal, and SIGKILL after `timeout_s`; what has ended already is no error."""
        params = {"timeout": timeout_s, "ignore": True}
        self._ask("POST", f"/containers/{container}/stop", params=params, timeout_s=TIMEOUT_S + timeout_s)

    def pause(self, container: str) -> None:
        """Freeze it."""
        self._ask("POST", f"/containers/{container}/pause")

    def unpause(self, container: str) -> None:
        """Let it go on."""
        self._ask("POST", f"/containers/{container}/unpause")

    def remove(self, container: str) -> None:
        """Kill and remove it with its anonymous volumes; one that is gone is no error."""
        params = {"force": True, "v": True, "ignore": True, "timeout": 0}
        self._ask("DELETE", f"/containers/{container}", params=params)

    def inspect(self, container: str) -> dict[str, Any] | None:
        """All that is known of it; None where it is not known."""
        return self._known(f"/containers/{container}/json")

    def containers(self, label: str = "", *, all_states: bool = True) -> list[dict[str, Any]]:
        """Those that bear `label`, a `KEY` or `KEY=VALUE`; with none, all."""
        params = {"all": all_states, "filters": json.dumps({"label": [label] if label else []})}
        return self._json("GET", "/containers/json", params=params) or []

    def logs(self, container: str, lines: int) -> bytes:
        """The last `lines` of what it wrote."""
        params = {"stdout": True, "stderr": True, "tail": lines}
        answer = self._ask("GET", f"/containers/{container}/logs", params=params)
        return b"".join(payload for _, payload in Frames().feed(answer.content))

    def exec_create(self, container: str, argv: Iterable[str]) -> str:
        """Make ready to run `argv` in it; returns the id of that."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv)}
        return str(self._json("POST", f"/containers/{container}/exec", body=body)["Id"])

    def exec_start(self, made: str) -> socket.socket:
        """Run it; returns the connection by which its output comes, in `Frames`."""
        return self._hijack(f"/exec/{made}/start", {"Detach": False, "Tty": False})

    def exec_inspect(self, made: str) -> dict[str, Any]:
        """Whether it runs, as which process, and how it ended."""
        return self._object(f"/exec/{made}/json")

    def attach_socket(self, container: str, _: object = None) -> socket.socket:
        """The connection by which its output comes, in `Frames`, from its start on, as the Docker SDK calls it. One
        that was only created is made up to its program by this: Podman lets nobody attach to less."""
        return self._hijack(f"/containers/{container}/attach?stream=true&stdout=true&stderr=true&logs=false", None)

    def image(self, name: str) -> dict[str, Any] | None:
        """All that is known of an image; None where it is not known."""
        return self._known(f"/images/{name}/json")

    def images(self, label: str) -> list[dict[str, Any]]:
        """Those that bear `label`: asked for several at a time, Podman (4.3) finds none."""
        return self._json("GET", "/images/json", params={"filters": json.dumps({"label": [label]})}) or []

    def load(self, archive: Any) -> None:
        """Load a docker-archive: bytes, or blocks of it."""
        headers = {"Content-Type": "application/x-tar"}
        self._ask("POST", "/images/load", data=archive, headers=headers, timeout_s=LOAD_TIMEOUT_S)

    def remove_image(self, name: str) -> None:
        """Take the name from an image, and remove the image with the last."""
        self._ask("DELETE", f"/images/{name}")

    def _connected(self) -> PodmanClient:
        with self._lock:
            if self._client is None or self._service is None or not self._service.alive():
                self._renew()
            assert self._client is not None  # noqa: S101  it has just been made
            return self._client

    def _renew(self) -> None:
        try:
            from podman import PodmanClient
        except ImportError as error:
            raise DriverUnavailable(
                "Podman's client for Python is not installed",
                details=str(error),
                resolution="pip install 'stratalab[podman]'",
            ) from error
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
        if self._service is not None:
            self._service.end()
        self._service = Service(self._run_dir, self._runtime)
        self._client = PodmanClient(base_url=f"unix://{self._service.socket}", timeout=TIMEOUT_S)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        api = self._connected().api
        ask = {"GET": api.get, "POST": api.post, "DELETE": api.delete}[method]
        more = {"data": data} if method == "POST" else {}
        answer = ask(path, params=params, headers=headers, timeout=timeout_s, **more)
        answer.raise_for_status()
        return answer

    def _json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        data = None if body is None else json.dumps(body)
        return self._ask(method, path, params=params, data=data, headers=_JSON if body is not None else None).json()

    def _object(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._json("GET", path)
        return found

    def _known(self, path: str) -> dict[str, Any] | None:
        import podman.errors

        try:
            return self._object(path)
        except podman.errors.NotFound:
            return None

    def _hijack(self, path: str, body: Mapping[str, Any] | None) -> socket.socket:
        """POST to `path` and keep the connection, as Docker's API has it (attach a container, 'Hijacking'): the client
        offers no such. Raises what the client raises for a refusal."""
        import podman.errors
        import requests

        prefix = self._connected().api.path_prefix.rstrip("/")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(self.service.socket))
            data = json.dumps(body).encode() if body is not None else b""
            connection.sendall(
                f"POST {prefix}{path} HTTP/1.1\r\nHost: podman\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            head = _head(connection)
            status = head.split(b" ", 2)[1:2]
            if status not in ([b"101"], [b"200"]):
                connection.settimeout(1.0)
                refused = requests.Response()
                refused.status_code = int(status[0]) if status and status[0].isdigit() else 500
                raise podman.errors.APIError("refused", response=refused, explanation=_said(connection))
        except BaseException:
            connection.close()
            raise
        return connection


def _head(connection: socket.socket) -> bytes:
    """The answer's head and nothing of what comes after it: that is the stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) > _HEAD_BYTES:
            raise ConnectionError("the connection ended within the head of an answer")
        head += byte
    return head


def _said(connection: socket.socket) -> str:
    body = b""
    with contextlib.suppress(OSError):
        while len(body) < _HEAD_BYTES and (part := connection.recv(4096)):
            body += part
            with contextlib.suppress(ValueError):
                return str(json.loads(body[body.index(b"{") : body.rindex(b"}") + 1]).get("message"))
    return body.decode(errors="replace")


def run_label(labels: Mapping[str, str]) -> str:
    """The one label to ask Podman for of what bears `labels`; the caller looks at the others."""
    return f"lab.run={labels['lab.run']}" if "lab.run" in labels else "lab.run"
