#!/usr/bin/env bash
# prometheus-node-exporter 1.5.0 (Debian), prometheus-client 0.26.0 (PyPI): OpenMetrics is no textfile for node_exporter.
#
# OpenMetrics 1.0 is the newer of Prometheus' two text formats, and its authors call it compatible. A counter `lab` has
# the sample `lab_total` there, and a document ends with `# EOF`.
# Expected: a valid OpenMetrics document in --collector.textfile.directory is exposed as it is, or refused.
# Seen: OpenMetrics' own parser reads a counter; node_exporter exposes the same file as `untyped`, without its help, and
# says that there was no error. Of a document with an `info`, or an exemplar, all is lost, and the error is one gauge.
# For a lab: what a textfile collector reads is written in the older format, apart from OpenMetrics.
# Run on 2026-11-30, on 127.0.0.1.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
debian_packages 'prometheus-node-exporter=1.5.0-*'
python_packages prometheus-client==0.26.0

"$python" - "$work" >"$work/seen" <<'EOF'
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read

folder = pathlib.Path(sys.argv[1], "textfiles")
folder.mkdir()
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
exporter = subprocess.Popen(
    ["prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
     f"--collector.textfile.directory={folder}", f"--web.listen-address={address}"],
    stderr=subprocess.DEVNULL,
)


def exposed():
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://{address}/metrics") as answer:
                return answer.read().decode().splitlines()
        except OSError:
            time.sleep(0.05)
    sys.exit("node_exporter does not answer")


COUNTER = "# TYPE lab counter\n# HELP lab Launches.\nlab_total 22\n"
cases = {
    "counter": COUNTER,
    "with an info": COUNTER + '# TYPE build info\nbuild_info{version="1"} 1\n',
    "with an exemplar": COUNTER.replace("22", '22 # {run="a"} 1'),
}
for name, text in cases.items():
    document = text + "# EOF\n"
    print(f"{name}: OpenMetrics reads", [(one.name, one.type) for one in read(document)])
    (folder / "a.prom").write_text(document)
    for line in exposed():
        if line.startswith(("# TYPE lab", "lab", "# TYPE build", "node_textfile_scrape_error ")):
            print("  node_exporter:", line)
exporter.terminate()
EOF

as_recorded <<'EOF'
counter: OpenMetrics reads [('lab', 'counter')]
  node_exporter: # TYPE lab_total untyped
  node_exporter: lab_total 22
  node_exporter: node_textfile_scrape_error 0
with an info: OpenMetrics reads [('lab', 'counter'), ('build', 'info')]
  node_exporter: node_textfile_scrape_error 1
with an exemplar: OpenMetrics reads [('lab', 'counter')]
  node_exporter: node_textfile_scrape_error 1
EOF
