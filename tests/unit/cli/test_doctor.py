"""What `lab doctor` prints of what it found."""

from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console

from lab.cli.doctor import Engine, Findings, render
from lab.host.noise import HostWarning

FACTS = {
    "privileged": False,
    "rootless": True,
    "governors": None,
    "security_options": ["seccomp,profile=default"],
    "limits": {"memory": "set by the engine", "swap": {"set": True, "why": None}},
    "capabilities_missing": [],
    "guest_command_line": "console=ttyS0,115200 " * 8,
}


def _there(name: str, engine: str, version: str, isolation: str, **qualifiers: str) -> Engine:
    told = {"engine": engine, "version": version, "isolation": isolation, "features": [], "facts": FACTS}
    return Engine(name=name, info={**told, "qualifiers": qualifiers})


def _shown(*, verbose: bool = False, **changes: Any) -> str:
    findings = Findings(
        **{
            "engines": [
                _there("docker", "Docker", "20.10.24", "namespaces (runc)"),
                Engine(name="kubernetes", info={}, reason="`kind` is not installed", remedy="install it: see kind"),
                _there("libvirt", "libvirt and QEMU", "libvirt 9.0.0, QEMU 7.2", "emulated (TCG)", accel="tcg"),
                _there("oci", "runc", "1.1.5", "namespaces", network="no bridge"),
            ],
            "host": {"cpu": {"model": "A CPU", "turbo_on": None, "governors": ["powersave", "performance"]}},
            "warnings": [HostWarning(code="load", text="load average is 3 on 2 cores", remedy="wait")],
            "installation": [],
            **changes,
        }
    )
    written = io.StringIO()
    Console(file=written, width=80).print(render(findings, verbose=verbose))
    return written.getvalue()


def test_each_engine_has_one_line_and_what_is_not_there_its_remedy_below() -> None:
    engines, _, weak = _shown().partition("\n\n")
    assert engines.splitlines() == [
        "✓ docker 20.10.24: namespaces (runc)",
        "✗ kubernetes: `kind` is not installed",
        "  install it: see kind",
        "✓ libvirt 9.0.0, QEMU 7.2: emulated (TCG)",
        "✓ oci (runc 1.1.5): namespaces, no bridge",
    ]
    assert weak.splitlines() == ["What makes figures weak here:", "  load average is 3 on 2 cores (wait)"]


def test_facts_are_shown_on_request_and_never_as_python_writes_them() -> None:
    assert "privileged" not in _shown() and "A CPU" not in _shown()
    shown = _shown(verbose=True)
    for line in (
        "privileged: no",
        "rootless: yes",
        "governors: not known",
        "security options: seccomp,profile=default",
        "memory: set by the engine",
        "why: not known",
        "capabilities missing: none",
        "model: A CPU",
        "governors: powersave, performance",
    ):
        assert re.search(rf"^ +{re.escape(line)}$", shown, re.MULTILINE), line
    assert not re.search(r"[{}\[\]]|\b(True|False|None)\b", shown)


def test_it_fits_80_columns_and_what_goes_on_stays_indented() -> None:
    lines = _shown(verbose=True).splitlines()
    assert max(map(len, lines)) <= 80
    start = next(index for index, line in enumerate(lines) if "guest command line" in line)
    assert lines[start + 1].startswith("  console=")


def test_what_a_terminal_would_obey_is_not_given_to_it() -> None:
    assert "\x1b" not in _shown(verbose=True, host={"kernel": {"cmdline": "a\x1b[2Jb"}})


def test_a_stale_installation_is_told() -> None:
    assert "run `make venv`" in _shown(installation=["pyproject.toml names x: run `make venv`"])
