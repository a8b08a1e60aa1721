"""Run a daemon that puts itself in the background, and be the parent of what it leaves behind, until all has ended.

    python3 reap.py COMMAND [ARGUMENT ...]

Where PID 1 is no init (in a container, on a small CI machine) it takes the end of an orphan late, or never. QEMU is
such an orphan, since libvirt has it fork away: it then stays a zombie, to libvirt a guest that does not end. Processes
whose parents are gone go to the nearest ancestor that asked for them (PR_SET_CHILD_SUBREAPER, prctl(2)): this one.
"""

import ctypes
import os
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    code = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL).wait()
    while code == 0:
        try:
            os.wait()
        except ChildProcessError:
            break
    return code


if __name__ == "__main__":
    sys.exit(main())
