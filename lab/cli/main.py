"""The command `lab`. Parsing and printing only; every heavy import waits until its command runs."""

# No `from __future__ import annotations` here: Typer would evaluate every annotation three times at each start.
import gc
import os
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lab import __version__
from lab.cli import applications, classroom, fleet, guests, lesson, serve, store_commands
from lab.cli.words import (
    DriverOptions,
    DryRunOption,
    ForwardOption,
    JsonOption,
    ParamOption,
    ReadyPathOption,
    RoundsOption,
    RunArgument,
    RunReportOption,
    SeedOption,
    StoreOption,
    TimeoutOption,
    WaitOption,
    WarmupOption,
    WholeSummaries,
    load,
    open_store,
)
from lab.cli.words import show as show_result
from lab.errors import BadInput, IncomparableRuns, LabError
from lab.run.interrupts import Interrupts
from lab.show.lasting import outlast_the_terminal
from lab.show.terminal import take_any_text

if TYPE_CHECKING:
    pass


_MANY_OBJECTS = 200_000
"""How many new ones are looked through for garbage at a time. A long run's samples are many and none of it garbage: at
Python's own 700, looking takes a third of the time of reading them."""
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    TARGET_FAILED = 1
    BAD_INPUT = 2
    REGRESSION = 3
    INCOMPARABLE = 4
    INTERRUPTED = 130


HELP = """Launch the same microservice on every platform that this machine has, and measure what each costs.

Start with `lab doctor` (what works here), then `lab run boot` (how long does each take, and where does the time go), \
then `lab report last --html boot.html`. After `lab run memory` and `lab run overhead`, `lab cost` tells what that \
costs by how often the service is called.

A target is driver or driver:variant, such as process, docker, docker:host, libvirt:microvm: see \
`lab targets`.

Exit codes: 0 done, 1 a target failed, 2 bad input, 3 a regression, 4 not comparable, 130 interrupted.
"""


NIGHT_EXITS = """Exit codes: 0 nothing to be woken up for, 1 a target failed, or a required one was skipped or lost \
KVM, 2 bad input, 3 a regression that was seen again, 4 void (too noisy, the control moved, or a suspicion could not \
be looked into), 130 interrupted."""

# Without markup Typer writes its help by itself; with it, `lab --help` imports Rich, which takes as long as the rest.
app = typer.Typer(
    cls=WholeSummaries,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> NoReturn:
    """The entry point: runs the command and turns the lab's errors into one line and an exit code."""
    gc.set_threshold(_MANY_OBJECTS)
    outlast_the_terminal()
    take_any_text(sys.stdout, sys.stderr)
    os.environ["PATH"] = _with_system_folders(os.environ.get("PATH", os.defpath))
    try:
        with Interrupts():
            code = app(standalone_mode=False)
    except LabError as error:
        _complain(error)
        code = _code_of(error)
    except typer.Exit as done:
        code = done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("lab: interrupted", file=sys.stderr)  # noqa: T201
        code = Exit.INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        error.show()  # type: ignore[attr-defined]  # a click.UsageError, which Typer does not re-export
        code = Exit.BAD_INPUT
    gc.freeze()  # or Python looks through all that there is once more before it ends, a fifth of a short command's time
    sys.exit(int(code or 0))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        typer.echo(f"lab {__version__}")
        raise typer.Exit


@app.command()
def doctor(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also every fact about each engine and this machine.")
    ] = False,
    as_json: JsonOption = False,
    option: DriverOptions = None,
) -> None:
    """What works on this machine: each engine, why not, and the one command that mends it."""
    from lab.cli.doctor import examine, render
    from lab.cli.options import driver_options

    findings = examine(driver_options(option))
    show_result(findings.to_json(), lambda: render(findings, verbose=verbose), as_json)


@app.command()
def targets(as_json: JsonOption = False) -> None:
    """The targets that can be named, and what each is."""
    from lab.registry import driver_names, variants

    rows = [
        {"target": f"{name}:{variant}" if variant else name, "about": about}
        for name in driver_names()
        for variant, about in variants(name).items()
    ]
    show_result(rows, lambda: _two_columns((row["target"], row["about"]) for row in rows), as_json)


@app.command()
def scenarios(as_json: JsonOption = False) -> None:
    """The questions that `lab run` can put, and the parameters (-p KEY=VALUE) of each."""
    from lab.registry import describe_scenarios

    rows = describe_scenarios()

    def table() -> Any:
        return _two_columns((row["scenario"], _with_parameters(row)) for row in rows)

    show_result(rows, table, as_json)


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="The question, such as boot: see `lab scenarios`.")],
    targets: Annotated[
        list[str] | None,
        typer.Option("--targets", "-t", help="Comma-separated. Default: process,docker,libvirt:microvm,libvirt:q35."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGETS", help="Exit 1 where one of these is skipped, fails, or has lost KVM."),
    ] = None,
    rounds: RoundsOption = None,
    warmup: WarmupOption = None,
    until_ci: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Stop once every median's interval is within ± this: 5%.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(metavar="TIME", help="Begin no round after this: 10m.")] = None,
    seed: SeedOption = None,
    cold: Annotated[bool | None, typer.Option("--cold", help="Drop the page cache before each launch (root).")] = None,
    image: Annotated[str | None, typer.Option(help="Another image than the lab's: a reference, or an archive.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Where that image's service listens. Default: the port it exposes, or 8080.")
    ] = None,
    ready: Annotated[
        str | None, typer.Option(metavar="http|tcp", help="Ready by an HTTP answer, or by a connection that stands.")
    ] = None,
    ready_path: ReadyPathOption = None,
    ready_status: Annotated[
        str | None, typer.Option(metavar="STATUSES", help="Which answers count: 200-399, or 200,204. Default: 200.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Sent with that request, such as 'Host: a.test'.")
    ] = None,
    command: Annotated[list[str] | None, typer.Option(help="Replaces the image's command; once per word.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Environment of the service; NAME alone: as it is here, if it is."),
    ] = None,
    env_file: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Lines of the same, as `docker run` reads them.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of each instance. Default: 1.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of each instance. Default: 128M.")] = None,
    pids: Annotated[int | None, typer.Option(help="Processes of each instance. Default: 128.")] = None,
    scratch: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What it may write to /tmp. Default: 16M.")
    ] = None,
    unit: Annotated[
        Path | None,
        typer.Option(help="Launch your own systemd unit, NAME.service, in whole guests, instead of an image."),
    ] = None,
    copies: Annotated[
        list[str] | None,
        typer.Option("--copy", metavar="SRC:DST", help="A file or folder that the unit needs, and where in the guest."),
    ] = None,
    timeout: TimeoutOption = None,
    host_port: Annotated[
        int | None, typer.Option(help="Always this port on 127.0.0.1; by default, a free one.")
    ] = None,
    param: ParamOption = None,
    kernel: Annotated[Path | None, typer.Option(help="The guests' kernel, instead of a found or fetched one.")] = None,
    guest_image: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="A disk image for guests that boot one: libvirt:disk, …")
    ] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HASH", help="That image's; without it none is booted.")] = None,
    kind_image: Annotated[str | None, typer.Option(help="kind's node image, for the scenario cluster.")] = None,
    kind_config: Annotated[Path | None, typer.Option(help="kind's configuration, likewise.")] = None,
    context: Annotated[
        str | None, typer.Option(help="A context of your kubeconfig, instead of kind's cluster.")
    ] = None,
    option: DriverOptions = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these options.")] = None,
    store: StoreOption = None,
    forward: ForwardOption = None,
    html: RunReportOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = True,
    events: Annotated[
        str | None, typer.Option(metavar="FILE|FD", help="Tell plan, launches, marks and samples there, as JSON lines.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario on real engines: `lab run boot -t process,docker,libvirt:microvm --rounds 20`."""
    from lab.cli.command_run import Request, run_scenario

    given = {
        "targets": targets,
        "require": require,
        "rounds": rounds,
        "warmup": warmup,
        "until_ci": until_ci,
        "max_time": max_time,
        "seed": seed,
        "cold": cold,
        "image": image,
        "unit": unit,
        "copies": copies,
        "port": port,
        "ready": ready,
        "ready_path": ready_path,
        "ready_status": ready_status,
        "header": header,
        "command": command,
        "env": env,
        "env_file": env_file,
        "cpus": cpus,
        "memory": memory,
        "pids": pids,
        "scratch": scratch,
        "timeout": timeout,
        "host_port": host_port,
        "param": param,
        "driver_options": [
            *(option or []),
            *_set(kernel=kernel, guest_image=guest_image, sha256=sha256),
            *_set(kind_image=kind_image, kind_config=kind_config, context=context),
        ]
        or None,
    }
    request = Request(
        scenario=scenario,
        given=given,
        config=config,
        store=store,
        forward=forward,
        html=html,
        dry_run=dry_run,
        wait=wait,
        as_json=as_json,
        events=events,
    )
    raise typer.Exit(run_scenario(request))


@app.command(epilog=NIGHT_EXITS)
def nightly(
    config: Annotated[Path, typer.Option("--config", "-c", help="The job's file, in TOML: see docs/nightly.md.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="BUILD", help="The accepted build to confirm beside: a version, a wheel, or an image."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where the files for other readers go, instead of the job's own folder.")
    ] = None,
    store: StoreOption = None,
    forward: ForwardOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """A night of a job: waits for a calm machine, measures, judges, confirms before it alarms, writes, exits."""
    from lab.cli.nightly.command import Request, run_nightly

    raise typer.Exit(
        run_nightly(
            Request(
                config=config,
                against=against,
                folder=folder,
                store=store,
                forward=forward,
                dry_run=dry_run,
                as_json=as_json,
            )
        )
    )


@app.command()
def show(run: RunArgument = "last", store: StoreOption = None, as_json: JsonOption = False) -> None:
    """A run's table, as `lab run` showed it."""
    from lab.show.table import render_run

    record = load(store, run)
    show_result(record.to_json, lambda: render_run(record), as_json)


@app.command()
def export(
    run: RunArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="json (everything), csv, junit, markdown, openmetrics, pyperf, …: docs/nightly.md."
        ),
    ] = "json",
    output: Annotated[Path | None, typer.Option("--output", "-O", help="A file, instead of standard output.")] = None,
    store: StoreOption = None,
) -> None:
    """A run as other programs read it: its raw values, or its medians in the formats of those who follow them."""
    from lab.show.formats import format_of
    from lab.show.formats.told import told_of

    text = format_of(form).write([told_of(load(store, run))])
    if output is not None:
        from lab.store.place import write_whole

        write_whole(output, text)
    elif isinstance(text, bytes):
        sys.stdout.buffer.write(text)
    else:
        sys.stdout.write(text)


@app.command()
def report(
    run: RunArgument,
    html: Annotated[Path, typer.Option(help="The file to write.")],
    store: StoreOption = None,
) -> None:
    """One HTML file that opens without a network: table, phases, distributions, host facts, warnings."""
    from lab.show.report import write_html

    write_html(load(store, run), html)
    typer.echo(html)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The run to compare with.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The run that may have changed.")],
    fail_on_regression: Annotated[bool, typer.Option("--fail-on-regression", help="Exit 3 where B is slower.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """B against A: ratio with interval per target and phase, a permutation test corrected for their number."""
    from lab.figures.comparison import compare_runs
    from lab.show.table import render_comparison

    with open_store(store) as opened:
        comparison = compare_runs(opened.load(a), opened.load(b))
    show_result(comparison.to_json, lambda: render_comparison(comparison), as_json)
    if fail_on_regression and comparison.regressions:
        raise typer.Exit(Exit.REGRESSION)


@app.command()
def history(
    scenario: Annotated[str, typer.Argument(help="The question that the nights put, such as boot.")],
    last: Annotated[int | None, typer.Option(min=1, help="Show the newest so many nights. Default: 60.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Show those from then on: 2026-11-30, or 90d, or 12w.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Of this host, by name or id, or of 'all'. Default: this one, or all.")
    ] = None,
    least: Annotated[
        str | None, typer.Option(metavar="SHARE", help="The least change that matters. Default: 5%.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="These metrics, comma-separated. Default: those that answer the question.")
    ] = None,
    otava: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="An interpreter that has Apache Otava, for change points.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with a chart for each series.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each night judged by those before it: what has become slower since the last accepted change, and since when."""
    from lab.cli.command_history import Request, show_history

    given = {"last": last, "since": since, "host": host, "least": least, "metric": metric}
    show_history(Request(scenario=scenario, given=given, otava=otava, store=store, html=html, as_json=as_json))


@app.command()
def cost(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Of memory, wake, overhead, coldstart; else the last of this host."),
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="Your own table of prices, in TOML: see --print-prices.")] = None,
    print_prices: Annotated[
        bool, typer.Option("--print-prices", help="Print the table that ships with the lab, and end.")
    ] = False,
    rates: Annotated[
        str | None, typer.Option(metavar="CALLS", help="Calls an hour to show, comma-separated: 10,1000,100000.")
    ] = None,
    cold_share: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="How many of a function's calls are cold: 1%. Default: all, none."),
    ] = None,
    function_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What a function is given. Default: what has the runs' CPUs.")
    ] = None,
    machine_price: Annotated[float | None, typer.Option(help="What your own machine cost.")] = None,
    machine_years: Annotated[float | None, typer.Option(help="For how many years that is to last.")] = None,
    machine_watts: Annotated[float | None, typer.Option(help="What it draws on average.")] = None,
    kwh_price: Annotated[float | None, typer.Option(help="What a kWh costs you. Default: the table's.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the curve to this file.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """What it costs by how often it is called, and from how many calls on a function is dearer: `lab cost`."""
    from lab.cli.command_cost import Request, show_cost
    from lab.cli.command_cost import print_prices as print_them

    if print_prices:
        print_them()
        return
    given = {
        "rates": rates,
        "cold_share": cold_share,
        "function_memory": function_memory,
        "machine_price": machine_price,
        "machine_years": machine_years,
        "machine_watts": machine_watts,
        "kwh_price": kwh_price,
    }
    show_cost(Request(runs=runs or (), given=given, prices=prices, store=store, html=html, as_json=as_json))


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    owner: Annotated[
        str | None, typer.Option(metavar="ID", help="Remove what this run or owner made, which cannot be seen to live.")
    ] = None,
    option: DriverOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Find by label what dead runs left on every engine, show it, and remove it; what may be a living run's stays."""
    from lab.cli.command_clean import run_clean
    from lab.cli.options import driver_options

    raise typer.Exit(run_clean(dry_run=dry_run, yes=yes, owner=owner, options=driver_options(option), as_json=as_json))


store_commands.add_to(app)
guests.add_to(app)
fleet.add_to(app)
lesson.add_to(app)
classroom.add_to(app)
applications.add_to(app)
serve.add_to(app)

cluster = typer.Typer(
    cls=WholeSummaries,
    help="The local Kubernetes cluster (kind) that the lab makes once and uses again.",
    no_args_is_help=True,
)
app.add_typer(cluster, name="cluster")


@cluster.command("up")
def cluster_up(
    kind_image: Annotated[str | None, typer.Option(help="The node image, instead of kind's own.")] = None,
    kind_config: Annotated[Path | None, typer.Option(help="kind's configuration, instead of the lab's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=32, help="So many nodes beside the control plane.")] = None,
    option: DriverOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Make the cluster, unless it is there."""
    from lab.cli.command_cluster import cluster_up as up
    from lab.cli.options import driver_options

    given = {"kind-image": kind_image, "kind-config": str(kind_config) if kind_config else None}
    given["kind-workers"] = str(workers) if workers else None
    up(options={**driver_options(option), **{key: value for key, value in given.items() if value}}, as_json=as_json)


@cluster.command("down")
def cluster_down(option: DriverOptions = None, as_json: JsonOption = False) -> None:
    """Remove it."""
    from lab.cli.command_cluster import cluster_down as down
    from lab.cli.options import driver_options

    down(options=driver_options(option), as_json=as_json)


@cluster.command("status")
def cluster_status(option: DriverOptions = None, as_json: JsonOption = False) -> None:
    """What it is, or how to get one."""
    from lab.cli.command_cluster import cluster_status as status
    from lab.cli.options import driver_options

    status(options=driver_options(option), as_json=as_json)


def _with_system_folders(path: str) -> str:
    """`path` with the folders of daemons behind it: a job of cron's, or a plain user of Debian's, has no sbin."""
    folders = path.split(os.pathsep)
    return os.pathsep.join([*folders, *(one for one in _SYSTEM_FOLDERS if one not in folders)])


def _code_of(error: LabError) -> Exit:
    if isinstance(error, BadInput):
        return Exit.BAD_INPUT
    return Exit.INCOMPARABLE if isinstance(error, IncomparableRuns) else Exit.TARGET_FAILED


def _complain(error: LabError) -> None:
    print(f"lab: {error.brief}", file=sys.stderr)  # noqa: T201
    if error.resolution:
        print(f"     {error.resolution}", file=sys.stderr)  # noqa: T201


def _two_columns(rows: Any) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    return table


def _with_parameters(row: Mapping[str, Any]) -> str:
    return "\n".join([row["question"], *(f"-p {key}={_as_given(one)}" for key, one in row["parameters"].items())])


def _as_given(value: object) -> str:
    """A parameter's value as a user would write it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _set(**options: object) -> list[str]:
    return [f"{key.replace('_', '-')}={value}" for key, value in options.items() if value is not None]
