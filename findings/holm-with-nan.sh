#!/usr/bin/env bash
# statsmodels 0.15.0 (PyPI): multipletests with one p-value that is not a number.
#
# A test of a series that never varied has no p-value: SciPy's levene, brunnermunzel and others give nan for it.
# Expected: nan is refused (as scipy's false_discovery_control does), or left out of the count of tests.
# Seen: Holm counts it: 0.010 becomes 0.040 among four, and 0.030 without it. Benjamini-Hochberg returns nan for every
#   p-value, rejects the first none the less, and no longer the other two.
# For a lab: one constant metric weakens or wipes out the verdicts on all the others of the same night.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6

"$python" -W ignore - >"$work/seen" <<'EOF'
import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

constant = stats.levene([4, 4, 4], [4, 4, 4]).pvalue
print("p of a constant series", constant)
for method in ("holm", "fdr_bh"):
    for p in ([0.01, 0.04, 0.03], [0.01, constant, 0.04, 0.03]):
        rejected, adjusted, *_ = multipletests(p, method=method)
        print(f"{method:6} n={len(p)}", "rejected", rejected.tolist(), "adjusted", np.round(adjusted, 3).tolist())
try:
    print("scipy", stats.false_discovery_control([0.01, constant, 0.04, 0.03]))
except ValueError as error:
    print("scipy", type(error).__name__)
EOF

as_recorded <<'EOF'
p of a constant series nan
holm   n=3 rejected [True, False, False] adjusted [0.03, 0.06, 0.06]
holm   n=4 rejected [True, False, False, False] adjusted [0.04, nan, 0.09, 0.09]
fdr_bh n=3 rejected [True, True, True] adjusted [0.03, 0.04, 0.04]
fdr_bh n=4 rejected [True, False, False, False] adjusted [nan, nan, nan, nan]
scipy ValueError
EOF
