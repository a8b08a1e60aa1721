"""What Docker's command line was told of registries' credentials: config.json and its helper programs.

https://docs.docker.com/reference/cli/docker/login/#credential-stores
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import DriverError

_HUB = "https://index.docker.io/v1/"
_TIMEOUT_S = 30.0
_NONE = "credentials not found in native keychain"
"""What every helper says where it has none (docker-credential-helpers, credentials/error.go)."""


def registry_auth(reference: str, folder: Path) -> dict[str, str]:
    """The header with the credentials for the registry of `reference`; empty where there are none.

    Raises DriverError for a helper that is not there or fails, naming it and the file that asks for it.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DriverError(f"{path} cannot be read as Docker's settings: {error}") from error
    registry = _registry(reference)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    told = _ask(str(helper), registry, path) if helper else _written(config.get("auths") or {}, registry)
    if not told:
        return {}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(told).encode()).decode()}


def _registry(reference: str) -> str:
    """As config.json names it (distribution/reference, `splitDockerDomain`)."""
    first, slash, _ = reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named and first not in ("docker.io", "index.docker.io") else _HUB


def _written(auths: Mapping[str, Any], registry: str) -> dict[str, str]:
    for name in (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"):
        entry = auths.get(name)
        if isinstance(entry, dict) and entry:
            if entry.get("identitytoken"):
                return {"identitytoken": str(entry["identitytoken"]), "serveraddress": registry}
            try:
                user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
            except ValueError:
                return {}
            return {"username": user, "password": password.rstrip("\0"), "serveraddress": registry} if user else {}
    return {}


def _ask(helper: str, registry: str, config: Path) -> dict[str, str]:
    program = f"docker-credential-{helper}"
    found = shutil.which(program)
    mend = f"install {program}, or take credsStore and credHelpers out of {config}"
    if found is None:
        raise DriverError(f"{config} names the credentials helper {program}, which is not in PATH", resolution=mend)
    try:
        done = subprocess.run(
            [found, "get"], input=registry, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode != 0 and _NONE in done.stdout + done.stderr:
            return {}
        if done.returncode != 0:
            said = " ".join((done.stdout or done.stderr).split())[:200]
            raise DriverError(f"the credentials helper {found}, which {config} names, failed: {said}", resolution=mend)
        told = json.loads(done.stdout)
        user, secret = str(told["Username"]), str(told["Secret"])
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"the credentials helper {found}, which {config} names, gave no answer in {_TIMEOUT_S:g} s",
                          resolution=mend) from error  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DriverError(f"the credentials helper {found}, which {config} names, cannot be used", resolution=mend,
                          details=f"{type(error).__name__}: {error}") from error  # fmt: skip
    if user == "<token>":  # an identity token (docker/cli, credentials/native_store.go)
        return {"identitytoken": secret, "serveraddress": registry}
    return {"username": user, "password": secret, "serveraddress": registry}
