"""What a user gives a service by `--env` is kept as a keyed digest: a change is seen, and no value read or guessed.

A plain digest of a password is found by trying passwords; this one needs the key, which never leaves the state
directory of the user who measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.store.place import state_dir

KEY_NAME = "digest.key"

_KEY_BYTES = 32
_DIGEST_HEX = 32
_LEAST_ALONE = 4
"""A value shorter than this is hidden in a text only behind its name: as 1 or no it stands in every text."""


def digests(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """For each name the `digest` of its value, and by which `key`. Raises LabError where there can be no key."""
    if not environment:
        return {}
    key = _key(state_dir() / KEY_NAME)
    name_of_key = hashlib.sha256(b"the name of the key " + key).hexdigest()[:8]
    return {
        name: {
            "digest": hmac.digest(key, f"{name}={value}".encode("utf-8", "surrogateescape"), "sha256").hex()[
                :_DIGEST_HEX
            ],
            "key": name_of_key,
        }
        for name, value in environment.items()
    }


def without_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A run's parameters as they are shown: of a lab that still kept the values, with digests in their place."""
    spec = parameters.get("spec")
    found = spec.get("environment") if isinstance(spec, Mapping) else None
    if not isinstance(found, Mapping) or not any(isinstance(value, str) for value in found.values()):
        return dict(parameters)
    told: dict[str, Any] = dict(found)
    plain = {name: value for name, value in found.items() if isinstance(value, str)}
    try:
        told |= digests(plain)
    except LabError:
        told |= {name: {"digest": "withheld", "key": ""} for name in plain}
    return {**parameters, "spec": {**dict(spec or {}), "environment": told}}


def concealed(text: str, environment: Mapping[str, str]) -> str:
    """`text`, such as an engine's complaint that repeats what it was given, without the values of `environment`."""
    for name, value in sorted(environment.items(), key=lambda item: -len(item[1])):
        hidden = f"(the value of {name})"
        for form in dict.fromkeys((value, json.dumps(value)[1:-1], repr(value)[1:-1])):
            if form:
                text = text.replace(f"{name}={form}", f"{name}={hidden}")
            if len(form) >= _LEAST_ALONE:
                text = text.replace(form, hidden)
    return text


def _key(path: Path) -> bytes:
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise LabError(
            f"{path}, the key of the digests of --env, cannot be had: {error.strerror}",
            resolution="make it yours to read and write, or set XDG_STATE_HOME",
        ) from error
    if len(key) != _KEY_BYTES:
        raise LabError(f"{path} is no key of the lab's", resolution=f"remove it: rm {path}")
    return key


def _make_key(path: Path) -> None:
    """Whole at once, whoever else makes one at the same time."""
    made = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, not a path
            file.write(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(made)
    finally:
        made.unlink(missing_ok=True)
