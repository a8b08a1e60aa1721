"""Launches the witness's image given on the command line by the bare runtime, and prints what it tells."""

from __future__ import annotations

import json
import sys

from conftest import run_labels
from test_surroundings import ask, launched

from drivers.oci import OciDriver
from lab.driver import Context
from lab.store.place import RunDir, cache_dir, make_run_dir

labels = run_labels()
run_dir = make_run_dir(labels["lab.run"], labels)
try:
    driver = OciDriver("", Context(run_dir=run_dir, cache_dir=cache_dir()))
    with launched(driver, "oci", labels, image=sys.argv[1]) as session:
        sys.stdout.write(json.dumps(ask(session)))
finally:
    RunDir(str(run_dir), labels).delete()
