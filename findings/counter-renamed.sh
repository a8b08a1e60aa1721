#!/usr/bin/env bash
# prometheus_client 0.26.0 (PyPI): its parser gives a counter another name than the exporter did.
#
# In Prometheus' text format a counter may have any name; the suffix _total is a custom there, and a rule in OpenMetrics
# only.
# Expected: text_string_to_metric_families() gives samples by the names that stand in the text, and times in one form.
# Seen: the sample of a counter `restarts` is called `restarts_total`, and the family of a counter `calls_total` is
#   called `calls`; a gauge `calls_total` keeps its name. Milliseconds come back as seconds (a float); OpenMetrics'
#   parser gives an object for them, and refuses the text in which the counter is called `restarts`.
# For a lab: a figure that is looked up by the name on the exporter's page is absent, and absent reads as 0.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages prometheus_client==0.26.0

"$python" - >"$work/seen" <<'EOF'
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus


def tell(parser, parse, text):
    try:
        samples = [(family, sample) for family in parse(text) for sample in family.samples]
        told = "; ".join(f"family {family.name}, {sample.name} at {sample.timestamp!r}" for family, sample in samples)
    except ValueError as error:
        told = type(error).__name__
    print(f"{parser:12}", *text.splitlines()[:2], "->", told)


tell("prometheus", prometheus, "# TYPE restarts counter\nrestarts 2 1764504000123\n")
tell("prometheus", prometheus, "# TYPE calls_total counter\ncalls_total 2\n")
tell("prometheus", prometheus, "# TYPE calls_total gauge\ncalls_total 2\n")
tell("openmetrics", openmetrics, "# TYPE restarts counter\nrestarts 2\n# EOF\n")
tell("openmetrics", openmetrics, "# TYPE restarts counter\nrestarts_total 2 1764504000.123\n# EOF\n")
EOF

as_recorded <<'EOF'
prometheus   # TYPE restarts counter restarts 2 1764504000123 -> family restarts, restarts_total at 1764504000.123
prometheus   # TYPE calls_total counter calls_total 2 -> family calls, calls_total at None
prometheus   # TYPE calls_total gauge calls_total 2 -> family calls_total, calls_total at None
openmetrics  # TYPE restarts counter restarts 2 -> ValueError
openmetrics  # TYPE restarts counter restarts_total 2 1764504000.123 -> family restarts, restarts_total at Timestamp(1764504000, 123000000)
EOF
