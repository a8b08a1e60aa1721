"""Whose kernel it is, by what is told from inside and what the host sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lab.errors import DriverError
from lab.features import Role
from lab.host.facts import boot_id
from lab.launch import kernels
from lab.launch.kernels import is_this_hosts

SEEN = {"self": "pid:[1]", 7: "pid:[7]", 8: "pid:[8]"}


class Instance:
    def __init__(self, pids: Mapping[int, Role] | None) -> None:
        self.pids = pids

    def host_pids(self) -> Mapping[int, Role]:
        if self.pids is None:
            raise DriverError("the engine has gone")
        return self.pids


@pytest.fixture(autouse=True)
def namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_namespace", lambda pid: SEEN.get(pid, ""))


def _ours(told: Mapping[str, Any], pids: Mapping[int, Role] | None) -> bool:
    return is_this_hosts(told, Instance(pids))  # type: ignore[arg-type]


def test_the_hosts_own_boot_id_says_so_alone() -> None:
    assert is_this_hosts({"boot_id": boot_id()}, None)


def test_another_boot_id_is_no_other_kernel_where_the_host_sees_the_namespace_that_was_told() -> None:
    assert _ours({"boot_id": "random", "pid_namespace": "pid:[7]"}, {7: Role.SERVICE, 8: Role.SHIM})


def test_it_is_another_kernel_where_the_host_sees_it_nowhere() -> None:
    other = {"boot_id": "random", "pid_namespace": "pid:[9]"}
    assert not _ours(other, {7: Role.SERVICE})
    assert not _ours({**other, "pid_namespace": "pid:[8]"}, {7: Role.SERVICE, 8: Role.SHIM}), "a tool's own"
    assert not _ours({**other, "pid_namespace": ""}, {7: Role.SERVICE})
    assert not _ours(other, None)
    assert not is_this_hosts(other, None)


def test_the_first_namespace_has_the_same_number_on_every_kernel_and_proves_nothing() -> None:
    assert not _ours({"boot_id": "a guest's", "pid_namespace": "pid:[1]"}, {7: Role.VMM})
