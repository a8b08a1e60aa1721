#!/usr/bin/env bash
# dockerfile-parse 2.0.1 (PyPI) and dockerfile-ast 0.7.1 (npm): the base image of a Dockerfile with a here-document.
#
# A RUN or COPY may carry its text in a here-document (Dockerfile syntax 1.4), in which lines look like anything; a
# variable may have a default, ${NAME:-default}.
# Expected: the base image is that of the last FROM instruction, with its variables filled in.
# Seen: dockerfile-parse takes the lines of the here-document for instructions, so that a FROM in a file that is written
#   there becomes the base image; and it replaces ${VERSION of ${VERSION:-11}, and leaves ':-11}' behind. dockerfile-ast
#   gives the instructions as the builder sees them.
# For a lab: what an image was built from is asked of the image, not of its Dockerfile.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages dockerfile-parse==2.0.1
node_packages dockerfile-ast@0.7.1

cat >"$work/Dockerfile" <<'EOF'
ARG VERSION=12
FROM debian:${VERSION:-11}
COPY <<END /templates/Dockerfile
FROM template
END
EXPOSE 8080
EOF
cat >"$work/read.py" <<'EOF'
import sys

from dockerfile_parse import DockerfileParser

with open(sys.argv[1], "rb") as file:
    parser = DockerfileParser(fileobj=file)
    print("dockerfile-parse", *(instruction["instruction"] for instruction in parser.structure))
    print("    images", *parser.parent_images, "| base image", parser.baseimage)
EOF
cat >"$work/read.mjs" <<'EOF'
import { readFileSync } from "node:fs";
import { DockerfileParser } from "dockerfile-ast";
const file = DockerfileParser.parse(readFileSync(process.argv[2], "utf8"));
console.log("dockerfile-ast", ...file.getInstructions().map((instruction) => instruction.getKeyword()));
console.log("    images", ...file.getFROMs().map((from) => from.getImage()));
EOF
{
    "$python" "$work/read.py" "$work/Dockerfile"
    node "$work/read.mjs" "$work/Dockerfile"
} >"$work/seen"

as_recorded <<'EOF'
dockerfile-parse ARG FROM COPY FROM END EXPOSE
    images debian:12:-11} template | base image template
dockerfile-ast ARG FROM COPY EXPOSE
    images debian:${VERSION:-11}
EOF
