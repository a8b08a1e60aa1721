"""What the command does before any other."""

from __future__ import annotations

from lab.cli.main import _with_system_folders


def test_daemons_are_found_by_a_job_of_crons() -> None:
    assert _with_system_folders("/usr/bin:/bin") == "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    assert _with_system_folders("/sbin:/usr/sbin:/mine") == "/sbin:/usr/sbin:/mine:/usr/local/sbin"
