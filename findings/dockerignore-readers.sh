#!/usr/bin/env bash
# docker 7.2.0, podman 5.8.0 (PyPI) and @balena/dockerignore 1.0.2 (npm, a port of the rules of Docker's own builder):
# three readers of the same ignore pattern, three contexts.
#
# An ignore file says which files of a folder go into a build. Its patterns are those of Go's filepath.Match: they tell
# capitals, a range is negated by '^', and a backslash takes the next character as it is.
# Expected: an SDK's build sends what the engine's own command would send.
# Seen: docker's SDK leaves out 'docs' for the pattern 'DOCS', negates by '!', and knows no backslash. podman's SDK
#   takes '*' for slashes too (fnmatch), so that '*.md' reaches into folders, and knows neither exceptions ('!') nor
#   backslashes. docker's also adds a pattern to the list that it is given.
# For a lab: an image that is built by an SDK for one engine and by a command for another holds other files.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages docker==7.2.0 podman==5.8.0
node_packages @balena/dockerignore@1.0.2

cat >"$work/cases.json" <<'EOF'
{
  "files": ["README.md", "api.md", "docs/api.md", "docs/keep", "my notes"],
  "patterns": [
    ["DOCS"], ["[!a]*.md"], ["[^a]*.md"], ["my\\ notes"], ["*.md"], ["*.md", "!README.md"], ["docs/**", "!docs/keep"]
  ]
}
EOF
cat >"$work/balena.cjs" <<'EOF'
const ignore = require("@balena/dockerignore");
const cases = require("./cases.json");
for (const patterns of cases.patterns) {
  const rules = ignore({ ignorecase: false }).add(patterns);
  const left = cases.files.filter((file) => rules.ignores(file));
  console.log(JSON.stringify(patterns.join(" ")), "builder", left.join(", ") || "nothing");
}
EOF
cat >"$work/sdks.py" <<'EOF'
import json
import pathlib
import tarfile

from docker.utils.build import exclude_paths
from podman.api.tar_utils import create_tar

work = pathlib.Path(__file__).parent
cases = json.loads((work / "cases.json").read_text())
for file in cases["files"]:
    path = work / "context" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
for patterns in cases["patterns"]:
    with tarfile.open(fileobj=create_tar(str(work / "context"), exclude=list(patterns))) as context:
        sent = {"podman": context.getnames(), "docker": exclude_paths(str(work / "context"), list(patterns))}
    for sdk, files in sent.items():
        left = ", ".join(file for file in cases["files"] if file not in files)
        print(json.dumps(" ".join(patterns)), sdk, left or "nothing")
given = ["*.md"]
exclude_paths(str(work / "context"), given)
print("the list that docker was given is now", given)
EOF
{
    echo "left out:"
    { node "$work/balena.cjs"; "$python" "$work/sdks.py"; } | LC_ALL=C sort
} >"$work/seen"

as_recorded <<'EOF'
left out:
"*.md !README.md" builder api.md
"*.md !README.md" docker api.md
"*.md !README.md" podman README.md, api.md, docs/api.md
"*.md" builder README.md, api.md
"*.md" docker README.md, api.md
"*.md" podman README.md, api.md, docs/api.md
"DOCS" builder nothing
"DOCS" docker docs/api.md, docs/keep
"DOCS" podman nothing
"[!a]*.md" builder api.md
"[!a]*.md" docker README.md
"[!a]*.md" podman README.md, docs/api.md
"[^a]*.md" builder README.md
"[^a]*.md" docker api.md
"[^a]*.md" podman api.md
"docs/** !docs/keep" builder docs/api.md
"docs/** !docs/keep" docker docs/api.md
"docs/** !docs/keep" podman docs/api.md, docs/keep
"my\\ notes" builder my notes
"my\\ notes" docker nothing
"my\\ notes" podman nothing
the list that docker was given is now ['*.md', '!Dockerfile']
EOF
