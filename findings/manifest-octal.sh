#!/usr/bin/env bash
# PyYAML 6.0.4, ruamel.yaml 0.19.1 (PyPI), yaml 2.9.1, js-yaml 5.5.0 (npm): the file mode in one manifest.
#
# Kubernetes' and Compose's own documentation write file modes as 0644, without quotes; their own tools take it
# for octal, as YAML 1.1 does. Three of these four libraries follow YAML 1.2, in which it is decimal.
# Expected: the mode is 420 (0o644), or 0644 is refused by those that no longer know this form.
# Seen: PyYAML, which the kubernetes client uses, reads 420; the others 644, which as a mode is 0o1204 (sticky, owner
#   writes, others read). Conversely '0o644' is text for PyYAML alone, and '1e3' is text for PyYAML, a number for the
#   others.
# For a lab: a manifest that ruamel has loaded and JSON has carried to the API mounts files that the service cannot
#   read; read manifests with the engine's own library, and write modes in decimal.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages PyYAML==6.0.4 ruamel.yaml==0.19.1
node_packages yaml@2.9.1 js-yaml@5.5.0

cat >"$work/manifest.yaml" <<'EOF'
defaultMode: 0644
newForm: 0o644
burst: 1e3
EOF
cat >"$work/read.py" <<'EOF'
import json
import pathlib
import sys

import ruamel.yaml
import yaml

text = pathlib.Path(sys.argv[1]).read_text()
print("PyYAML ", json.dumps(yaml.safe_load(text), separators=(",", ":")))
print("ruamel ", json.dumps(ruamel.yaml.YAML(typ="safe").load(text), separators=(",", ":")))
EOF
cat >"$work/read.mjs" <<'EOF'
import { readFileSync } from "node:fs";
import * as jsyaml from "js-yaml";
import * as yaml from "yaml";
const text = readFileSync(process.argv[2], "utf8");
console.log("yaml   ", JSON.stringify(yaml.parse(text)));
console.log("js-yaml", JSON.stringify(jsyaml.load(text)));
EOF
{
    "$python" "$work/read.py" "$work/manifest.yaml"
    node "$work/read.mjs" "$work/manifest.yaml"
} >"$work/seen"

as_recorded <<'EOF'
PyYAML  {"defaultMode":420,"newForm":"0o644","burst":"1e3"}
ruamel  {"defaultMode":644,"newForm":420,"burst":1000.0}
yaml    {"defaultMode":644,"newForm":420,"burst":1000}
js-yaml {"defaultMode":644,"newForm":420,"burst":1000}
EOF
