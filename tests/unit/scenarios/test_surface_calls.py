"""The table of system calls, and what is made of the answers to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError, MeasurementError
from scenarios.surface.syscalls import TABLE, Call, Outcome, Sees, differs, parse, refused, table


def test_every_row_says_why() -> None:
    rows = table().values()
    assert len(rows) > 380
    assert [row for row in rows if len(row.why) < len("of nobody")] == []
    assert [row for row in rows if row.sees is None and len(row.why) < 30] == []  # what is not tried owes more


@pytest.mark.parametrize(
    "row",
    [
        "TRY(read, FAULT, NOFD, BAD, 0)",
        'TRY(read, "no such descriptor", NOFD, BAD, 0)',
        'TRY(read, FAULT, "", NOFD, BAD, 0)',
        'NOT(read, FAULT, "no such descriptor")',
        'TRY(write, FAULT, "no such descriptor", NOFD)',
    ],
)
def test_a_row_without_a_reason_or_twice_there_is_an_error(row: str, tmp_path: Path, monkeypatch: Any) -> None:
    for name in TABLE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('TRY(write, FAULT, "no such descriptor", NOFD)\n')
    (tmp_path / TABLE[1]).write_text(row + "\n")
    (tmp_path / TABLE[2]).write_text("")
    monkeypatch.setattr("scenarios.surface.syscalls.SOURCE_DIR", tmp_path)
    with pytest.raises(LabError, match="cannot be read"):
        table.__wrapped__()


def answer(*calls: Sequence[object], uid: str = "0\t0\t0\t0", capabilities: str = "0") -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps({"uid": uid, "cap_eff": capabilities, "calls": calls}))
    return told


def test_an_answer_is_read_with_its_reasons() -> None:
    probed = parse(answer(["read", 0, "errno", 9], ["keyctl", 250, "errno", 95], ["sync", 162, "untried"]))
    read, keyctl, sync = probed.calls
    assert read == Call(
        name="read", number=0, outcome=Outcome.ERRNO, errno="EBADF", why="no such descriptor", sees=Sees.FAULT
    )
    assert (keyctl.said, sync.said, sync.sees) == ("EOPNOTSUPP", "untried", None)
    assert "every file system" in sync.why
    assert parse(answer(["mq_notify", 244, "signal", 31], ["times", 100, "timeout"])).calls[0].said == "SIGSYS"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"error": "none"},
        answer(["no_such_call", 1, "ok"]),
        answer(["read", 0, "perhaps"]),
        answer(["read"]),
        answer(uid="root"),
        answer(capabilities=""),
        {"uid": 0, "cap_eff": "0", "calls": []},
    ],
)
def test_what_is_no_such_answer_is_an_error(told: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError, match="cannot be read"):
        parse(told)


def test_a_refusal_is_no_fault_and_no_lack() -> None:
    told = parse(
        answer(
            ["mount", 165, "errno", 1],
            ["setpriority", 141, "errno", 13],
            ["read", 0, "errno", 9],
            ["getpid", 39, "ok"],
            ["brk", 12, "signal", 31],
            ["mmap", 9, "signal", 11],
            ["clone3", 435, "errno", 38],
            ["mseal", 462, "errno", 38],
            ["times", 100, "timeout"],
        )
    ).calls
    control = parse(answer(["clone3", 435, "errno", 22], ["mseal", 462, "errno", 38], ["read", 0, "errno", 9])).calls
    assert [call.name for call in refused(told)] == ["mount", "setpriority", "brk"]
    assert [call.name for call in refused(told, control)] == ["mount", "setpriority", "brk", "clone3"]
    assert [pair.call.name for pair in differs(told, control)] == ["clone3"]


def test_what_was_not_tried_on_both_sides_does_not_differ() -> None:
    untried = parse(answer(["read", 0, "late"], ["write", 1, "unmade", 11], ["close", 3, "errno", 9])).calls
    control = parse(answer(["read", 0, "errno", 9], ["write", 1, "errno", 9], ["close", 3, "late"])).calls
    assert list(differs(untried, control)) == []
    assert list(differs(control, untried)) == []
