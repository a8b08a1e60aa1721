# shellcheck shell=bash
# What the scripts here share: a temporary folder, pinned packages in it, and the comparison. Not run by itself.

name=$(basename "$0" .sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Some scripts have a server of their own in place of an engine's, as in stub.py.
export no_proxy=127.0.0.1${no_proxy:+,$no_proxy}
PYTHONPATH=$(dirname "$(realpath "$0")")
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1

# python_packages NAME==VERSION...: into a virtual environment in $work, whose interpreter is then $python.
python_packages() {
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$name: needs Python 3.11 or newer" >&2
        exit 2
    fi
    python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -qq --disable-pip-version-check "$@"
}

# node_packages NAME@VERSION...: into $work/node_modules.
node_packages() {
    npm install --prefix "$work" --silent --no-audit --no-fund --ignore-scripts "$@"
}

# debian_packages NAME=VERSION...: unpacked, not installed, with the libraries that this host lacks; their programs come
# first in PATH. VERSION may end in '*'. Needs package lists (`apt-get update`), no root.
debian_packages() {
    local wanted=("$@") libraries
    mapfile -t libraries < <(apt-get install -s --no-install-recommends "${wanted[@]}" | awk '/^Inst/ {print $2}')
    mkdir "$work/debs"
    if ! (cd "$work/debs" && apt-get download -qq "${wanted[@]}" "${libraries[@]}" 2>"$work/apt"); then
        cat "$work/apt" >&2
        exit 2
    fi
    for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
    export PATH=$work/root/usr/bin:$work/root/usr/sbin:$work/root/sbin:$PATH
    LD_LIBRARY_PATH=$(find "$work/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd: -)
    export LD_LIBRARY_PATH
}

# as_recorded: compares $work/seen with the record on standard input. Exit status 1, with the difference, where it is
# another.
as_recorded() {
    cat "$work/seen"
    if diff -u --label recorded --label seen - "$work/seen"; then
        echo "$name: as recorded"
    else
        echo "$name: CHANGED" >&2
        exit 1
    fi
}
