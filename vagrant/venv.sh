#!/usr/bin/env bash
# Makes the checkout's .venv, or brings it up to date, with the packages that the lab needs for these ENGINES.
#   venv.sh [dev]      dev adds what the tests need
# It installs again only when pyproject.toml, the Python, the checkout's place or the extras differ from the last time.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=vagrant/lib.sh
. "$here/lib.sh"
cd "$here/.."

if ! python=$(find_python); then
  say "no Python of 3.11 or later is here: 'make provision' installs one where the distribution has it" >&2
  exit 1
fi
extras=${1:+$1,}serve, # the live page: two small packages, beside which the lab has what they need
if wants docker; then extras+=docker,; fi
if wants kubernetes; then extras+=kubernetes,; fi
if wants libvirt; then
  if have pkg-config && pkg-config --exists libvirt; then
    extras+=libvirt,
  else
    warn "libvirt's headers (libvirt-dev, pkg-config) are not here: going on without the libvirt targets"
  fi
fi
extras=${extras%,}
python_is=$("$python" --version)
stamp=.venv/.installed-$({ sha256sum pyproject.toml && pwd && echo "$python_is"; } | sha256sum | cut -c -16)

usable() { # it runs, it was not made elsewhere and then moved, and its Python is still that one
  [ "$(.venv/bin/python --version 2>/dev/null)" = "$python_is" ] && grep -qF "$PWD/.venv/" .venv/bin/pip
}

covered() { # extras that an earlier call installed stay, so a larger set will do
  [ -e "$stamp" ] && ! tr , '\n' <<<"$extras" | grep -qvxFf "$stamp"
}

if usable && covered; then exit 0; fi
if ! usable; then
  say "Making .venv with $python_is ..."
  "$python" -m venv --clear .venv
fi
say "Installing the lab${extras:+ with $extras} into .venv ..."
# Not compiled: that takes as long as the rest of it, and most modules of the packages are never imported.
.venv/bin/python -m pip install -q --no-compile -e ".${extras:+[$extras]}"
[ -e "$stamp" ] || rm -f .venv/.installed-*
tr , '\n' <<<"$extras" >>"$stamp"
