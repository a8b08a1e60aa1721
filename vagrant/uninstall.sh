#!/usr/bin/env bash
# Takes back what provision.sh did, and only that: stops what it started, gives /dev/kvm back as it was, and removes
# the packages that it installed, but none that something installed since needs or that was asked for since.
#
#   uninstall.sh [--plan | --stop]   --plan only shows it; --stop leaves the packages
#   PURGE=1                          remove the packages' configuration and data too (all of Docker's images)
#   FORCE=1                          although containers or virtual machines are running
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=vagrant/lib.sh
. "$here/lib.sh"

# Only hard dependencies hold a package: what merely suggests one did without it before.
NEEDED_ONLY=(-o APT::AutoRemove::RecommendsImportant=false -o APT::AutoRemove::SuggestsImportant=false)

APT=(apt-get -qq -y -o DPkg::Lock::Timeout=300)

main() {
  case "${1:-}" in
    '' | --plan | --stop) ;;
    *)
      sed -n 2,8p "$0" >&2
      exit 2
      ;;
  esac
  if [ ! -d "$STATE_DIR" ]; then
    say "Nothing to take back: no set-up is noted in $STATE_DIR"
    return 0
  fi
  say "To stop: $(or_nothing "$(noted started | cut -d ' ' -f 2)")"
  [ "${1:-}" = --stop ] || say "To remove, where nothing else needs it: $(or_nothing "$(noted packages)")"
  [ "${1:-}" != --plan ] || return 0
  if ! gain_root; then
    say "this needs root, or sudo" >&2
    exit 1
  fi
  if [ "${1:-}" != --stop ]; then refuse_in_use; fi
  stop_started
  restore_kvm
  [ "${1:-}" != --stop ] || return 0
  remove_packages
  as_root rm -r "$STATE_DIR"
  as_root rmdir --ignore-fail-on-non-empty "$(dirname "$STATE_DIR")"
}

noted() { cat "$STATE_DIR/$1" 2>/dev/null || true; }

refuse_in_use() {
  [ -z "${FORCE:-}" ] || return 0
  local used
  used=$(cat "$SYSROOT"/proc/[0-9]*/comm 2>/dev/null | grep -E "^($(ours_in_use_as))" | sort | uniq -c | xargs || true)
  [ -n "$used" ] || return 0
  say "containers or virtual machines are running ($used): stop them first ('lab clean' removes the lab's), or set FORCE=1" >&2
  exit 1
}

ours_in_use_as() { # the processes that live by what was installed or started here
  local mine
  mine=$(noted explicit && noted started)
  if grep -q docker <<<"$mine"; then printf 'containerd-shim|'; fi
  if grep -qE 'libvirt|qemu' <<<"$mine"; then printf 'qemu-system|'; fi
  printf 'nothing else'
}

stop_started() {
  local units kind name pid ticks boot
  units=$(noted started | sed -n 's/^unit //p')
  # All at once, since a socket left for later would start its service again.
  # shellcheck disable=SC2086  # a list of names
  [ -z "$units" ] || as_root systemctl stop $units || warn "not all of these stopped: $(xargs <<<"$units")"
  # The last started goes first: libvirtd before virtlogd.
  noted started | tac | while read -r kind name pid ticks boot; do
    if [ "$kind" = pid ] && [ "$boot" = "$(boot_id)" ] && [ "$(start_ticks "$pid")" = "$ticks" ]; then
      as_root kill "$pid" || true # it may have ended just now
      await 30 gone "$pid" "$ticks" || warn "$name (pid $pid) did not end within 30 s"
    fi
  done
  as_root rm -f "$STATE_DIR/started"
}

gone() { [ "$(start_ticks "$1")" != "$2" ]; }

restore_kvm() {
  local owner mode
  read -r owner mode < <(noted kvm) || return 0
  as_root chown "$owner" "$SYSROOT/dev/kvm"
  as_root chmod "$mode" "$SYSROOT/dev/kvm"
  as_root rm "$STATE_DIR/kvm"
}

remove_packages() {
  local explicit ours unneeded
  explicit=$(noted explicit | while read -r package; do ! installed "$package" || say "$package"; done)
  [ -n "$explicit" ] || return 0
  ours=$(noted packages | LC_ALL=C sort -u)
  # What was asked for here counts as a dependency from now on; then apt itself says which of ours nothing needs.
  # shellcheck disable=SC2086  # a list of names
  as_root apt-mark auto $explicit >/dev/null
  unneeded=$(removed_by "${NEEDED_ONLY[@]}" autoremove | LC_ALL=C comm -12 - <(echo "$ours"))
  # shellcheck disable=SC2086
  if [ -n "$unneeded" ] && [ -n "$(removed_by remove $unneeded | LC_ALL=C comm -23 - <(echo "$ours"))" ]; then
    as_root apt-mark manual $explicit >/dev/null
    say "nothing was removed, because packages that were not installed here would go too: apt-get remove" $unneeded >&2
    exit 1
  fi
  # shellcheck disable=SC2086
  [ -z "$unneeded" ] || as_root env DEBIAN_FRONTEND=noninteractive "${APT[@]}" ${PURGE:+--purge} remove $unneeded
  say "Left, because something else needs them: $(or_nothing "$(LC_ALL=C comm -23 <(echo "$ours") <(echo "$unneeded"))")"
  [ -n "${PURGE:-}" ] || say "Configuration and data stay, such as images under /var/lib/docker: PURGE=1 takes them too"
}

removed_by() { # APT-GET'S ARGUMENTS...: the packages that it would remove
  apt-get -s "$@" | sed -n 's/^Remv \([^ ]*\) .*/\1/p' | LC_ALL=C sort -u
}

main "$@"
