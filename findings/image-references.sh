#!/usr/bin/env bash
# podman 5.8.0, oras 0.2.43, docker 7.2.0, docker-image-py 0.2.0 (PyPI): four readings of one image reference.
#
# A reference is [host[:port]/]path[:tag][@algorithm:digest]; 'localhost' is a host without a dot, and a tag beside a
# digest is allowed (it informs; the digest decides).
# Expected: SDKs split it as the engines do.
# Seen: podman's SDK cuts at the digest's colon, so that 'sha256' ends up in the repository and the hash is the tag;
#   with tag and digest docker's SDK leaves the tag in the repository; oras looks for 'localhost/app' on docker.io, in a
#   namespace 'localhost', and names the tag 'latest' where only a digest was given. docker-image-py alone is right, but
#   for 'team/app', which it tells as host and path where it is not asked to normalize.
# For a lab: an image pinned by digest is split by a parser of its own, and never by the SDK of the engine at hand.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages podman==5.8.0 oras==0.2.43 docker==7.2.0 docker-image-py==0.2.0

"$python" - >"$work/seen" <<'EOF'
from docker.utils import parse_repository_tag
from docker_image.reference import Reference
from oras.container import Container
from podman.api.parse_utils import parse_repository

HASH = 64 * "a"


def by_oras(text):
    found = Container(text)
    return found.registry, found.namespace, found.repository, found.tag, found.digest


def by_docker_image(text):
    found = Reference.parse(text)
    return *found.split_hostname(), found.get("tag"), found.get("digest")


READERS = {
    "podman": parse_repository,
    "docker": parse_repository_tag,
    "oras": by_oras,
    "docker-image-py": by_docker_image,
}
PINNED = (f"app@sha256:{HASH}", f"host.example/app:1@sha256:{HASH}")
for reference in ("team/app", "localhost/app", "localhost:5000/app", *PINNED):
    print(reference.replace(HASH, "a..."))
    for reader, read in READERS.items():
        print(f"    {reader:15}", str(read(reference)).replace(HASH, "a..."))
EOF

as_recorded <<'EOF'
team/app
    podman          ('team/app', None)
    docker          ('team/app', None)
    oras            ('docker.io', 'team', 'app', 'latest', None)
    docker-image-py ('team', 'app', None, None)
localhost/app
    podman          ('localhost/app', None)
    docker          ('localhost/app', None)
    oras            ('docker.io', 'localhost', 'app', 'latest', None)
    docker-image-py ('localhost', 'app', None, None)
localhost:5000/app
    podman          ('localhost:5000/app', None)
    docker          ('localhost:5000/app', None)
    oras            ('localhost:5000', None, 'app', 'latest', None)
    docker-image-py ('localhost:5000', 'app', None, None)
app@sha256:a...
    podman          ('app@sha256', 'a...')
    docker          ('app', 'sha256:a...')
    oras            ('docker.io', None, 'app', 'latest', 'sha256:a...')
    docker-image-py (None, 'app', None, 'sha256:a...')
host.example/app:1@sha256:a...
    podman          ('host.example/app:1@sha256', 'a...')
    docker          ('host.example/app:1', 'sha256:a...')
    oras            ('host.example', None, 'app', '1', 'sha256:a...')
    docker-image-py ('host.example', 'app', '1', 'sha256:a...')
EOF
