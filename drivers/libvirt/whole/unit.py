"""The lab's service as a systemd unit, written so that no value of a spec can break out of its place.

What is escaped how: systemd.syntax(7), systemd.service(5) "COMMAND LINES", systemd.exec(5) "EnvironmentFile=".
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

from lab.errors import BadInput
from lab.launch.ends import Ending
from lab.spec import Restart, Spec

SERVICE_UNIT = "lab-service.service"
TOLD_UNIT = "lab-told.service"
WORKLOAD_UNIT = "lab-workload.service"
PROGRAM = "/service"
"""Where the lab's own service lies, as on every other platform."""
ENVIRONMENT_FILE = "/etc/stratalab/environment"
RESTARTS: Mapping[Restart, str] = {Restart.DEFAULT: "no", Restart.BEST: "always"}
"""systemd's Restart= for each policy: its default, and its best."""
_RESTART_S = "100ms"
"""systemd's own default of RestartSec=, said here since it is part of what `recover` measures."""


def service_unit(spec: Spec) -> str:
    """The unit that runs the lab's service, once the network is up. Its output is on the console, where the instants
    of its lines are seen: by way of the journal they came some 40 ms later, emulated."""
    argv = (PROGRAM, *(spec.command or ()))
    return "\n".join(
        (
            "[Unit]",
            "Description=The lab's service",
            "Wants=network-online.target",
            "After=network-online.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=exec",
            f"EnvironmentFile={ENVIRONMENT_FILE}",
            f"ExecStart={command_line(argv)}",
            f"Restart={RESTARTS[spec.restart]}",
            f"RestartSec={_RESTART_S}",
            # Said by the guest itself, since systemd's console is silent on a unit that ends after it has started.
            "ExecStopPost=/bin/echo lab-guest unit ${EXIT_CODE} ${EXIT_STATUS}",
            f"TemporaryFileSystem=/tmp:mode=1777,size={max(spec.scratch_bytes, 4096)}",
            "StandardOutput=file:/dev/console",
            "StandardError=file:/dev/console",
            "SyslogIdentifier=lab-service",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        )
    )


def workload_unit(unit: str, nonce: str) -> str:
    """The unit by which the lab hears that a user's own, `unit`, has been started, and has a network."""
    return "\n".join(
        (
            "[Unit]",
            "Description=Tell the lab that your unit is started",
            "Wants=network-online.target",
            f"After=network-online.target {unit}",
            "",
            "[Service]",
            "Type=oneshot",
            f"ExecStart=/bin/echo lab {nonce} workload 0",
            "StandardOutput=file:/dev/console",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        )
    )


def end_drop_in(*, with_environment: bool) -> str:
    """What is added to a user's unit: that the lab hears of its end, and the environment that was asked for."""
    told = "echo lab-guest unit $$EXIT_CODE $$EXIT_STATUS >/dev/console"
    added = f"EnvironmentFile={ENVIRONMENT_FILE}\n" if with_environment else ""
    return f"[Service]\n{added}ExecStopPost=-+/bin/sh -c '{told}'\n"


def ending_of(how: str, status: str) -> Ending:
    """What systemd's $EXIT_CODE and $EXIT_STATUS say (systemd.exec(5)): `exited` and a number, or `killed` or `dumped`
    and a signal's name without SIG."""
    if how == "exited":
        return Ending(status=int(status)) if status.isdigit() else Ending()
    number = getattr(signal, f"SIG{status}", None)
    return Ending(signal=int(number)) if isinstance(number, signal.Signals) else Ending()


def told_unit() -> str:
    """The unit that has systemd's own word that the boot is finished written to the console: it waits for that without
    looking again and again, and ends."""
    return "\n".join(
        (
            "[Unit]",
            "Description=Tell the lab when the boot is finished",
            # Late, so that it takes nothing from what is waited for.
            f"After={SERVICE_UNIT} ssh.service",
            "",
            "[Service]",
            "Type=exec",
            'ExecStart=/bin/sh -c "echo lab-guest settled $(systemctl is-system-running --wait)"'.replace("$", "$$"),
            "StandardOutput=file:/dev/console",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        )
    )


def command_line(argv: Sequence[str]) -> str:
    """`argv` for ExecStart=, where `%` begins a specifier and `$` a variable."""
    return " ".join(_quoted(word).replace("%", "%%").replace("$", "$$") for word in argv)


def environment_file(environment: Mapping[str, str]) -> str:
    """`environment` for EnvironmentFile=, in double quotes, in which nothing is expanded. Raises BadInput for a name
    that systemd would leave out without a word."""
    lines = []
    for name, value in environment.items():
        if not name.isascii() or not name.replace("_", "a").isalnum() or name[0].isdigit():
            raise BadInput(
                f"systemd gives no service an environment variable '{name}'",
                resolution="use letters, digits and underscores, or leave this target out",
            )
        for special in '\\"`$':
            value = value.replace(special, "\\" + special)  # noqa: PLW2901  each after the other
        lines.append(f'{name}="{value}"\n')
    return "".join(lines)


def _quoted(word: str) -> str:
    """One word of a unit's command line: in double quotes, with C's escapes."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
