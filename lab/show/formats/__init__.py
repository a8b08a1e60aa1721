"""Runs as other programs read them: one table of formats, which `lab export` and `lab nightly` share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.errors import BadInput
from lab.show.formats import benchmarks, junit, markdown, metrics, samples
from lab.show.formats.told import Told


@dataclass(frozen=True, slots=True)
class Format:
    """How runs are written, `about` in a few words, and the name of such a file of a night."""

    about: str
    file: str
    write: Callable[[Sequence[Told]], str | bytes]


FORMATS: Mapping[str, Format] = {
    "json": Format("everything of the runs", "runs.json", samples.json_document),
    "csv": Format("one sample a row", "samples.csv", samples.csv_table),
    "parquet": Format("the same, typed (needs pyarrow)", "samples.parquet", samples.parquet),
    "junit": Format("a test report, for GitLab and Jenkins", "junit.xml", junit.junit),
    "markdown": Format("a summary, for $GITHUB_STEP_SUMMARY", "summary.md", markdown.markdown),
    "openmetrics": Format("medians as gauges, with # EOF", "metrics.om", metrics.openmetrics),
    "prometheus": Format("the same for node_exporter's textfile collector", "stratalab.prom", metrics.prometheus),
    "bencher": Format("Bencher Metric Format", "bencher.json", benchmarks.bencher),
    "github-action-benchmark": Format(
        "customSmallerIsBetter", "github-action-benchmark.json", benchmarks.github_action_benchmark
    ),
    "pyperf": Format("for pyperf compare_to", "pyperf.json", benchmarks.pyperf),
}


def format_of(name: str) -> Format:
    """The format of that name. Raises BadInput."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(FORMATS)}"
        raise BadInput(f"there is no format '{name}'", resolution=hint)
    return FORMATS[name]
