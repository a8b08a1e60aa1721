"""The keys of one launch: by which the lab is let in, and by which the guest is known. Made here, used once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from lab.errors import DriverUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """An Ed25519 pair in OpenSSH's own forms; `private` is a secret."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """`user` lets the lab in, `host` is the guest's own: the lab knows it before the guest does."""

    user: KeyPair
    host: KeyPair


def new_keys() -> Keys:
    """Fresh ones. Raises DriverUnavailable where paramiko, which brings the library, is not installed."""
    sdk()
    return Keys(user=_new_pair("lab"), host=_new_pair("lab-guest"))


def sdk() -> Any:
    """paramiko. Raises DriverUnavailable with the remedy."""
    try:
        import paramiko
    except ImportError as error:
        raise DriverUnavailable(
            "the Python package paramiko is not installed",
            details=str(error),
            resolution="pip install 'stratalab[libvirt]'",
        ) from error
    # It logs each connection's end with a traceback; what is to be told is told by the errors that it raises.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
    return paramiko


def _new_pair(comment: str) -> KeyPair:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(private=private, public=f"{public} {comment}")
