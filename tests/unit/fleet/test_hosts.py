"""Ansible's inventories, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.fleet.hosts import read_hosts

pytest.importorskip("ansible_runner")


def test_groups_and_ranges_and_a_pattern(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[room]\npc[01:03]\n[others]\npc02\nserver ansible_port=2222\n")
    assert sorted(read_hosts(inventory, None)) == ["pc01", "pc02", "pc03", "server"]
    assert sorted(read_hosts(inventory, "room:!pc02")) == ["pc01", "pc03"]


@pytest.mark.parametrize(
    ("text", "limit", "said"),
    [
        ("all:\n  hosts: {}\n", None, "has no hosts"),
        (": [ nonsense\n {{", None, "cannot be read"),
        ("all:\n  hosts: {a: }\n", "zorro", "--limit zorro matches no host"),
    ],
)
def test_what_names_no_host_is_refused_in_a_line(tmp_path: Path, text: str, limit: str | None, said: str) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(text)
    with pytest.raises(BadInput, match=said) as caught:
        read_hosts(inventory, limit)
    assert "\n" not in caught.value.brief


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no inventory"):
        read_hosts(tmp_path / "absent.yml", None)
