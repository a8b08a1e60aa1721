#!/usr/bin/env bash
# hdrhistogram 0.10.8 (PyPI): what lies above the range is dropped without an error, from another limit than the given.
#
# A histogram is made for a range of values. The Java original raises for a value above it.
# Expected: the same; or the value counts as the highest, so that the number of values is right.
# Seen: record_value() returns False and forgets the value: of ten calls seven are in the count, and the 99th percentile
#   has no slow call in it. The limit is not the given 100 but 255, the end of the last bucket. At the other end, below
#   the lowest discernible value, 500 is told as 511 or as 0, according to the method.
# For a lab: latencies of hung calls vanish just where they matter; check each return value, or count calls apart.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages hdrhistogram==0.10.8

"$python" - >"$work/seen" <<'EOF'
from hdrh.histogram import HdrHistogram

latencies = HdrHistogram(1, 100, 2)
taken = {value: latencies.record_value(value) for value in (10, 99, 100, 101, 128, 200, 255, 256, 300, 100_000)}
print("up to 100:", *(f"{value}={'kept' if kept else 'lost'}" for value, kept in taken.items()))
print("count", latencies.get_total_count(), "p99", latencies.get_value_at_percentile(99))
coarse = HdrHistogram(1000, 3_600_000_000, 2)
coarse.record_value(500)
print("500, from 1000 on: median", coarse.get_value_at_percentile(50), "min", coarse.get_min_value())
EOF

as_recorded <<'EOF'
up to 100: 10=kept 99=kept 100=kept 101=kept 128=kept 200=kept 255=kept 256=lost 300=lost 100000=lost
count 7 p99 255
500, from 1000 on: median 511 min 0
EOF
