#!/usr/bin/env bash
# Runs a command as this user where this user may use the engines, else under sudo, saying so. What the command then
# leaves in the checkout and in the lab's state and cache directories still belongs to this user.
#   with-access.sh COMMAND...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=vagrant/lib.sh
. "$here/lib.sh"

main() {
  local endpoint=
  if wants docker && endpoint=$(docker_endpoint) && [ "$endpoint" != unix:///var/run/docker.sock ]; then
    export DOCKER_HOST=$endpoint
  fi
  local closed
  closed=$(closed_to_user "$endpoint" | xargs)
  [ -n "$closed" ] || exec "$@"
  if ! gain_root; then
    warn "this user may not use $closed, and there is no sudo: going on without"
    exec "$@"
  fi
  say "Running under sudo, because this user may not use $closed (membership of its group gives that for good)" >&2
  local state=${XDG_STATE_HOME:-$HOME/.local/state} cache=${XDG_CACHE_HOME:-$HOME/.cache} status=0 kept
  mapfile -t kept < <(env | grep -E '^(LAB_|DOCKER_|NO_COLOR=|TERM=|COLUMNS=|CI=|LANG=|PATH=)')
  (umask 077 && mkdir -p "$state/stratalab" "$cache/stratalab")
  trap : INT # the command ends by itself, and its files are given back after that
  sudo env "${kept[@]}" XDG_STATE_HOME="$state" XDG_CACHE_HOME="$cache" PYTHONDONTWRITEBYTECODE=1 "$@" || status=$?
  give_back "$(dirname "$here")" "$state/stratalab" "$cache/stratalab"
  exit "$status"
}

closed_to_user() { # ENDPOINT: the engines whose daemons are there and not for this user
  [ "$(id -u)" != 0 ] || return 0
  case "$1" in
    unix://*) [ -w "$SYSROOT${1#unix://}" ] || say docker ;;
  esac
  # By group, on Debian (polkit) and on Ubuntu (the socket's mode).
  if wants libvirt && libvirt_there && ! id -nG | grep -qw libvirt; then say libvirt; fi
}

give_back() { # DIRECTORY...: what root made there becomes this user's
  local directory
  for directory; do
    [ ! -O "$(dirname "$directory")" ] || [ ! -d "$directory" ] ||
      sudo find "$directory" -xdev -path "$directory/.git" -prune -o -user 0 -exec chown -h "$(id -u):$(id -g)" {} +
  done
}

main "$@"
