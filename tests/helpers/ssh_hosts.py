"""Hosts to be reached by SSH, made of namespaces on this machine: each has its own processes, name, machine's identity,
home, lock, /run with what engines keep there, and sshd, which listens on 127.0.0.1 only. They share the kernel, the
disk and the network: of one that is killed, others find no instance that might live."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.store.place import cache_dir

_SSHD = Path("/usr/sbin/sshd")
_PACKAGES = ("openssh-server", "libwrap0")

_INIT = """set -e
mount --make-rprivate /
hostname "$NAME"
mount --bind "$PLACE/machine-id" /etc/machine-id
mount -t tmpfs -o mode=755 none /run
mkdir -m 1777 /run/lock
mkdir -m 755 /run/sshd
[ -e /tmp/stratalab.lock ] || { umask 0; touch /tmp/stratalab.lock; umask 022; }
mount --bind "$PLACE/lock" /tmp/stratalab.lock
exec env -i PATH="$PATH" LD_LIBRARY_PATH="$LIBRARIES" "$SSHD" -D -e -f "$PLACE/sshd_config"
"""


@dataclass(slots=True)
class SshHost:
    """`kill` ends all of its processes at once, as a machine that loses its power does."""

    name: str
    place: Path
    port: int
    init: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End the first process of its PID namespace, and with it all others."""
        children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
        self.init.wait(30)

    def start(self) -> None:
        """Begin it, or begin it anew."""
        sshd, libraries = _sshd()
        own = {"PLACE": str(self.place), "NAME": self.name, "SSHD": str(sshd), "LIBRARIES": str(libraries)}
        environment = {**os.environ, **own}
        log = (self.place / "log").open("ab")
        words = ["unshare", "--mount", "--pid", "--uts", "--fork", "--mount-proc", "--kill-child"]
        self.init = subprocess.Popen(
            [*words, "--", "sh", "-c", _INIT], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as found:
                if found.recv(4) == b"SSH-":
                    return
            assert self.init.poll() is None, (self.place / "log").read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextlib.contextmanager
def ssh_hosts(place: Path, names: Sequence[str]) -> Iterator[tuple[Path, dict[str, SshHost]]]:
    """The inventory's file and the hosts, whose keys are known to it. Skips where they cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("hosts of namespaces are made by root alone")
    for program in ("ssh-keygen", "ssh", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program} here")
    _sshd()
    place.mkdir(mode=0o700)
    _key(place / "id")
    hosts = {name: _prepared(place / name, name, place / "id.pub") for name in names}
    known = place / "known_hosts"
    keys = {name: (host.place / "host.pub").read_text().split()[:2] for name, host in hosts.items()}
    known.write_text("".join(f"[127.0.0.1]:{hosts[name].port} {' '.join(key)}\n" for name, key in keys.items()))
    lines = [
        "all:",
        "  vars:",
        "    ansible_host: 127.0.0.1",
        "    ansible_user: root",
        f"    ansible_ssh_private_key_file: {place / 'id'}",
        f"    ansible_ssh_common_args: -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null",
        f"    stratalab_lab: {Path(sys.executable).parent / 'lab'}",
        "  hosts:",
        *(f"    {name}: {{ansible_port: {host.port}}}" for name, host in hosts.items()),
    ]
    inventory = place / "inventory.yml"
    inventory.write_text("\n".join(lines) + "\n")
    with contextlib.ExitStack() as stack:
        for host in hosts.values():
            host.start()
            stack.callback(_end, host)
        yield inventory, hosts


@functools.cache
def _sshd() -> tuple[Path, Path]:
    """The program and a folder of libraries: this host's, or the distribution's, unpacked beside the tests' cache and
    not installed, which would start one that listens to everybody."""
    if _SSHD.exists():
        return _SSHD, Path("/nonexistent")
    place = cache_dir() / "tests-sshd"
    sshd = place / "usr/sbin/sshd"
    if not sshd.exists() and shutil.which("apt-get"):
        place.mkdir(exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", *_PACKAGES], cwd=place, capture_output=True, check=False)
        for package in place.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(place)], capture_output=True, check=False)
    libraries = next(place.glob("usr/lib/*-linux-gnu"), place)
    tried = [str(sshd), "-t", "-f", os.devnull, "-h", os.devnull]
    runs = sshd.exists() and subprocess.run(
        tried, env={"LD_LIBRARY_PATH": str(libraries)}, capture_output=True, text=True, check=False
    )
    if not runs or "error while loading" in runs.stderr:
        pytest.skip("there is no sshd here, and none can be fetched")
    return sshd, libraries


def _prepared(place: Path, name: str, authorized: Path) -> SshHost:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    (place / "root").mkdir(mode=0o700, parents=True)
    shutil.copyfile(authorized, place / "authorized_keys")
    (place / "lock").touch()
    (place / "lock").chmod(0o666)
    (place / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    _key(place / "host")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place / 'host'}\nPidFile none\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nMaxStartups 100\n"
        f"AuthorizedKeysFile {place / 'authorized_keys'}\nStrictModes no\nSubsystem sftp internal-sftp\n"
        f"SetEnv HOME={place / 'root'} XDG_CACHE_HOME={cache}\n"
    )
    return SshHost(name, place, port, subprocess.Popen(["true"]))


def _key(path: Path) -> None:
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def _end(host: SshHost) -> None:
    if host.init.poll() is None:
        host.kill()
