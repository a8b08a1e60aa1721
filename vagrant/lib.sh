# shellcheck shell=bash
# What provision.sh, uninstall.sh, venv.sh and with-access.sh share: what is asked for, what is there, how to be root.
# SYSROOT stands before the paths of the system, for the tests; it is empty in use.
SYSROOT=${SYSROOT:-}
STATE_DIR=${STATE_DIR:-/var/lib/stratalab/provision} # what was installed and started, for uninstall.sh
ENGINES=${ENGINES:-process,docker,libvirt}
SUDO=()

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
or_nothing() { if [ -n "${1// /}" ]; then xargs <<<"$1"; else say nothing; fi; }
as_root() { "${SUDO[@]}" "$@"; }
has_systemd() { [ -d "$SYSROOT/run/systemd/system" ]; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

wants() { # ENGINE: it is among those asked for; Swarm is Docker's
  case ",$ENGINES," in
    *",$1,"*) return 0 ;;
    *,swarm,*) [ "$1" = docker ] ;;
    *) return 1 ;;
  esac
}

gain_root() { # fails where this user is not root and may not become it
  [ "$(id -u)" != 0 ] || return 0
  have sudo || return 1
  sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; } || return 1
  SUDO=(sudo)
}

await() { # SECONDS COMMAND...: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.5
  done
}

listens() { # PATH below /run: a process of this network namespace listens on that socket
  grep -qE " 00010000 .* (/var)?/run/$1\$" "$SYSROOT/proc/net/unix" 2>/dev/null
}

answers() { # SOCKET: a Docker API is there; where this user may not ask it, that someone listens has to do
  [ -S "$1" ] || return 1
  if [ ! -w "$1" ] || ! have python3; then
    listens "${1#*/run/}"
    return
  fi
  python3 - "$1" <<'PYTHON'
import socket, sys
try:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(sys.argv[1])
        s.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        sys.exit(b" 200 " not in s.recv(64))
except OSError:
    sys.exit(1)
PYTHON
}

docker_endpoint() { # prints where a Docker API answers: Docker's own, a rootless one, or Podman's
  if [ -n "${DOCKER_HOST:-}" ]; then # the user's choice: whether it answers is shown when it is used
    say "$DOCKER_HOST"
    return
  fi
  local user_run=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} socket
  for socket in /var/run/docker.sock "$user_run/docker.sock" "$user_run/podman/podman.sock" /run/podman/podman.sock; do
    if answers "$SYSROOT$socket"; then
      say "unix://$socket"
      return
    fi
  done
  return 1
}

docker_there() { docker_endpoint >/dev/null; }
libvirt_there() { listens libvirt/libvirt-sock || listens libvirt/virtqemud-sock; }

find_python() { # prints the first Python that is new enough
  local python
  for python in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      say "$python"
      return
    fi
  done
  return 1
}

start_ticks() { # PID: when it started, in ticks since boot (proc_pid_stat(5), field 22); nothing if it is gone
  sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

boot_id() { cat /proc/sys/kernel/random/boot_id; }
