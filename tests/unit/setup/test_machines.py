"""What sets up machines of other kinds calls the same scripts, which are there and take what they are given."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lab.fleet.programs import program

VAGRANT = Path(__file__).parents[3] / "vagrant"


def test_user_data_is_a_cloud_config_whose_commands_are_shell() -> None:
    text = (VAGRANT / "cloud-init.yml").read_text()
    assert text.startswith("#cloud-config\n"), "cloud-init tells user data by its first line"
    assert len(text) < 16 * 1024, "clouds take no more"
    commands = yaml.safe_load(text)["runcmd"]
    for command in commands:
        assert all(isinstance(word, str) for word in command)
        if command[0] == "sh":
            subprocess.run(["sh", "-n", "-c", command[2]], check=True)
    assert "vagrant/provision.sh && vagrant/venv.sh" in commands[-1][2]


@pytest.mark.parametrize("name", ["cloud-init.yml", "Containerfile", "Vagrantfile", "roles/stratalab/tasks/main.yml"])
def test_it_calls_scripts_that_are_there(name: str) -> None:
    called = set(re.findall(r"\bvagrant/[a-z-]+\.sh", (VAGRANT / name).read_text()))
    assert called, "or what it sets up is another thing"
    assert all((VAGRANT.parent / script).is_file() for script in called)


def test_the_containerfile_calls_set_up_with_words_that_it_knows() -> None:
    line = next(line for line in (VAGRANT / "Containerfile").read_text().splitlines() if line.startswith("RUN "))
    words = set(re.findall(r"--[a-z-]+", line.partition("&&")[0]))
    known = (VAGRANT / "provision.sh").read_text()
    assert words == {word for word in words if f"    {word})" in known} != set()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["-s", "sarge"], "no recipe for 'sarge'"), (["-g", "0"], "4 to 999 GiB"), (["-x"], "box.sh [-s")],
)
def test_box_refuses_what_it_cannot_build_in_a_line(words: list[str], said: str) -> None:
    done = subprocess.run([str(VAGRANT / "box.sh"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_playbook_parses() -> None:
    pytest.importorskip("ansible")
    ansible = program("ansible-playbook")
    subprocess.run([ansible, "--syntax-check", "-i", "a,", str(VAGRANT / "fleet.yml")], check=True)
