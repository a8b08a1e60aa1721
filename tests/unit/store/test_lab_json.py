"""The lab takes back what it exported, of this version and the one before, and says what is wrong with a file."""

from __future__ import annotations

import copy
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.cli.main import main
from lab.errors import BadInput
from lab.host.facts import host_id_of
from lab.store.database import Store
from lab.store.export import to_json
from lab.store.importing.file import read_file
from lab.store.record import EXPORT_VERSION

EARLIER = Path(__file__).parents[2] / "data/earlier"


def test_an_export_is_read_back_whole(tmp_path: Path, make_record: Any) -> None:
    said = {
        "accepted_at": "2026-01-02T00:00:00+00:00",
        "accepted_note": "good",
        "notes": (("2026-01-03T00:00:00+00:00", "x"),),
    }
    record = make_record(n=3, host_id="abc", host_name="lab 1", **said)
    path = tmp_path / "run.json"
    path.write_text(to_json(record))
    assert to_json(read_file(path)) == path.read_text()
    (tmp_path / "run.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    again = read_file(tmp_path / "run.json.gz")
    with Store.open(str(tmp_path / "lab.db")) as store:
        assert store.import_run(again)
        assert not store.import_run(read_file(path))
        assert to_json(store.load("last")) == path.read_text()
        path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))  # as another tool may leave it
        assert not store.import_run(read_file(path))


@pytest.mark.parametrize("scenario", ["boot", "memory"])
def test_an_export_of_version_1_is_the_same_run_as_in_a_store_of_version_1(scenario: str, tmp_path: Path) -> None:
    (tmp_path / "lab.db").write_bytes((EARLIER / "lab.db").read_bytes())
    record = read_file(EARLIER / f"{scenario}.json")
    with Store.open(str(tmp_path / "lab.db")) as store:
        assert not store.import_run(record), "it was there, with the same content"
        assert record.run.host_id == store.load(record.run.id).run.host_id
    assert record.run.host_id == host_id_of(record.run.owner.partition(":")[0])


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *where, last = path.split(".")

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for part in where:
            place = place[int(part)] if part.isdigit() else place[part]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("version", EXPORT_VERSION + 1), f"of version {EXPORT_VERSION + 1}, and this lab reads 1 to"),
        (changed("version", "2"), "of version '2'"),
        (changed("run.status", "running"), "had not ended when it was exported"),
        (changed("run.status", "well"), "run.status: "),
        (changed("run.id", "../../etc/passwd"), "run.id: "),
        (changed("run.id", "last x"), "run.id: "),
        (changed("run.id", "last"), "run.id: 'last' means another run each time"),
        (changed("run.started_at", "yesterday"), "run.started_at: "),
        (changed("run.started_at", "2026-01-01T00:00:00+02:00"), "run.started_at: not a time in UTC"),
        (changed("run.colour", "red"), "run.colour: Extra inputs"),
        (changed("samples.0.value", "1.5"), "samples.0.value: "),
        (changed("samples.0.value", 1e999), "samples.0.value: .*finite"),
        (changed("samples.0.target", "a\0b"), "samples.0.target: a name with a NUL"),
        (changed("samples.0.warmup", 1), "samples.0.warmup: "),
        (changed("samples.0.iteration", -1), "samples.0.iteration: "),
        (changed("samples", "many"), "samples: "),
        (changed("timelines.0.marks", [{"phase": "born"}]), "phase: .*and 2 more"),
        (changed("targets.1.target", "process"), "tells twice of process"),
    ],
)
def test_what_is_broken_is_named_in_one_line_and_nothing_is_entered(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path, make_record: Any
) -> None:
    document = copy.deepcopy(json.loads(to_json(make_record(n=1))))
    change(document)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document).replace("Infinity", "1e999"))
    with pytest.raises(BadInput, match=message) as caught:
        read_file(path)
    assert str(path) in caught.value.brief and "\n" not in str(caught.value) and caught.value.resolution


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"[" * 100_000, "is no JSON: it is nested too deep"),
        (b'{"a": NaN}', "is no JSON: NaN is no value of JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        (gzip.compress(b"{}", mtime=0)[:-9], "broken gzip|cannot be read"),
        (b"{}", "is of no tool that the lab can read"),
        (b"[1]", "is of no tool that the lab can read"),
        (b'{"run": 1, "host": {}, "targets": [], "samples": [], "timelines": []}', "run: "),
    ],
)
def test_what_is_no_run_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command on a store of its own; gives the exit code and what it printed and complained of."""
    monkeypatch.setenv("LAB_STORE", str(tmp_path / "lab.db"))
    monkeypatch.delenv("LAB_FORWARD", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lab", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, told.out, told.err

    return run


def test_from_the_command_line(lab: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    files = [str(EARLIER / f"{name}.json") for name in ("boot", "memory")]
    code, out, _ = lab("import", *files)
    assert code == 0 and out.count("is imported") == 2
    code, out, _ = lab("import", *files, "--json")
    assert code == 0 and [one["new"] for one in json.loads(out)] == [False, False]
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    code, _, err = lab("import", str(broken))
    assert code == 2 and err.startswith(f"lab: {broken} is of no tool") and len(err.splitlines()) == 2
    run_id = json.loads(Path(files[0]).read_text())["run"]["id"]
    assert lab("accept", run_id, "--note", "the new allocator")[:2] == (0, f"{run_id} is accepted\n")
    assert lab("runs", "note", run_id, "the fan was replaced")[:2] == (0, f"{run_id} has 1 note\n")
    listed = lab("runs")[1]
    assert "accepted: the new allocator" in listed
    shown = lab("show", run_id)[1]
    assert "accepted as the new normal" in shown and ": the fan was replaced" in shown
    (told,) = [one for one in json.loads(lab("runs", "--json")[1]) if one["id"] == run_id]
    assert told["accepted_note"] == "the new allocator" and told["notes"][0]["text"] == "the fan was replaced"
    code, out, _ = lab("hosts")
    assert code == 0 and told["host"]["id"] in out and "this one" not in out
    assert "nothing goes" in lab("runs", "prune", "--keep", "1")[1]
    code, _, err = lab("runs", "--limit", "3", "note", run_id, "x")
    assert code == 2 and "--limit stands before 'note'" in err
    code, _, err = lab("forward")
    assert code == 2 and "LAB_FORWARD" in err
    code, out, _ = lab("forward", str(tmp_path / "nowhere" / "central.db"), "--json")
    assert code == 1 and len(json.loads(out)["left"]) == 2 and "No such file" in json.loads(out)["problem"]
    assert lab("accept", run_id, "--withdraw")[0] == 0 and lab("accept", run_id, "--withdraw")[0] == 2


def test_old_runs_go_only_where_that_is_confirmed(
    lab: Callable[..., tuple[int, str, str]], tmp_path: Path, make_record: Any
) -> None:
    with Store.open(str(tmp_path / "lab.db")) as store:
        for day in range(1, 6):
            store.import_run(make_record(f"r{day}", n=1, started_at=f"2026-01-0{day}T00:00:00+00:00", host_name="h"))

    def left() -> int:
        return len(json.loads(lab("runs", "--json")[1]))

    code, out, _ = lab("runs", "prune", "--keep", "2", "--dry-run")
    assert code == 0 and "boot" in out and left() == 5
    code, out, err = lab("runs", "prune", "--keep", "2")  # nobody can be asked
    assert code == 0 and "give --yes" in err and left() == 5
    code, out, _ = lab("runs", "prune", "--keep", "2", "--yes", "--json")
    told = json.loads(out)
    assert told["removed"] == 3 and told["groups"][0]["removed"] == ["r3", "r2", "r1"] and left() == 2
    assert lab("runs", "prune", "--keep", "0")[0] == 2
