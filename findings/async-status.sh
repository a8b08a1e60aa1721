#!/usr/bin/env bash
# ansible-core 2.19.14 (PyPI): async_status and jobs that are no more.
#
# A job of hours is started with `async: 7200, poll: 0` and asked after with async_status until `finished`.
# Expected: of a job whose wrapper was killed (a reboot, an OOM kill) `finished` with a failure, sooner or later; of a job
#   that the host does not know, an error that is not `finished`.
# Seen: the first is unfinished for ever, as only the wrapper ever writes that it has ended; the second has failed and is
#   `finished`, as a job that did run is.
# For a lab: a loop `until: status.finished` waits for ever for a host that was started anew, and takes a wrong job id for
#   an end. A job of the lab's has a heartbeat, its boot's identity and a deadline of its own.
# Run on 2026-12-01.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages ansible-core==2.19.14
export ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_HOME=$work/ansible ANSIBLE_PYTHON_INTERPRETER=$python
unset ANSIBLE_CONFIG

cat >"$work/play.yml" <<'EOF'
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: A job that takes its whole process group along, the wrapper with it, as a reboot would
      command:
        argv: [sh, -c, "sleep 2; kill -9 0"]
      async: 60
      poll: 0
      register: job
    - pause: {seconds: 8}
    - async_status: {jid: "{{ job.ansible_job_id }}"}
      register: killed
    - async_status: {jid: "123.456"}
      register: unknown
      ignore_errors: true
    - copy:
        dest: "{{ lookup('env', 'SEEN') }}"
        content: |
          killed wrapper: finished {{ killed.finished | bool }}, failed {{ killed is failed }}
          unknown job:    finished {{ unknown.finished | bool }}, failed {{ unknown is failed }}
EOF
SEEN=$work/seen "$work/venv/bin/ansible-playbook" "$work/play.yml" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }

as_recorded <<'EOF'
killed wrapper: finished False, failed False
unknown job:    finished True, failed True
EOF
