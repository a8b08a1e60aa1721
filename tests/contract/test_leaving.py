"""All that was made bears its labels, is found by them, and goes: objects, files, threads, descriptors."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path

from contract_rig import Rig, not_promised, threads_named

from lab.errors import LabError
from lab.features import Feature, StoredHere
from lab.run.clean import find


def test_prepare_may_be_called_again_and_makes_nothing_twice(rig: Rig) -> None:
    before = sorted((one.kind, one.id) for one in rig.driver.leftovers(rig.run))
    rig.driver.prepare(rig.spec)
    with contextlib.closing(rig.fresh()) as fresh:
        fresh.prepare(rig.spec)
        assert sorted((one.kind, one.id) for one in fresh.leftovers(rig.run)) == before


def test_each_thing_that_is_left_bears_the_labels_of_its_run_and_owner(rig: Rig) -> None:
    wanted = {key: rig.spec.labels[key] for key in ("lab.run", "lab.owner")}
    for one in rig.driver.leftovers(rig.run):
        assert {key: one.labels.get(key) for key in wanted} == wanted, one.id
        assert one.kind and one.id


def test_an_image_in_the_engines_own_store_is_among_what_is_left(rig: Rig) -> None:
    if not rig.has(Feature.STORAGE):
        rig.needs(Feature.HOST_PIDS)
    image = [path for path in _image(rig) if not _within(path, (rig.context.run_dir, rig.context.cache_dir))]
    if not image:
        not_promised("its image lies in the lab's own directories, and goes with them")
    assert "image" in {one.kind for one in rig.driver.leftovers(rig.run)}, f"whose is {image[0]}?"


def test_all_that_is_left_is_removed_and_a_second_removal_is_no_error(rig: Rig) -> None:
    other = {"lab.run": f"{rig.run['lab.run']}-2"}
    spec = replace(rig.spec, labels={**rig.spec.labels, **other})
    with contextlib.closing(rig.fresh()) as fresh:
        fresh.prepare(spec)
        for one in fresh.leftovers(other):
            one.delete()
            again = None
            try:
                one.delete()
            except LabError as error:
                again = error
            assert again is None, f"removed once more: {again}"
        assert [one.id for one in fresh.leftovers(other)] == []
        looked = find([fresh], {"lab.run": "nobody's"})
        assert not looked.found and not looked.problems and not looked.absent


def test_no_file_of_a_launch_outlives_it(rig: Rig) -> None:
    life = rig.life
    assert life.after is not None
    assert not {path for path in life.after.files - life.before.files if path.exists()}


def test_no_thread_outlives_close(rig: Rig) -> None:
    life = rig.life
    assert life.after is not None
    assert threads_named(life.after.threads - life.before.threads) == []


def test_no_descriptor_outlives_close(rig: Rig) -> None:
    life = rig.life
    assert life.after is not None
    assert sorted(life.after.descriptors - life.before.descriptors) == []


def _image(rig: Rig) -> list[Path]:
    """Where the image's files are: as the driver says, and as the kernel does of an overlay's lower layers."""
    instance = rig.served.instance
    told = list(instance.storage().get("image", ())) if isinstance(instance, StoredHere) else []
    for pid in rig.served.workload[:1]:
        options = rig.view.mounts(pid)["/"].super_options if "/" in rig.view.mounts(pid) else ""
        lower = re.search(r"(?:^|,)lowerdir=([^,]*)", options)
        told += [Path(path) for path in (lower[1].split(":") if lower else ()) if path.startswith("/")]
    return told


def _within(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
