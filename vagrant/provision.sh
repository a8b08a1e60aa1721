#!/usr/bin/env bash
# Installs what the lab's engines need with apt-get, and starts them. It first shows what it will do; it installs
# nothing that is there, removes nothing, and notes what it did, so that uninstall.sh takes back exactly that.
#
#   provision.sh [--plan] [--tests] [--install-only]
#                                     --plan shows what it would do and stops; --tests adds the tests' own tools;
#                                     --install-only starts nothing and changes no device: for images
#   ENGINES=process,docker            the engines to set up (default process,docker,libvirt; also swarm, kubernetes)
#   FIX_KVM=1                         give group kvm the device /dev/kvm, where libvirt's QEMU cannot open it
#
# It changes no daemon.json and no group's members. Where it starts libvirtd itself, it gives /dev/kvm to group kvm as
# udev would have done; where another libvirtd runs, it changes no device unless FIX_KVM is set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=vagrant/lib.sh
. "$here/lib.sh"

APT=(apt-get -qq -y --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300)
PATH=$PATH:$SYSROOT/usr/local/sbin:$SYSROOT/usr/sbin:$SYSROOT/sbin # where daemons are, and a user's PATH may not go
declare -A PACKAGES=([base]='' [docker]='' [libvirt]='' [kubernetes]='' [browser]='' [tests]='')

main() {
  local plan_only='' for_tests='' install_only='' word
  for word; do
    case "$word" in
      --plan) plan_only=1 ;;
      --tests) for_tests=1 ;;
      --install-only) install_only=1 ;;
      *)
        sed -n 2,13p "$0" >&2
        exit 2
        ;;
    esac
  done
  check_engines
  check_system
  choose_packages
  [ -z "$for_tests" ] || choose_tools
  local can_act=1
  if [ -z "$plan_only" ]; then
    if [ -n "$(wanted)$(to_start)" ] || lists_missing || kvm_to_fix; then gain_root || can_act=; fi
    if [ -n "$can_act" ] && { [ -n "$(wanted)" ] || lists_missing; }; then refresh_lists; fi
  fi
  show_plan
  [ -z "$plan_only" ] || return 0
  if [ -z "$can_act" ]; then
    show_commands
    return 0
  fi
  local group
  for group in base docker libvirt kubernetes browser tests; do
    # shellcheck disable=SC2086  # a list of names
    [ -z "${PACKAGES[$group]// /}" ] || install_packages "$group" ${PACKAGES[$group]}
  done
  [ -z "$install_only" ] || return 0
  fix_kvm
  # Without systemd a package may have started its daemon by an init script; that one is to be stopped too.
  if [ -n "${PACKAGES[docker]}" ] && ! has_systemd && docker_there; then
    note_pid dockerd "$(as_root cat "$SYSROOT/run/docker.pid")"
  fi
  if wants docker && ! docker_there; then start_docker || warn "Docker is not running: its targets will be skipped"; fi
  if wants libvirt && ! libvirt_there; then start_libvirt || warn "libvirt is not running: its targets will be skipped"; fi
}

check_engines() {
  local engine
  for engine in ${ENGINES//,/ }; do
    case "$engine" in
      process | docker | swarm | libvirt | kubernetes) ;;
      *)
        say "ENGINES names '$engine'; known are process, docker, swarm, libvirt, kubernetes" >&2
        exit 2
        ;;
    esac
  done
}

check_system() {
  if ! have apt-get || ! have dpkg-query; then
    say "this script installs with apt-get, which is not here: see README.md for what the lab needs" >&2
    exit 1
  fi
  local ID=unknown VERSION_ID='' PRETTY_NAME=''
  # shellcheck disable=SC1091  # exists on every Debian and Ubuntu
  . "$SYSROOT/etc/os-release"
  DISTRIBUTION=$ID
  say "Set-up for the lab on ${PRETTY_NAME:-$ID}; engines: ${ENGINES//,/ }"
  case "$ID$VERSION_ID" in
    debian12 | debian13 | ubuntu24.04) ;;
    *) warn "tested on Debian 12 and 13 and Ubuntu 24.04; this is ${PRETTY_NAME:-$ID}" ;;
  esac
}

choose_packages() { # into PACKAGES: what is asked for and not there, by what it offers rather than by its name
  local python
  if ! python=$(find_python); then
    need base python3 python3-venv
    python=python3
  elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    need base "$(basename "$python")-venv"
  fi
  # The service is a static C program: a compiler and libc.a.
  have cc || need base gcc
  { have cc && [ -e "$(cc -print-file-name=libc.a)" ]; } || need base libc6-dev
  if wants docker && ! docker_there && ! have dockerd; then need docker docker.io; fi
  # Where the kernel has AppArmor on, a Docker of this host starts no container without its parser.
  if wants docker && apparmor_on && ! have apparmor_parser; then need docker apparmor; fi
  if wants libvirt; then
    { have libvirtd || have virtqemud; } || need libvirt libvirt-daemon-system
    case "$(dpkg --print-architecture)" in
      arm64) have qemu-system-aarch64 || need libvirt qemu-system-arm ;;
      *) have qemu-system-x86_64 || need libvirt qemu-system-x86 ;;
    esac
    have mke2fs || need libvirt e2fsprogs
    # Ubuntu's kernel modules, which the guest is given, are packed with zstd.
    [ "$DISTRIBUTION" != ubuntu ] || have zstd || need libvirt zstd
    # libvirt-python comes as source only.
    have pkg-config || need libvirt pkg-config
    { have pkg-config && pkg-config --exists libvirt; } || need libvirt libvirt-dev
    "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' 2>/dev/null || need libvirt "$(basename "$python")-dev"
  fi
  if wants kubernetes && ! have kind; then
    if apt-cache policy kind 2>/dev/null | grep -q 'Candidate: [^(]'; then
      need kubernetes kind
    else
      warn "this distribution has no package of kind: put its binary on the PATH for the target kubernetes"
    fi
  fi
}

choose_tools() { # what the tests compare the lab's findings with, whatever the engines
  have strace || need tests strace
  have capsh || need tests libcap2-bin
  # The live page is looked at as people see it: by the browser alone, without its window. Ubuntu's is a snap.
  if [ "$DISTRIBUTION" = debian ]; then
    have chromium || have chromium-headless-shell || need browser chromium-headless-shell
  fi
  # Other builders of images, whose archives are compared.
  have umoci || need tests umoci
  have skopeo || need tests skopeo
  have buildah || need tests buildah
  # An engine without a daemon, and what makes its bridge.
  have podman || need tests podman netavark
  # Engines that need no daemon: their targets are tested where they are.
  have systemd-nspawn || need tests systemd-container
  have lxc-start || has_systemd || need tests lxc # where systemd is, the package starts a bridge of its own
  have bwrap || need tests bubblewrap
  if wants libvirt; then
    # Guests of other machines, always emulated, and the keys of the archive that their kernels come from.
    have qemu-system-aarch64 || need tests qemu-system-arm
    have qemu-system-riscv64 || need tests qemu-system-misc
    [ -e "$SYSROOT/usr/share/keyrings/debian-archive-keyring.gpg" ] || need tests debian-archive-keyring
  fi
  # Whole guests are built, and a disk of another maker's is made with a boot loader of its own.
  if wants libvirt && [ "$(dpkg --print-architecture)" = amd64 ]; then
    have mmdebstrap || need tests mmdebstrap
    have qemu-img || need tests qemu-utils
    have syslinux || need tests syslinux
    have mcopy || need tests mtools
    have mkfs.fat || need tests dosfstools
    [ -e "$SYSROOT/usr/lib/syslinux/mbr/mbr.bin" ] || need tests syslinux-common
    [ -e "$SYSROOT/usr/lib/systemd/boot/efi/systemd-bootx64.efi" ] || need tests systemd-boot-efi
  fi
}

apparmor_on() {
  grep -qs Y "$SYSROOT/sys/module/apparmor/parameters/enabled"
}

need() { # GROUP PACKAGE...
  local group=$1 package
  shift
  for package; do
    installed "$package" || PACKAGES[$group]+=" $package"
  done
}

to_start() {
  [ -z "${install_only:-}" ] || return 0
  if wants docker && ! docker_there; then say dockerd; fi
  if wants libvirt && ! libvirt_there; then say libvirtd; fi
}

lists_missing() { # the libvirt driver fetches its guests' kernel by apt's lists
  wants libvirt && [ -z "$(find "$SYSROOT/var/lib/apt/lists" -name '*_Packages*' -print -quit 2>/dev/null)" ]
}

refresh_lists() {
  say "Refreshing apt's lists ..."
  as_root apt-get -qq update >/dev/null || warn "apt-get update did not succeed: going on with the lists that are here"
}

simulate() { # PACKAGE...: apt's own word on what it would do, or its error
  "${APT[@]}" -s install "$@" 2>&1
}

show_plan() {
  local simulated
  if [ -z "$(wanted)" ]; then
    say "To install: nothing"
  else
    say "To install with apt-get: $(wanted)"
    # shellcheck disable=SC2046  # a list of names
    if simulated=$(simulate $(wanted)); then
      show_list "  new, with what they need: " "$(new_in "$simulated")"
      show_list "  brought up to date for that: " "$(sed -n 's/^Inst \([^ ]*\) \[.*/\1/p' <<<"$simulated")"
    else
      say "  what these need cannot be told: $(grep '^E: ' <<<"$simulated" | head -n 1)"
    fi
  fi
  say "To start: $(or_nothing "$(to_start)")"
  ! kvm_to_fix || say "To change: group and mode of /dev/kvm, for libvirt's QEMU"
}

show_commands() {
  local starting
  starting=$(to_start | xargs)
  warn "neither root nor sudo here; going on with what there is. An administrator can run:"
  [ -z "$(wanted)" ] || say "  apt-get update && apt-get install --no-remove --no-install-recommends $(wanted)" >&2
  ! lists_missing || [ -n "$(wanted)" ] || say "  apt-get update" >&2
  [ -z "$starting" ] || say "  systemctl start ${starting/dockerd/docker}" >&2
}

show_list() { [ -z "$2" ] || say "$1$(xargs <<<"$2")"; }
wanted() { xargs <<<"${PACKAGES[*]}"; }
new_in() { sed -n 's/^Inst \([^ ]*\) (.*/\1/p' <<<"$1"; } # SIMULATION: the packages that were not there

install_packages() { # GROUP PACKAGE...: all of them or none; a group that cannot be had leaves the others alone
  local group=$1 simulated status=0
  shift
  if ! simulated=$(simulate "$@"); then
    warn "apt-get cannot install $*: $(grep '^E: ' <<<"$simulated" | head -n 1)"
    [ "$group" != base ] || exit 1
    return 0
  fi
  # Noted before, so that a set-up that dies half-way can be taken back, and made true after.
  note packages "$(new_in "$simulated")"
  note explicit "$(printf '%s\n' "$@")"
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l "${APT[@]}" install "$@" || status=$?
  keep_installed packages
  keep_installed explicit
  if [ "$status" != 0 ]; then
    warn "apt-get did not install $*"
    [ "$group" != base ] || exit 1
  fi
}

note() { # FILE LINES
  as_root mkdir -p "$STATE_DIR"
  printf '%s\n' "$2" | as_root tee -a "$STATE_DIR/$1" >/dev/null
}

keep_installed() { # FILE: only what is installed stays in it
  local package
  sort -u "$STATE_DIR/$1" | while read -r package; do
    if installed "$package"; then say "$package"; fi
  done | as_root tee "$STATE_DIR/$1.new" >/dev/null
  as_root mv "$STATE_DIR/$1.new" "$STATE_DIR/$1"
}

kvm_unusable() { # libvirt runs QEMU as a user of group kvm
  wants libvirt && [ -e "$SYSROOT/dev/kvm" ] || return 1
  local mode group
  read -r mode group < <(stat -c '%a %G' "$SYSROOT/dev/kvm")
  [ $((8#$mode & 8#006)) != 6 ] && ! { [ "$group" = kvm ] && [ $((8#$mode & 8#060)) = $((8#060)) ]; }
}

# Whether this set-up may give the device away: libvirt then looks at QEMU once, and not anew at each launch.
may_fix_kvm() { [ -n "${FIX_KVM:-}" ] || ! libvirt_there; }

kvm_to_fix() { [ -z "${install_only:-}" ] && kvm_unusable && may_fix_kvm; }

fix_kvm() {
  kvm_unusable || return 0
  local device=$SYSROOT/dev/kvm
  if ! may_fix_kvm; then
    warn "libvirt's QEMU cannot open /dev/kvm; give it to group kvm with FIX_KVM=1, or: sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm"
  else
    note kvm "$(stat -c '%u:%g %a' "$device")"
    as_root chgrp kvm "$device"
    as_root chmod 660 "$device"
  fi
}

start_docker() {
  [ -z "${DOCKER_HOST:-}" ] && have dockerd || return 1
  say "Starting Docker ..."
  if has_systemd && systemctl cat docker.service >/dev/null 2>&1; then
    start_unit docker.service
    await 60 docker_there
    return
  fi
  local log=$STATE_DIR/dockerd.log pid
  as_root mkdir -p "$STATE_DIR"
  # shellcheck disable=SC2016  # the inner shell's variables
  pid=$(as_root sh -c 'setsid dockerd >"$1" 2>&1 </dev/null & echo $!' - "$log")
  note_pid dockerd "$pid"
  await 60 docker_settled "$pid"
  ! docker_there || return 0
  warn "dockerd gives no answer; the end of $log:"
  as_root tail -n 5 "$log" >&2
  [ -z "$(start_ticks "$pid")" ] || as_root kill "$pid"
  return 1
}

docker_settled() { docker_there || [ -z "$(start_ticks "$1")" ]; }

start_libvirt() {
  say "Starting libvirt ..."
  if has_systemd; then
    if systemctl cat libvirtd.service >/dev/null 2>&1; then start_unit libvirtd.service; else start_unit virtqemud.socket; fi
    await 60 libvirt_there
    return
  fi
  have libvirtd || return 1
  local daemon log
  as_root mkdir -p "$STATE_DIR"
  for daemon in virtlogd libvirtd; do
    listens "libvirt/${daemon/libvirtd/libvirt}-sock" && continue
    log=$STATE_DIR/$daemon.log
    # shellcheck disable=SC2016  # the inner shell's variables
    as_root sh -c 'setsid python3 "$0" "$1" -d >"$2" 2>&1 </dev/null &' "$here/reap.py" "$daemon" "$log"
    if ! await 10 listens "libvirt/${daemon/libvirtd/libvirt}-sock"; then
      warn "$daemon gives no answer; the end of $log:"
      as_root tail -n 5 "$log" >&2
      return 1
    fi
    note_pid "$daemon" "$(as_root cat "$SYSROOT/run/$daemon.pid")"
  done
  await 60 libvirt_there
}

start_unit() { # UNIT: and note every engine's unit that became active with it
  local before after
  before=$(active_units)
  as_root systemctl start "$1" || return 1
  after=$(active_units)
  note started "$(comm -13 <(echo "$before") <(echo "$after") | sed '/^$/d; s/^/unit /')"
}

active_units() {
  systemctl list-units --plain --no-legend --state=active --type=service,socket 'docker*' 'containerd*' 'virt*' 'libvirt*' |
    cut -d ' ' -f 1 | LC_ALL=C sort
}

note_pid() { # NAME PID: with what makes sure later that it is still the same process
  note started "pid $1 $2 $(start_ticks "$2") $(boot_id)"
}

main "$@"
