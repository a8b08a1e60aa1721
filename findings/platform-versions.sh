#!/usr/bin/env bash
# semver 3.1.2 and packaging 26.4 (PyPI): the versions that clusters and kernels report of themselves.
#
# What follows the dash in '1.30.0-eks-036c24b' or '6.8.12-4-pve' names who built it; it comes after the plain version.
# Expected: a cluster that calls itself 1.30.0-eks-036c24b satisfies "at least 1.30.0".
# Seen: semver takes every such suffix for a pre-release, and so every EKS, GKE or distribution build for older than the
#   release that it was built from; k3s (with '+') it takes for equal. packaging refuses most of them, takes Debian's
#   '6.1.0-13' for post-release 13, and '+k3s1' for newer than the same without.
# For a lab: "needs 1.30" is asked of major and minor alone; whole version strings are told, not compared.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages semver==3.1.2 packaging==26.4

"$python" - >"$work/seen" <<'EOF'
import packaging.version
import semver


def order(parse, text, release):
    try:
        version, plain = parse(text), parse(release)
    except ValueError:
        return "refused"
    return "older" if version < plain else "newer" if version > plain else "equal"


for text, release in (
    ("1.30.0-eks-036c24b", "1.30.0"),
    ("1.28.2-gke.1157000", "1.28.2"),
    ("1.27.3+k3s1", "1.27.3"),
    ("6.8.12-4-pve", "6.8.12"),
    ("5.14.0-362.el9", "5.14.0"),
    ("6.1.0-13", "6.1.0"),
    ("20.10.24+dfsg1", "20.10.24"),
    ("1.6.20~ds1", "1.6.20"),
):
    by_semver = order(semver.Version.parse, text, release)
    by_packaging = order(packaging.version.Version, text, release)
    print(f"{text:20} than {release:9} semver {by_semver:8} packaging {by_packaging}")
EOF

as_recorded <<'EOF'
1.30.0-eks-036c24b   than 1.30.0    semver older    packaging refused
1.28.2-gke.1157000   than 1.28.2    semver older    packaging refused
1.27.3+k3s1          than 1.27.3    semver equal    packaging newer
6.8.12-4-pve         than 6.8.12    semver older    packaging refused
5.14.0-362.el9       than 5.14.0    semver older    packaging refused
6.1.0-13             than 6.1.0     semver older    packaging newer
20.10.24+dfsg1       than 20.10.24  semver equal    packaging newer
1.6.20~ds1           than 1.6.20    semver refused  packaging refused
EOF
