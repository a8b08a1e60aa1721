"""The one Docker engine that gives a run its images: which it is, and what is asked of it, by its API over HTTP.

It is the engine of the option `docker-host`, else of DOCKER_HOST, of DOCKER_CONTEXT or of the current context, as
Docker's own command line has it. Without the SDK, since targets without Docker take images from it as well.
API: https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import queue
import ssl
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import httpx

from lab.errors import BadInput, DriverError, DriverUnavailable, Unsupported
from lab.image.credentials import registry_auth
from lab.image.program import HEAD_BYTES, Look

DEFAULT_HOST = "unix:///var/run/docker.sock"
TIMEOUT_S = 60.0
_CONNECT_S = 10.0
_PATIENCE_S = 10.0
"""After so long without an end the engine is asked whether it lives, and the user told what is waited for."""
_SILENT_PINGS = 3
_MAX_LINKS = 40
_HEAD_BYTES = 16 * 1024  # of a tar: more than the headers of its first file and HEAD_BYTES of it
_COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an engine is, what named it there, and the folder of its TLS files, if any."""

    host: str
    named_by: str
    tls: Path | None = None
    verify: bool = True

    def __str__(self) -> str:
        return self.host


def engine_address(options: Mapping[str, str]) -> Address:
    """The engine that all targets of a run share. Raises BadInput for a context that there is none of."""
    tls = _tls_folder()
    if host := options.get("docker-host"):
        return Address(host=host, named_by="-o docker-host", tls=tls, verify=tls is None or _verifies())
    if host := os.environ.get("DOCKER_HOST", ""):
        return Address(host=host, named_by="DOCKER_HOST", tls=tls, verify=tls is None or _verifies())
    if name := os.environ.get("DOCKER_CONTEXT", ""):
        return _context(name, "DOCKER_CONTEXT")
    name = _docker_config().get("currentContext") or ""
    return _context(str(name), f"the current context of {docker_folder() / 'config.json'}")


def docker_folder() -> Path:
    """Where Docker's command line keeps its settings."""
    given = os.environ.get("DOCKER_CONFIG", "")
    return Path(given) if given else Path.home() / ".docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineImage:
    """What an engine says of an image; `id` is what it knows it by, whatever its names come to mean."""

    id: str
    platform: Mapping[str, Any]
    config: Mapping[str, Any]
    size_bytes: int


class Engine:
    """Asks one engine for images. Raises DriverUnavailable where it does not answer."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client: httpx.Client | None = None

    def inspect(self, reference: str) -> EngineImage | None:
        """None where it has no such image."""
        with self._told(f"look for the image '{reference}'"):
            answer = self._http().get(f"/images/{quote(reference, safe='/:@')}/json")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        self._require_good(answer, f"look for the image '{reference}'")
        told = answer.json()
        platform = {"os": told.get("Os"), "architecture": told.get("Architecture"), "variant": told.get("Variant")}
        return EngineImage(
            id=str(told["Id"]),
            platform=platform,
            config=told.get("Config") or {},
            size_bytes=int(told.get("Size") or 0),
        )

    def pull(self, reference: str, say: Callable[[str], None]) -> None:
        """Have it fetch `reference` from its registry, with the credentials of Docker's command line; it stays there
        afterwards, as after `docker pull`. Raises DriverError."""
        name, tag = _split(reference)
        headers = registry_auth(reference, docker_folder())
        doing = f"pull the image '{reference}'"

        def fetch(_: Callable[[int], None]) -> None:
            with self._http().stream(
                "POST", "/images/create", params={"fromImage": name, "tag": tag}, headers=headers, timeout=_endless()
            ) as answer:
                if answer.is_error:
                    answer.read()
                self._require_good(answer, doing)
                for line in answer.iter_lines():
                    if line and "error" in (told := json.loads(line)):
                        raise DriverError(str(told["error"]))

        try:
            self._patiently(fetch, doing, say)
        except DriverUnavailable:
            raise
        except DriverError as error:
            raise DriverError(
                f"the image '{reference}' is not here, and Docker could not pull it: {error.brief}",
                details=error.details,
                resolution=error.resolution or "name an image of `docker images`, or the path of a `docker save` file",
            ) from error

    def save(self, reference: str, target: IO[bytes], say: Callable[[str], None]) -> None:
        """Write the archive of `reference` to `target`. An engine may take minutes before the first byte of a large
        one: it is waited for as long as it lives. Raises DriverError, OSError."""
        doing = f"save the image '{reference}'"

        def fetch(seen: Callable[[int], None]) -> None:
            with self._http().stream(
                "GET", f"/images/{quote(reference, safe='/:@')}/get", timeout=_endless()
            ) as answer:
                if answer.is_error:
                    answer.read()
                self._require_good(answer, doing)
                for block in answer.iter_bytes(_COPY_BYTES):
                    target.write(block)
                    seen(len(block))

        self._patiently(fetch, doing, say)

    @contextlib.contextmanager
    def files_of(self, image: str, labels: Mapping[str, str]) -> Iterator[Look]:
        """The beginnings of an image's files, looked at in a container that is never started and is removed at the
        end; where none can be made, there are no files. Raises DriverUnavailable."""
        body = {
            "Image": image,
            "Cmd": ["/lab-looks-at-files"],
            "Labels": {"lab.target": "docker", **labels},
            "HostConfig": {"NetworkMode": "none"},
        }
        with self._told("look into the image"):
            made = self._http().post("/containers/create", json=body)
        container = str(made.json().get("Id", "")) if made.is_success else ""
        try:
            yield lambda path: self._head(container, path) if container else None
        finally:
            if container:
                with self._told("remove a container"):
                    self._http().delete(f"/containers/{container}", params={"force": "1", "v": "1"})

    def _head(self, container: str, path: str) -> bytes | None:
        for _ in range(_MAX_LINKS):
            with (
                self._told("look into the image"),
                self._http().stream("GET", f"/containers/{container}/archive", params={"path": path}) as answer,
            ):
                if answer.is_error:
                    return None
                started = b""
                for block in answer.iter_bytes():
                    started += block
                    if len(started) >= _HEAD_BYTES:
                        break
            try:
                with tarfile.open(fileobj=io.BytesIO(started), mode="r:") as archive:
                    member = archive.next()
            except tarfile.TarError:
                return None
            if member is None or not (member.isreg() or member.issym()):
                return None
            if member.isreg():
                return started[member.offset_data : member.offset_data + min(member.size, HEAD_BYTES)]
            path = posixpath.join(posixpath.dirname(path), member.linkname)
        return None

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _patiently(
        self, fetch: Callable[[Callable[[int], None]], None], doing: str, say: Callable[[str], None]
    ) -> None:
        """Run `fetch` for as long as it takes and the engine answers other questions meanwhile."""
        done_bytes, begun, silent = [0], time.monotonic(), 0
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def seen(count: int) -> None:
            done_bytes[0] += count

        def work() -> None:
            try:
                fetch(seen)
            except BaseException as error:
                ended.put(error)
            else:
                ended.put(None)

        # A daemon, since nothing wakes it where a dead engine leaves it waiting: it must not keep the lab from ending.
        threading.Thread(target=work, name="lab-image", daemon=True).start()
        while True:
            try:
                problem = ended.get(timeout=_PATIENCE_S)
            except queue.Empty:
                waited = f"{time.monotonic() - begun:.0f} s"
                so_far = f", {done_bytes[0] / 1e6:.0f} MB so far" if done_bytes[0] else ""
                say(f"waiting for the Docker engine to {doing}: {waited}{so_far}")
                silent = 0 if self._alive() else silent + 1
                if silent >= _SILENT_PINGS:
                    raise DriverUnavailable(
                        f"the Docker engine at {self.address} stopped answering, asked to {doing}",
                        resolution="look at its log: journalctl -u docker",
                    ) from None
            else:
                if problem is not None:
                    with self._told(doing):
                        raise problem
                return

    def _alive(self) -> bool:
        try:
            with _client(self.address) as other:
                return other.get("/_ping", timeout=_PATIENCE_S).is_success
        except httpx.HTTPError:
            return False

    def _http(self) -> httpx.Client:
        if self._client is None:
            self._client = _client(self.address)
        return self._client

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise DriverUnavailable(
                f"no Docker engine answers at {self.address}, which {self.address.named_by} names, to {doing}",
                details=f"{type(error).__name__}: {error}",
                resolution="start Docker, or give a file that `docker save` wrote elsewhere as the image",
            ) from error

    def _require_good(self, answer: httpx.Response, doing: str) -> None:
        if answer.is_error:
            try:
                said = str(answer.json()["message"])
            except (ValueError, KeyError, TypeError):
                said = answer.text[:500] or answer.reason_phrase
            raise DriverError(
                f"Docker could not {doing}: {' '.join(said.split())}", details=f"HTTP {answer.status_code}"
            )


def _endless() -> httpx.Timeout:
    return httpx.Timeout(None, connect=_CONNECT_S)


def _client(address: Address) -> httpx.Client:
    """Raises Unsupported for an address that is spoken to in another manner."""
    scheme, _, rest = address.host.partition("://")
    timeout = httpx.Timeout(TIMEOUT_S, connect=_CONNECT_S)
    # The engine is near, and the environment's proxies are for registries.
    if scheme == "unix":
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=rest), base_url="http://docker", timeout=timeout, trust_env=False
        )
    if scheme in ("tcp", "http", "https") and urlsplit(address.host).hostname:
        secure = address.tls is not None or scheme == "https"
        base = f"{'https' if secure else 'http'}://{urlsplit(address.host).netloc}"
        verify: ssl.SSLContext | bool = _ssl(address) if secure else True
        return httpx.Client(base_url=base, verify=verify, timeout=timeout, trust_env=False)
    raise Unsupported(
        f"images are taken from a Docker engine at unix:// or tcp:// only, and {address.named_by} names {address.host}",
        resolution="docker save -o image.tar IMAGE, and give image.tar as the image",
    )


def _ssl(address: Address) -> ssl.SSLContext:
    folder = address.tls or docker_folder()
    try:
        made = ssl.create_default_context(cafile=str(folder / "ca.pem") if (folder / "ca.pem").is_file() else None)
        if (folder / "cert.pem").is_file():
            made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"the TLS files in {folder} cannot be used: {error}") from error
    if not address.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _tls_folder() -> Path | None:
    folder = os.environ.get("DOCKER_CERT_PATH", "")
    if folder:
        return Path(folder)
    return docker_folder() if _verifies() else None


def _verifies() -> bool:
    return os.environ.get("DOCKER_TLS_VERIFY", "") != ""


def _docker_config() -> Mapping[str, Any]:
    path = docker_folder() / "config.json"
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as Docker's settings: {error}") from error
    return value if isinstance(value, dict) else {}


def _context(name: str, named_by: str) -> Address:
    """A context as Docker's command line keeps it: in a folder named for its name's SHA-256 (cli/context/store)."""
    if name in ("", "default"):
        return Address(host=DEFAULT_HOST, named_by="no option, variable or context" if not name else named_by)
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = docker_folder() / "contexts" / "meta" / digest / "meta.json"
    try:
        endpoint = json.loads(meta.read_text())["Endpoints"]["docker"]
        host = str(endpoint.get("Host") or DEFAULT_HOST)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"there is no Docker context '{name}', which {named_by} names",
            details=f"{meta}: {error}",
            resolution="see `docker context ls`",
        ) from error
    tls = docker_folder() / "contexts" / "tls" / digest / "docker"
    return Address(
        host=host,
        named_by=f"the context '{name}'",
        tls=tls if tls.is_dir() else None,
        verify=not endpoint.get("SkipTLSVerify"),
    )


def _split(reference: str) -> tuple[str, str]:
    """The name and the tag or digest that the pull call takes; 'latest' where none is given."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, "latest")
