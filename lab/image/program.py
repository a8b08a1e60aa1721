"""For which machine a program is, by its own bytes: the ELF header of what an image would run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lab.image.platform import elf_architecture

HEAD_BYTES = 256
_MAX_INTERPRETERS = 4  # as the kernel's BINPRM recursion limit

Look = Callable[[str], bytes | None]
"""The first HEAD_BYTES of the file that a path leads to in an image; None where it leads to none."""


def program_architecture(look: Look, argv: Sequence[str], environment: Mapping[str, str], cwd: str) -> tuple[str, str]:
    """The architecture by the header of the program that `argv` starts, and that program's path; a script is judged
    by its interpreter. Both empty where no ELF file is found."""
    if not argv or not argv[0]:
        return "", ""
    name = argv[0]
    folders = environment.get("PATH", "").split(":") if "/" not in name else [""]
    candidates = [_absolute(f"{folder}/{name}" if folder else name, cwd) for folder in folders]
    for _ in range(_MAX_INTERPRETERS):
        found = next(((path, head) for path in candidates if (head := look(path)) is not None), None)
        if found is None:
            return "", ""
        path, head = found
        if not head.startswith(b"#!"):
            return elf_architecture(head), path
        words = head[2:].split(b"\n")[0].split()
        if not words:
            return "", ""
        candidates = [_absolute(words[0].decode("utf-8", "surrogateescape"), cwd)]
    return "", ""


def _absolute(path: str, cwd: str) -> str:
    return path if path.startswith("/") else f"{cwd or '/'}/{path}"
