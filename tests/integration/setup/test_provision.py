"""Set-up and its undoing, with the machine played by a few programs: what they are asked to do is what is tested."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
PLAYED = Path(__file__).parent / "played"
TOOLS = """
bash basename cat chmod comm cp cut dirname echo env find grep head mkdir mv rm rmdir sed setsid sh sleep sort stat
tac tail tee test touch tr uniq xargs
"""
EVERYTHING = ("cc", "dockerd", "libvirtd", "qemu-system-x86_64", "mke2fs", "pkg-config")


class Machine:
    """A machine that is played: its files below `root`, its programs those in played/ and a few harmless real ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.world = root / "world"
        self.bin = root / "bin"
        self.state = root / "state"
        self.apis: list[subprocess.Popen[bytes]] = []
        # A copy, because with-access.sh gives files of its checkout to the user who is played.
        self.scripts = Path(shutil.copytree(CHECKOUT / "vagrant", root / "checkout/vagrant"))
        shutil.copytree(PLAYED, self.bin)
        for directory in ("etc", "proc/net", "run", "var", "dev", "world/needs", "home", "var/lib/apt/lists"):
            (root / directory).mkdir(parents=True)
        (root / "var/run").symlink_to("../run")
        (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
        (root / "proc/net/unix").write_text("Num RefCount Protocol Flags Type St Inode Path\n")
        (root / "var/lib/apt/lists/debian_main_Packages").touch()
        for name in ("installed", "refused", "broken", "unneeded", "also-removed", "units", "log"):
            (self.world / name).touch()
        (self.world / "uid").write_text("0")
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def play(self, name: str, script: str = "exit 0") -> None:
        path = self.bin / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    def has_everything(self) -> None:
        for name in EVERYTHING:
            self.play(name)
        (self.root / "libc.a").touch()
        self.play("cc", f"echo {self.root}/libc.a")
        (self.world / "venv").touch()
        (self.world / "headers").touch()

    def listen(self, path: str) -> None:
        subprocess.run([self.bin / "listen", path], env=self.environment({}), check=True)

    def serve_docker(self, path: str) -> None:
        """Let a Docker API answer on the socket at `path`."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        self.apis.append(subprocess.Popen([sys.executable, PLAYED / "docker-api.py", self.root / path]))
        deadline = time.monotonic() + 30
        while not answers(self.root / path):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "SYSROOT": str(self.root),
            "STATE_DIR": str(self.state),
            "WORLD": str(self.world),
            "PLAYED": str(PLAYED),
            "HOME": str(self.root / "home"),
            "REAL_PYTHON": os.path.realpath(sys.executable),
            "XDG_RUNTIME_DIR": "/run/user/1000",
            **extra,
        }

    def run(self, script: str, *arguments: str, expect: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [shutil.which("bash") or "bash", self.scripts / script, *arguments],
            env=self.environment(extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def calls(self, *words: str) -> list[str]:
        return [line for line in (self.world / "log").read_text().splitlines() if all(word in line for word in words)]

    def installs(self) -> list[str]:
        return [call for call in self.calls("apt-get", " install ") if " -s " not in call and "sudo" not in call]

    def noted(self, name: str) -> list[str]:
        path = self.state / name
        return path.read_text().split() if path.exists() else []


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not pytest's own directory, whose path is too long for a Unix socket's 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="lab-"))
    made = Machine(root)
    try:
        yield made
    finally:
        for api in made.apis:
            api.terminate()
            api.wait()
        shutil.rmtree(root)


def test_what_is_there_is_neither_installed_nor_started(machine: Machine) -> None:
    machine.has_everything()
    machine.serve_docker("run/docker.sock")
    machine.listen("libvirt/libvirt-sock")
    said = machine.run("provision.sh").stdout
    assert "To install: nothing" in said
    assert "To start: nothing" in said
    assert machine.calls() == []
    assert not machine.state.exists()


def test_the_plan_comes_first_and_names_what_each_package_brings(machine: Machine) -> None:
    (machine.world / "needs/docker.io").write_text("runc\ncontainerd\n")
    said = machine.run("provision.sh", ENGINES="process,docker").stdout
    assert "docker.io" in said[: said.index("apt-get installs now")]
    assert "runc containerd" in said[: said.index("apt-get installs now")]
    assert "brought up to date for that: libc6" in said[: said.index("apt-get installs now")]


def test_every_installation_forbids_removal_and_recommendations(machine: Machine) -> None:
    machine.run("provision.sh")
    calls = machine.calls("apt-get", " install ")
    assert len(machine.installs()) == 3
    assert all("--no-remove" in call and "--no-install-recommends" in call for call in calls)


@pytest.mark.parametrize(
    ("engines", "there", "absent"),
    [
        ("process", ["gcc", "libc6-dev", "python3-venv"], ["docker.io", "libvirt-daemon-system", "qemu-system-x86"]),
        ("process,docker", ["gcc", "docker.io"], ["libvirt-daemon-system", "qemu-system-x86", "libvirt-dev"]),
        ("swarm", ["docker.io"], ["libvirt-daemon-system"]),
        ("libvirt", ["libvirt-daemon-system", "qemu-system-x86", "libvirt-dev", "python3-dev"], ["docker.io"]),
    ],
)
def test_engines_limits_what_is_installed(
    machine: Machine, engines: str, there: Sequence[str], absent: Sequence[str]
) -> None:
    machine.run("provision.sh", ENGINES=engines)
    words = " ".join(machine.installs()).split()
    assert set(there) <= set(words)
    assert not set(absent) & set(words)


def test_the_tests_own_tools_are_installed_only_when_asked_for(machine: Machine) -> None:
    machine.run("provision.sh", ENGINES="process")
    assert not {"strace", "libcap2-bin"} & set(" ".join(machine.installs()).split())
    said = machine.run("provision.sh", "--tests", ENGINES="process").stdout
    [plan] = [line for line in said.splitlines() if line.startswith("To install with apt-get: ")]
    assert {"strace", "libcap2-bin", "chromium-headless-shell"} <= set(plan.split())
    engines = ("podman", "netavark", "systemd-container", "lxc", "bubblewrap")
    assert machine.installs()[-2].endswith(" chromium-headless-shell"), "by itself: what cannot be had is not all"
    assert machine.installs()[-1].endswith(f" strace libcap2-bin umoci skopeo buildah {' '.join(engines)}")
    assert {"strace", "libcap2-bin", "umoci", "skopeo", "buildah", *engines} <= set(machine.noted("packages")) & set(
        machine.noted("explicit")
    )


def test_the_tests_of_guests_of_other_machines_get_their_emulators(machine: Machine) -> None:
    machine.run("provision.sh", "--tests", ENGINES="libvirt")
    others = {"qemu-system-arm", "qemu-system-misc", "debian-archive-keyring"}
    assert others <= set(" ".join(machine.installs()).split())


def test_what_guests_are_built_with_comes_with_the_tests_of_guests(machine: Machine) -> None:
    machine.run("provision.sh", "--tests", ENGINES="libvirt")
    wanted = {"mmdebstrap", "qemu-utils", "debian-archive-keyring", "syslinux", "mtools", "dosfstools"}
    assert wanted <= set(machine.noted("packages")) & set(machine.noted("explicit"))


def test_tools_that_are_there_are_not_installed_and_the_plan_alone_installs_none(machine: Machine) -> None:
    machine.play("strace")
    said = machine.run("provision.sh", "--plan", "--tests", ENGINES="process").stdout
    assert "libcap2-bin" in said and "strace" not in said
    assert machine.installs() == []


def test_tools_that_cannot_be_had_leave_the_rest_of_the_set_up(machine: Machine) -> None:
    (machine.world / "refused").write_text("libcap2-bin\n")
    said = machine.run("provision.sh", "--tests", ENGINES="process").stderr
    assert "cannot install strace libcap2-bin" in said
    assert "gcc" in machine.noted("packages")


@pytest.mark.parametrize(("goal", "tools"), [("test", True), ("accept", True), ("run", False)])
def test_only_the_checks_ask_for_the_tests_tools(goal: str, tools: bool) -> None:
    if (make := shutil.which("make")) is None:
        pytest.skip("no make on this machine")
    done = subprocess.run([make, "-n", "-C", CHECKOUT, goal], capture_output=True, text=True, timeout=60, check=True)
    assert ("provision.sh --tests" in done.stdout) is tools
    assert "vagrant/provision.sh" in done.stdout


@pytest.mark.parametrize(("enabled", "wanted"), [("Y", True), ("N", False), (None, False)])
def test_docker_gets_apparmors_parser_where_the_kernel_has_apparmor_on(
    machine: Machine, enabled: str | None, wanted: bool
) -> None:
    if enabled is not None:
        parameters = machine.root / "sys/module/apparmor/parameters"
        parameters.mkdir(parents=True)
        (parameters / "enabled").write_text(f"{enabled}\n")
    machine.run("provision.sh", ENGINES="process,docker")
    assert ("apparmor" in " ".join(machine.installs()).split()) is wanted


def test_an_unknown_engine_is_refused_before_anything_is_done(machine: Machine) -> None:
    assert "'podman'" in machine.run("provision.sh", ENGINES="process,podman", expect=2).stderr
    assert machine.calls() == []


@pytest.mark.parametrize("path", ["run/docker.sock", "run/user/1000/docker.sock", "run/podman/podman.sock"])
def test_any_docker_api_that_answers_counts_as_installed(machine: Machine, path: str) -> None:
    machine.serve_docker(path)
    machine.run("provision.sh", ENGINES="docker")
    assert not machine.calls("docker.io")


def test_apts_lists_are_fetched_for_the_guests_kernel_though_all_is_installed(machine: Machine) -> None:
    machine.has_everything()
    machine.listen("libvirt/libvirt-sock")
    (machine.root / "var/lib/apt/lists/debian_main_Packages").unlink()
    machine.run("provision.sh", ENGINES="libvirt")
    assert machine.calls("apt-get") == ["apt-get -qq update"]


def test_docker_host_is_the_users_choice(machine: Machine) -> None:
    said = machine.run("provision.sh", ENGINES="docker", DOCKER_HOST="tcp://127.0.0.1:1").stdout
    assert not machine.calls("docker.io")
    assert "To start: nothing" in said


def test_a_dead_socket_does_not_count_as_an_answer(machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(machine.root / "run/docker.sock"))
    machine.run("provision.sh", ENGINES="docker")
    assert machine.calls("docker.io")


def test_a_stopped_docker_is_started_by_systemd_and_never_replaced(machine: Machine) -> None:
    machine.has_everything()
    (machine.root / "run/systemd/system").mkdir(parents=True)
    (machine.world / "units").write_text("virtlogd.socket\n")
    machine.listen("libvirt/libvirt-sock")
    try:
        machine.run("provision.sh")
        assert machine.installs() == []
        assert machine.calls("systemctl start") == ["systemctl start docker.service"]
        assert machine.noted("started") == ["unit", "containerd.service", "unit", "docker.service"]
    finally:
        machine.run("uninstall.sh", "--stop")
        assert machine.calls("systemctl stop") == ["systemctl stop containerd.service docker.service"]


def test_without_systemd_the_daemon_is_started_by_hand_and_stopped_again(machine: Machine) -> None:
    machine.has_everything()
    machine.play("dockerd", 'exec "$REAL_PYTHON" "$PLAYED/docker-api.py" "$SYSROOT/run/docker.sock"')
    machine.run("provision.sh", ENGINES="docker")
    kind, name, pid, *_ = machine.noted("started")
    assert (kind, name) == ("pid", "dockerd")
    assert b"docker-api.py" in Path(f"/proc/{pid}/cmdline").read_bytes()

    machine.run("provision.sh", ENGINES="docker")
    assert len(machine.noted("started")) == 5, "a second call starts nothing more"

    machine.run("uninstall.sh", "--stop")
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    assert machine.noted("started") == []


def test_a_daemon_that_its_package_started_is_stopped_again(machine: Machine) -> None:
    (machine.world / "postinst").mkdir()
    (machine.world / "postinst/docker.io").write_text(
        '"$REAL_PYTHON" "$PLAYED/docker-api.py" "$SYSROOT/run/docker.sock" >/dev/null 2>&1 &\n'
        'echo $! >"$SYSROOT/run/docker.pid"\n'
        "until [ -S $SYSROOT/run/docker.sock ]; do sleep 0.1; done\n"
    )
    machine.run("provision.sh", ENGINES="docker")
    assert machine.noted("started")[:2] == ["pid", "dockerd"]
    machine.run("uninstall.sh", "--stop")
    assert not answers(machine.root / "run/docker.sock")


def test_a_daemon_that_does_not_come_up_is_told_with_the_end_of_its_log(machine: Machine) -> None:
    machine.has_everything()
    machine.play("dockerd", "echo 'no storage driver fits' >&2; exit 1")
    said = machine.run("provision.sh", ENGINES="docker").stderr
    assert "no storage driver fits" in said
    assert "its targets will be skipped" in said


def test_with_neither_root_nor_sudo_the_commands_are_shown_and_nothing_is_done(machine: Machine) -> None:
    (machine.world / "uid").write_text("1000")
    (machine.bin / "sudo").unlink()
    said = machine.run("provision.sh", ENGINES="docker").stderr
    assert "apt-get install --no-remove --no-install-recommends" in said
    assert "docker.io" in said
    assert machine.installs() == []
    assert not machine.state.exists()


def test_a_user_with_sudo_uses_it_only_for_what_needs_it(machine: Machine) -> None:
    (machine.world / "uid").write_text("1000")
    machine.run("provision.sh", ENGINES="process")
    assert machine.calls("sudo", "apt-get", "install")
    assert not machine.calls("sudo", "-s", "install")


def test_plan_changes_nothing(machine: Machine) -> None:
    (machine.world / "uid").write_text("1000")
    machine.run("provision.sh", "--plan", FIX_KVM="1")
    assert all(" -s " in call for call in machine.calls())
    assert not machine.state.exists()


def test_for_an_image_it_installs_and_starts_nothing(machine: Machine) -> None:
    machine.play("dockerd", 'touch "$SYSROOT/started"')
    said = machine.run("provision.sh", "--install-only", FIX_KVM="1").stdout
    assert "To start: nothing" in said and "/dev/kvm" not in said
    assert any("libvirt-daemon-system" in call for call in machine.installs())
    assert not machine.noted("started") and not machine.noted("kvm")
    assert not (machine.root / "started").exists()


def test_an_engine_that_would_remove_something_is_left_out_and_the_others_go_on(machine: Machine) -> None:
    (machine.world / "refused").write_text("docker.io\n")
    said = machine.run("provision.sh").stderr
    assert "remove is disabled" in said
    assert not any("docker.io" in call for call in machine.installs())
    assert any("libvirt-daemon-system" in call for call in machine.installs())


def test_without_the_compiler_or_python_set_up_fails(machine: Machine) -> None:
    (machine.world / "refused").write_text("gcc\n")
    machine.run("provision.sh", expect=1)


def test_only_what_became_installed_is_noted(machine: Machine) -> None:
    (machine.world / "installed").write_text("libc6\n")  # which is brought up to date
    (machine.world / "needs/docker.io").write_text("runc\ncontainerd\n")
    (machine.world / "broken").write_text("containerd\n")
    machine.run("provision.sh", ENGINES="docker")
    assert {"docker.io", "runc", "gcc"} <= set(machine.noted("packages"))
    assert not {"containerd", "libc6"} & set(machine.noted("packages"))
    assert "runc" not in machine.noted("explicit")


def provisioned(machine: Machine) -> None:
    (machine.world / "needs/docker.io").write_text("runc\n")
    machine.run("provision.sh", ENGINES="docker")
    with (machine.world / "installed").open("a") as installed:
        installed.write("users-own\nolder-orphan\n")


def test_uninstall_removes_what_was_noted_and_nothing_else(machine: Machine) -> None:
    provisioned(machine)
    (machine.world / "unneeded").write_text("docker.io\nrunc\npython3-venv\nolder-orphan\n")
    said = machine.run("uninstall.sh").stdout
    removed = machine.calls("apt-get", " remove ")[-1].split(" remove ")[1].split()
    assert sorted(removed) == ["docker.io", "python3-venv", "runc"]
    assert "something else needs them: gcc libc6-dev" in said
    assert "older-orphan" in (machine.world / "installed").read_text()
    assert not machine.state.exists()
    assert "Nothing to take back" in machine.run("uninstall.sh").stdout


def test_uninstall_removes_nothing_when_a_package_of_the_users_would_go_too(machine: Machine) -> None:
    provisioned(machine)
    (machine.world / "unneeded").write_text("docker.io\n")
    (machine.world / "also-removed").write_text("users-own\n")
    assert "nothing was removed" in machine.run("uninstall.sh", expect=1).stderr
    assert all(" -s " in call for call in machine.calls("apt-get", " remove "))
    assert machine.calls("apt-mark manual", "docker.io")
    assert machine.noted("packages")


@pytest.mark.parametrize("argument", ["--plan", "--stop"])
def test_uninstall_leaves_packages_unless_asked(machine: Machine, argument: str) -> None:
    provisioned(machine)
    machine.run("uninstall.sh", argument)
    assert not machine.calls("apt-get", " remove ")
    assert "docker.io" in machine.noted("packages")


def test_uninstall_refuses_while_containers_run_unless_forced(machine: Machine) -> None:
    provisioned(machine)
    (machine.root / "proc/77").mkdir()
    (machine.root / "proc/77/comm").write_text("containerd-shim\n")
    assert "1 containerd-shim" in machine.run("uninstall.sh", expect=1).stderr
    machine.run("uninstall.sh", FORCE="1")


def test_a_process_that_took_over_a_noted_pid_is_left_alone(machine: Machine) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    machine.state.mkdir()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (machine.state / "started").write_text(f"pid dockerd {bystander.pid} 1 {boot}\n")
        machine.run("uninstall.sh", "--stop")
        assert bystander.poll() is None
        bystander.kill()


def test_beside_anothers_libvirt_the_kvm_device_is_changed_only_when_asked_and_given_back(machine: Machine) -> None:
    machine.has_everything()
    machine.listen("libvirt/libvirt-sock")
    device = machine.root / "dev/kvm"
    device.touch()
    device.chmod(0o600)
    assert "FIX_KVM=1" in machine.run("provision.sh", ENGINES="libvirt").stderr
    assert device.stat().st_mode & 0o777 == 0o600
    machine.run("provision.sh", ENGINES="libvirt", FIX_KVM="1")
    assert machine.calls("chgrp kvm")
    assert device.stat().st_mode & 0o777 == 0o660
    machine.run("uninstall.sh", "--stop")
    assert device.stat().st_mode & 0o777 == 0o600


def test_a_libvirt_that_the_set_up_starts_gets_the_kvm_device_as_by_udev(machine: Machine) -> None:
    machine.has_everything()
    device = machine.root / "dev/kvm"
    device.touch()
    device.chmod(0o600)
    said = machine.run("provision.sh", ENGINES="libvirt").stdout
    assert said.index("To change: group and mode of /dev/kvm") < said.index("Starting libvirt")
    assert device.stat().st_mode & 0o777 == 0o660
    machine.run("uninstall.sh", "--stop")
    assert device.stat().st_mode & 0o777 == 0o600


def test_a_rootless_docker_is_what_a_command_is_given(machine: Machine) -> None:
    machine.serve_docker("run/user/1000/docker.sock")
    said = machine.run("with-access.sh", "sh", "-c", 'echo "$DOCKER_HOST"', ENGINES="docker").stdout
    assert said == "unix:///run/user/1000/docker.sock\n"


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get on this machine")
def test_the_plan_of_this_very_machine() -> None:
    done = subprocess.run(
        [CHECKOUT / "vagrant/provision.sh", "--plan"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "To install" in done.stdout
    assert "To start" in done.stdout
