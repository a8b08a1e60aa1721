"""What is kept of guests' disk images on this host, for `lab guest list` and `lab guest remove`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivers.libvirt.whole import recipe
from drivers.libvirt.whole.kept import DISK, folders, manifest, place_of
from drivers.libvirt.whole.locked import locked
from lab.errors import BadInput, CleanupError
from lab.store.place import partial, remove_tree


def told(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """The image in `folder` with its manifest, as JSON values (see `lab.features.KeepsGuests`)."""
    suite = found.get("suite", "")
    return {
        "name": folder.name,
        "what": found["facts"].get("distribution") or found["facts"].get("image", ""),
        "bytes": sum(one["bytes"] for one in found["files"].values()),
        "made_at": found["made_at"],
        "sha256": found["files"][DISK]["sha256"],
        "from": found.get("mirror") or found.get("origin", ""),
        "facts": found["facts"],
        "current": not suite or (suite in recipe.SUITES and found.get("recipe") == recipe.digest(suite)),
    }


def images(cache_dir: Path) -> Sequence[dict[str, Any]]:
    """Every image that is in the cache, by name."""
    read = ((folder, manifest(folder)) for folder in folders(cache_dir))
    return [told(folder, found) for folder, found in read if found is not None]


def remove(cache_dir: Path, name: str) -> dict[str, Any]:
    """Remove the image `name`, or the only one whose name begins so, and return what it was. Launches have copies of
    their own, and go on. Raises BadInput where there is none, or more than one; CleanupError."""
    there = images(cache_dir)
    named = [one for one in there if one["name"] == name] or [one for one in there if one["name"].startswith(name)]
    if len(named) != 1:
        names = ", ".join(str(one["name"]) for one in named or there) or "none"
        which = "several guest images begin" if named else "there is no guest image that begins"
        raise BadInput(f"{which} with '{name}'", resolution=f"there are: {names}")
    folder = place_of(cache_dir, named[0]["name"])
    with locked(folder, on_wait=lambda: None), partial(cache_dir, "guest-removed") as gone:
        folder.replace(gone)  # at once, so that nobody finds half of it
        remove_tree(gone)
    if folder.exists():
        raise CleanupError(f"{folder} cannot be removed", resolution=f"sudo rm -r {folder}")
    return named[0]
