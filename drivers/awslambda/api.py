"""The Lambda API of one endpoint, by boto3: the few calls that a function's life needs, each tried once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from drivers.awslambda.errors import INSTALL, code_of, translated
from lab.errors import DriverError, DriverUnavailable, LaunchError
from lab.features import Called
from lab.spec import Endpoint

REQUEST_MOST_BYTES = 6_291_556
"""What a synchronous call may send, by AWS's documentation ('Invoke payload': 6 MB, and 100 bytes)."""

NAME_PREFIX = "lab-"
_REGION = "us-east-1"
_ROLE = "arn:aws:iam::000000000000:role/stratalab"
_SETTLED_S = 30.0
_POLL_S = 0.05
_CALL_TIMEOUT_S = 930  # beyond the longest call that the contract knows


Listed = tuple[str, Mapping[str, str], Mapping[str, str]]
"""A function by its name, its tags, and its environment."""


class Api:
    """One endpoint."""

    def __init__(self, url: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise DriverUnavailable("boto3 is not installed", details=str(error), resolution=INSTALL) from error
        self.url = url
        # An emulator takes any credentials, and a user's own go nowhere by mistake. Retries would hide a refusal.
        given = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": _REGION}
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=10,
            read_timeout=_CALL_TIMEOUT_S,
            max_pool_connections=64,
            proxies={},
        )
        with translated("reach the endpoint", DriverUnavailable):
            self._client: Any = boto3.client("lambda", endpoint_url=url, config=config, **given)

    def look(self) -> None:
        """Raises DriverUnavailable where no Lambda API answers."""
        with translated("list functions", DriverUnavailable):
            self._client.list_functions(MaxItems=1)

    def create(self, name: str, **settings: Any) -> None:
        """Raises LaunchError."""
        with translated("create the function", LaunchError):
            self._client.create_function(FunctionName=name, Role=_ROLE, PackageType="Image", **settings)

    def make_url(self, name: str) -> Endpoint:
        """Where the function answers HTTP. Raises LaunchError."""
        with translated("give the function a URL", LaunchError):
            told = self._client.create_function_url_config(FunctionName=name, AuthType="NONE")
        return self._endpoint(str(told["FunctionUrl"]))

    def url_of(self, name: str) -> Endpoint | None:
        """The same of a function found again; None where it has none."""
        with translated("ask for the function's URL"):
            try:
                told = self._client.get_function_url_config(FunctionName=name)
            except Exception as error:
                if code_of(error) == "ResourceNotFoundException":
                    return None
                raise
        return self._endpoint(str(told["FunctionUrl"]))

    def functions(self) -> Iterator[Listed]:
        """Each function of the lab's. Raises DriverError."""
        with translated("list functions"):
            for page in self._client.get_paginator("list_functions").paginate():
                for told in page["Functions"]:
                    name = str(told["FunctionName"])
                    if name.startswith(NAME_PREFIX):
                        tags = self._client.list_tags(Resource=told["FunctionArn"])["Tags"]
                        yield name, tags, (told.get("Environment") or {}).get("Variables") or {}

    def configure(self, name: str, **settings: Any) -> None:
        """Change it, and wait until that is done; of one that is gone nothing is changed. Raises DriverError."""
        with translated("change the function"):
            if _there(lambda: self._client.update_function_configuration(FunctionName=name, **settings)):
                self._settle(name)

    def reserve(self, name: str, concurrency: int | None) -> None:
        """So many calls at a time, 0 being none; with None as many as come. Raises DriverError."""
        with translated("set the function's concurrency"):
            if concurrency is None:
                _there(lambda: self._client.delete_function_concurrency(FunctionName=name))
            else:
                wanted = {"FunctionName": name, "ReservedConcurrentExecutions": concurrency}
                _there(lambda: self._client.put_function_concurrency(**wanted))

    def call(self, name: str, payload: bytes, *, beyond: bool = False) -> Called:
        """Call it and wait. Raises DriverError for more than the contract allows, unless what is `beyond` is tried; and
        where nothing answers."""
        if len(payload) > REQUEST_MOST_BYTES and not beyond:
            raise DriverError(
                f"a call's payload of {len(payload)} bytes is more than the contract's {REQUEST_MOST_BYTES}",
                resolution="send less: emulators cut it short and say nothing",
            )
        from botocore.exceptions import ClientError

        with translated("call the function"):
            try:
                told = self._client.invoke(FunctionName=name, Payload=payload)
            except ClientError as error:
                response = error.response
                status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                reason = str(response.get("Reason") or response.get("Error", {}).get("Message", ""))
                return Called(status=status, error=code_of(error), said=reason, payload=b"")
            body = told["Payload"].read()
        failed = str(told.get("FunctionError") or "")
        return Called(status=int(told["StatusCode"]), error=failed, said=_said(body) if failed else "", payload=body)

    def delete(self, name: str) -> None:
        """Remove it; nothing happens where it is gone. Raises DriverError."""
        with translated("delete the function"):
            _there(lambda: self._client.delete_function(FunctionName=name))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _settle(self, name: str) -> None:
        deadline = time.monotonic() + _SETTLED_S
        while True:
            told = self._client.get_function_configuration(FunctionName=name)
            if told.get("LastUpdateStatus", "Successful") != "InProgress" and told.get("State") != "Pending":
                break
            if time.monotonic() > deadline:
                raise DriverError(f"the function's change was not done within {_SETTLED_S:g} s")
            time.sleep(_POLL_S)
        if told.get("LastUpdateStatus") == "Failed":
            raise DriverError(f"the function could not be changed: {told.get('LastUpdateStatusReason', '')}")

    def _endpoint(self, function_url: str) -> Endpoint:
        """The endpoint's own address; the function is told by the name that its URL has, which is AWS's own."""
        at = urlsplit(self.url)
        return Endpoint(at.hostname or "", at.port or 80, authority=urlsplit(function_url).hostname or "")


def _there(ask: Any) -> bool:
    """Whether what `ask` is about was there."""
    try:
        ask()
    except Exception as error:
        if code_of(error) == "ResourceNotFoundException":
            return False
        raise
    return True


def _said(body: bytes) -> str:
    try:
        told = json.loads(body)
    except ValueError:
        return " ".join(body[:200].decode(errors="replace").split())
    told = told if isinstance(told, dict) else {}
    return ": ".join(str(told[key]) for key in ("errorType", "errorMessage") if told.get(key))
