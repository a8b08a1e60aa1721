#!/usr/bin/env bash
# scipy 1.17.1 (PyPI): with ties, three samples against three are "significant at 5 %".
#
# mannwhitneyu's default method is 'auto': exact for small samples without ties, else the normal approximation.
# Expected: for three values against three no p-value is below 2/20 = 0.1, the share of the two extreme arrangements.
# Seen: 0.1 for values that all differ; 0.047 once each group has only one value. With four against four 0.013 in place
#   of 0.029. method='exact' and PermutationMethod() give 0.1; kruskal has no such method and says 0.025.
# For a lab: a clock of one second, or a size in pages, makes ties, and so makes three rounds look like a finding.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages scipy==1.17.1 numpy==2.4.6

"$python" - >"$work/seen" <<'EOF'
from scipy import stats

DIFFERENT, TIED = ([1, 2, 3], [4, 5, 6]), ([1, 1, 1], [2, 2, 2])
print(f"different, auto        {stats.mannwhitneyu(*DIFFERENT).pvalue:.3f}")
print(f"tied, auto             {stats.mannwhitneyu(*TIED).pvalue:.3f}")
print(f"tied, exact            {stats.mannwhitneyu(*TIED, method='exact').pvalue:.3f}")
print(f"tied, permutations     {stats.mannwhitneyu(*TIED, method=stats.PermutationMethod()).pvalue:.3f}")
print(f"tied, kruskal          {stats.kruskal(*TIED).pvalue:.3f}")
print(f"four and four, auto    {stats.mannwhitneyu([1, 1, 1, 1], [2, 2, 2, 2]).pvalue:.3f}")
print(f"four and four, exact   {stats.mannwhitneyu([1, 1, 1, 1], [2, 2, 2, 2], method='exact').pvalue:.3f}")
EOF

as_recorded <<'EOF'
different, auto        0.100
tied, auto             0.047
tied, exact            0.100
tied, permutations     0.100
tied, kruskal          0.025
four and four, auto    0.013
four and four, exact   0.029
EOF
