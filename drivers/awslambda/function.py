"""One function: workers come by call, and go when nobody calls, when it is changed, and when it is deleted."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.awslambda.api import Api
from drivers.awslambda.workers import Events, Polls, Workers
from lab.errors import CleanupError, DriverError
from lab.features import Called, CallPhase, Role, SleepState
from lab.host import procs
from lab.host.procs import Process
from lab.image.process import TMP
from lab.launch.output import KEPT_BYTES
from lab.spec import Endpoint

if TYPE_CHECKING:
    from docker import APIClient

PROMISES = {
    "timeout": "a call is ended after the function's timeout, 1 to 900 s, with a function error",
    "request": "an event of up to 6,291,556 bytes; a longer one is refused with 413 RequestEntityTooLargeException",
    "response": "an answer of up to 6,291,556 bytes; a longer one is a function error, Function.ResponseSizeTooLarge",
    "memory": "128 to 10,240 MB for each worker; one that takes more is killed, which is a function error",
    "concurrency": "as many calls at a time as are reserved, one worker each; one more is refused with 429",
    TMP: "512 to 10,240 MB for each worker",
}
"""https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""

_INVOCATIONS = "/2015-03-31/functions/function/invocations"  # of the Runtime Interface Emulator
_AGENT = "stratalab"
_COLD = "LAB_COLD"
_GONE_S = 30.0
_AGAIN_S = 5.0
_POLL_S = 0.02


class Function:
    """One function of an endpoint; without `api` only its workers are left, which its dead server had started."""

    def __init__(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        environment: Mapping[str, str],
        api: Api | None,
        docker: Callable[[], APIClient],
        workers: Workers,
        events: Events,
    ) -> None:
        self.id = name
        self.labels = labels
        self.endpoint = endpoint
        self._environment = dict(environment)
        self._api = api
        self._docker = docker
        self._workers = workers
        self._events = events
        self._launch = {"lab.launch": labels.get("lab.launch", ""), "lab.run": labels.get("lab.run", "")}
        self._changes = 0
        self._log = b""

    @property
    def environment(self) -> Mapping[str, str]:
        """What the function was made with."""
        return dict(self._environment)

    def logs(self) -> bytes:
        """What its workers wrote, one after the other; of one that has been stopped, what it wrote before."""
        written = b"".join(one.logs() for one in self._workers.containers(self._launch))
        return written[-KEPT_BYTES:] or self._log

    def stop(self, *, timeout_s: float) -> None:
        """Let no call in, and end every worker."""
        self._log = self.logs()
        if self._api is not None:
            self._api.reserve(self.id, 0)
        self.force_cold(timeout_s=timeout_s)

    def delete(self) -> None:
        """Delete it, and see that no worker is left."""
        self._events.forget(self._launch)
        try:
            before = self._processes()
            if self._api is not None:
                self._api.delete(self.id)
            for container in self._workers.containers(self._launch):
                container.delete()  # one that a call had asked for meanwhile, or whose server is dead
            self._await_ended(before, _GONE_S)
        except CleanupError:
            raise
        except DriverError as error:
            raise CleanupError(error.brief, details=error.details, resolution=error.resolution) from error
        self._log = b""
        self._workers.forget(self._launch)

    def host_pids(self) -> Mapping[int, Role]:
        """The processes of its workers, with their shims and the proxies of their ports; none while nobody calls."""
        return self._workers.processes(self._launch)

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The image's layers, and what its workers write."""
        found: dict[str, list[Path]] = {}
        for container in self._workers.containers(self._launch):
            for part, paths in container.storage().items():
                found.setdefault(part, []).extend(path for path in paths if path not in found.get(part, ()))
        return found

    def workers(self) -> Sequence[str]:
        """The containers that run for it, by id."""
        return [one.id for one in self._workers.find(self._launch) if one.running]

    def force_cold(self, *, timeout_s: float) -> None:
        """Change its environment, upon which the platform ends every worker that it knows; again after a while, since
        one that a call was just having started is known only later, and would stay."""
        before = self._processes()
        begun = time.monotonic()
        asked = self._end_workers()
        while left := self._workers.find(self._launch):
            if time.monotonic() > begun + timeout_s:
                ids = ", ".join(one.id[:12] for one in left)
                raise DriverError(f"the function's workers {ids} are still there after {timeout_s:g} s")
            if time.monotonic() > asked + _AGAIN_S:
                asked = self._end_workers()
            time.sleep(_POLL_S)
        self._await_ended(before, _GONE_S)

    @contextlib.contextmanager
    def follow(self, seen: Callable[[str, CallPhase, str], None]) -> Iterator[None]:
        """By the Docker engine's events and the workers' logs."""
        polls = Polls(self._docker, seen)

        def note(worker: str, phase: CallPhase, source: str) -> None:
            seen(worker, phase, source)
            if phase is CallPhase.STARTED:
                polls.started(worker)

        with self._events.watching(self._launch, note):
            try:
                yield
            finally:
                polls.close()

    def promises(self) -> Mapping[str, str]:
        """By AWS's documentation of Lambda's quotas."""
        return PROMISES

    def limit(self, *, timeout_s: int | None = None, concurrency: int | None = None) -> None:
        """By the function's configuration, upon which its workers end, and its reserved concurrency."""
        if timeout_s is not None:
            self._required().configure(self.id, Timeout=timeout_s)
        if concurrency is not None:
            self._required().reserve(self.id, concurrency)

    def call(self, path: str, *, query: str = "", method: str = "GET", pad_to: int = 0, beyond: bool = False) -> Called:
        """By the API's Invoke, with a Function URL's event."""
        event = self._event(path, query=query, method=method)
        if pad_to:
            event["padding"] = ""
            event["padding"] = "x" * max(0, pad_to - len(_payload(event)))
        return self._required().call(self.id, _payload(event), beyond=beyond)

    def past_platform(self, path: str) -> tuple[Endpoint, bytes]:
        """Its worker's Runtime Interface Emulator, at the port on loopback where the endpoint asks it as well."""
        workers = self._workers.find(self._launch)
        if len(workers) != 1 or not workers[0].port:
            raise DriverError(f"there is not one worker of {self.id} to be asked, but {len(workers)}")
        where, payload = Endpoint("127.0.0.1", workers[0].port), _payload(self._event(path))
        head = (
            f"POST {_INVOCATIONS} HTTP/1.1\r\nHost: {where}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        return where, head.encode() + payload

    def service_answer(self, body: bytes) -> bytes:
        """What a Function URL would make of the worker's answer."""
        try:
            told = json.loads(body)
            said = str(told["body"]).encode()
            return base64.b64decode(said, validate=True) if told.get("isBase64Encoded") else said
        except (ValueError, TypeError, KeyError):
            return b""

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Without a worker it sleeps."""
        return {SleepState.ZERO: ""}

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """End every worker."""
        if state is not SleepState.ZERO:
            raise DriverError(f"a function cannot be {state}: without a worker it sleeps")
        self.force_cold(timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """The next request does."""

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002
        """Nothing of it is kept."""
        return ()

    def _event(self, path: str, *, query: str = "", method: str = "GET") -> dict[str, Any]:
        """What a Function URL makes of a request (payload format 2.0)."""
        domain = self.endpoint.authority if self.endpoint is not None else ""
        asked = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": _AGENT}
        name = domain.partition(".")[0]
        return {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": {
                "host": domain,
                "user-agent": _AGENT,
                "accept": "*/*",
                "x-forwarded-for": "127.0.0.1",
                "x-forwarded-port": "443",
                "x-forwarded-proto": "https",
                "x-lab-nonce": self._environment.get("LAB_NONCE", ""),
            },
            "requestContext": {
                "accountId": "anonymous",
                "apiId": name,
                "domainName": domain,
                "domainPrefix": name,
                "http": asked,
                "routeKey": "$default",
                "stage": "$default",
            },
            "isBase64Encoded": False,
        }

    def _end_workers(self) -> float:
        """When that was asked for, by the monotonic clock."""
        if self._api is not None:
            self._changes += 1
            changed = {**self._environment, _COLD: str(self._changes)}
            self._api.configure(self.id, Environment={"Variables": changed})
        return time.monotonic()

    def _required(self) -> Api:
        if self._api is None:
            raise DriverError(f"the server of the function {self.id} is gone", resolution="sudo lab clean")
        return self._api

    def _processes(self) -> list[Process]:
        return list(procs.present(self._workers.processes(self._launch)))

    def _await_ended(self, processes: Sequence[Process], timeout_s: float) -> None:
        if left := procs.all_ended(processes, timeout_s):
            pids = ", ".join(str(one.pid) for one in left)
            raise CleanupError(
                f"the workers of {self.id} are gone, and their processes {pids} are not",
                resolution=f"sudo kill -9 {pids}",
            )


def _payload(event: Mapping[str, Any]) -> bytes:
    # With the spaces that Python writes: MiniStack reads an event and writes it anew in that way, and what has grown
    # beyond the limit by then is cut short.
    return json.dumps(event).encode()
