#!/usr/bin/env bash
# paramiko 5.1.0, asyncssh 2.24.1 (PyPI) and OpenSSH 9.2 (Debian 12): three readers of one ssh_config.
#
# Tools write such files for their guests (`vagrant ssh-config`), and people include one from their own.
# Expected: a library that reads ssh_config finds the host that ssh finds, or says which line it does not know.
# Seen: paramiko takes Include for an option like any other and does not open the file: no error, and the host is its
#   own name, port 22, another user. asyncssh opens it, and refuses a ConnectTimeout in ssh's time format (1m).
# For a lab: a fleet's address is asked of `ssh -G HOST`, whoever connects afterwards.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages paramiko==5.1.0 asyncssh==2.24.1
debian_packages 'openssh-client=1:9.2p1*'

cat >"$work/guests" <<'EOF'
Host node1
  HostName 192.0.2.7
  User guest
  Port 2222
EOF
cat >"$work/config" <<EOF
Include $work/guests
Host *
  User operator
EOF
{ cat "$work/config"; echo "  ConnectTimeout 1m"; } >"$work/config-timeout"
cat >"$work/read.py" <<'EOF'
import sys

import asyncssh
import paramiko

for path in sys.argv[1:]:
    found = paramiko.SSHConfig.from_path(path).lookup("node1")
    print("paramiko", found["user"], found["hostname"], found.get("port"), "timeout", found.get("connecttimeout"))
    try:
        options = asyncssh.SSHClientConnectionOptions(config=[path], host="node1")
        print("asyncssh", options.username, options.host, options.port, "timeout", options.connect_timeout)
    except asyncssh.ConfigParseError as error:
        print("asyncssh", str(error).replace(path, "config"))
EOF
{
    "$python" -W ignore "$work/read.py" "$work/config" "$work/config-timeout"
    ssh -T -F "$work/config-timeout" -G node1 | grep -E '^(user|hostname|port|connecttimeout) '
} >"$work/seen"

as_recorded <<'EOF'
paramiko operator node1 None timeout None
asyncssh guest 192.0.2.7 2222 timeout None
paramiko operator node1 None timeout 1m
asyncssh config line 4: Invalid ConnectTimeout integer value: 1m
user guest
hostname 192.0.2.7
port 2222
connecttimeout 60
EOF
