"""Images without an engine: made, read, flattened, and their process resolved."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.errors import BadInput
from lab.image import open_image, service_archive
from lab.image.archive import machine_architecture
from lab.image.config import DEFAULT_PATH
from lab.image.layers import Kind
from lab.image.process import process_of, resolve_user

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff"


def member(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member: `content`, or `type` and what goes with it; `xattrs` as bytes."""
    info = tarfile.TarInfo(name)
    content = fields.pop("content", b"")
    info.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
        for key, value in fields.pop("xattrs", {}).items()
    }
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(content)
    return info, content


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, **{"type": tarfile.DIRTYPE, "mode": 0o755, **fields})


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def config_json(layers: Sequence[bytes], run: Mapping[str, Any]) -> bytes:
    return json.dumps(
        {
            "architecture": machine_architecture(),
            "os": "linux",
            "config": dict(run),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(content)}" for content in layers]},
        }
    ).encode()


def docker_archive(path: Path, layers: Sequence[bytes], *, compress: bool = False, **run: Any) -> Path:
    config = config_json(layers, run)
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = json.dumps([{"Config": f"{sha256(config)}.json", "RepoTags": ["x:y"], "Layers": names}]).encode()
    blobs = [gzip.compress(content) if compress else content for content in layers]
    files = {f"{sha256(config)}.json": config, "manifest.json": manifest, **dict(zip(names, blobs, strict=True))}
    path.write_bytes(layer(*(member(name, content=content) for name, content in files.items())))
    return path


def oci_archive(path: Path, layers: Sequence[bytes], *, nested: bool = False, **run: Any) -> Path:
    blobs: dict[str, bytes] = {}

    def add(content: bytes, **more: Any) -> dict[str, Any]:
        blobs[f"blobs/sha256/{sha256(content)}"] = content
        return {"digest": f"sha256:{sha256(content)}", "size": len(content), **more}

    manifest = {
        "schemaVersion": 2,
        "config": add(config_json(layers, run)),
        "layers": [add(gzip.compress(content, mtime=0)) for content in layers],
    }
    here = {"platform": {"architecture": machine_architecture(), "os": "linux"}}
    descriptors = [add(json.dumps(manifest).encode(), **here)]
    if nested:
        other = add(b"{}", platform={"architecture": "s390x", "os": "linux"})
        unknown = add(b"{ }", platform={"architecture": "unknown", "os": "unknown"})
        descriptors = [add(json.dumps({"manifests": [other, *descriptors, unknown]}).encode())]
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    path.write_bytes(layer(*(member(name, content=content) for name, content in blobs.items())))
    return path


def names(path: Path) -> list[str]:
    with open_image(path) as image:
        return [entry.path for entry in image.entries()]


def content_of(path: Path, name: str) -> bytes:
    with open_image(path) as image:
        entry = image.find(name)
        assert entry is not None
        return image.open(entry).read()


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return tmp_path / "image.tar"


# The lab's own image.


@pytest.fixture
def service_tar(tmp_path: Path) -> bytes:
    (tmp_path / "service").write_bytes(b"\x7fELF service")
    return service_archive(tmp_path / "service", tag="stratalab/service:1", labels={"b": "2", "a": "1"})


def test_the_services_image_is_the_same_bytes_each_time(service_tar: bytes, tmp_path: Path) -> None:
    again = service_archive(tmp_path / "service", tag="stratalab/service:1", labels={"a": "1", "b": "2"})
    assert again == service_tar


def test_the_services_image_holds_the_service_and_tmp_alone(service_tar: bytes, tar: Path) -> None:
    tar.write_bytes(service_tar)
    with open_image(tar) as image:
        found = {entry.path: (entry.kind, entry.mode, entry.uid) for entry in image.entries()}
        assert found == {"service": (Kind.FILE, 0o755, 0), "tmp": (Kind.DIRECTORY, 0o1777, 0)}
        assert image.config.entrypoint == ("/service",)
        assert image.config.labels == {"a": "1", "b": "2"}
        assert image.config.architecture == machine_architecture()
        assert process_of(image).argv == ("/service",)
    assert content_of(tar, "/service") == b"\x7fELF service"


def test_the_services_image_names_its_tag(service_tar: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(service_tar)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest[0]["RepoTags"] == ["stratalab/service:1"]


# Reading.


@pytest.mark.parametrize("form", ["docker", "docker-gzip", "oci", "oci-nested", "gzip-outside"])
def test_every_form_gives_config_and_files(tar: Path, form: str) -> None:
    run = {
        "Entrypoint": ["/bin/e"],
        "Cmd": ["a", "b"],
        "Env": ["PATH=/bin", "X=a=b"],
        "User": "web",
        "WorkingDir": "/srv",
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }
    layers = [layer(directory("bin"), member("bin/e", content=b"one", mode=0o4755)), layer(member("x", content=b"2"))]
    if form.startswith("oci"):
        oci_archive(tar, layers, nested=form == "oci-nested", **run)
    else:
        docker_archive(tar, layers, compress=form == "docker-gzip", **run)
    if form == "gzip-outside":
        tar.write_bytes(gzip.compress(tar.read_bytes()))
    with open_image(tar) as image:
        assert image.config.entrypoint == ("/bin/e",)
        assert image.config.command == ("a", "b")
        assert image.config.environment == {"PATH": "/bin", "X": "a=b"}
        assert (image.config.user, image.config.working_dir) == ("web", "/srv")
        assert image.config.exposed_ports == ("80/tcp",)
        assert image.config.stop_signal == 3
        assert [(entry.path, entry.mode) for entry in image.entries()] == [
            ("bin", 0o755),
            ("bin/e", 0o4755),
            ("x", 0o644),
        ]
    assert content_of(tar, "bin/e") == b"one"
    assert content_of(tar, "x") == b"2"


def test_owners_modes_xattrs_times_and_devices_are_kept(tar: Path) -> None:
    everything = layer(
        directory("d", mode=0o2750, uid=7, gid=8, mtime=5),
        member(
            "d/f", content=b"x" * 70_000, mode=0o6711, uid=2_000_000, gid=9, xattrs={"security.capability": CAPABILITY}
        ),
        member("d/l", type=tarfile.SYMTYPE, linkname="/d/f", mode=0o777),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        member("pipe", type=tarfile.FIFOTYPE, mode=0o600),
        member("ü", content=b"", xattrs={"user.a": b"b\nc"}),
    )
    with open_image(docker_archive(tar, [everything])) as image:
        found = {entry.path: entry for entry in image.entries()}
        assert (found["d"].mode, found["d"].uid, found["d"].gid, found["d"].mtime_ns) == (0o2750, 7, 8, 5_000_000_000)
        assert (found["d/f"].mode, found["d/f"].uid, found["d/f"].size) == (0o6711, 2_000_000, 70_000)
        assert found["d/f"].xattrs == {"security.capability": CAPABILITY}
        assert (found["d/l"].kind, found["d/l"].target) == (Kind.SYMLINK, "/d/f")
        assert (found["null"].kind, found["null"].device) == (Kind.CHARACTER, (1, 3))
        assert found["pipe"].kind is Kind.FIFO
        assert found["ü"].xattrs == {"user.a": b"b\nc"}
        assert image.open(image.find("d/l")).read() == b"x" * 70_000  # type: ignore[arg-type]
        with pytest.raises(BadInput):
            image.open(found["d"])


# Flattening.


@pytest.mark.parametrize("end", ["content", "block", "one block more"])
def test_a_layer_may_end_where_its_last_content_does(tar: Path, end: str) -> None:
    whole = layer(member("a", content=b"a"), member("b", content=b"hello"))
    content_end = whole.index(b"hello") + len(b"hello")
    block_end = content_end + -content_end % tarfile.BLOCKSIZE
    cut = {"content": content_end, "block": block_end, "one block more": block_end + tarfile.BLOCKSIZE}[end]
    path = docker_archive(tar, [whole[:cut]], Cmd=["/b"])
    assert names(path) == ["a", "b"] and content_of(path, "b") == b"hello"


def test_a_layer_of_one_file_may_end_with_its_content(tar: Path) -> None:
    whole = layer(member("b", content=b"hello"))
    path = docker_archive(tar, [whole[: whole.index(b"hello") + len(b"hello")]], Cmd=["/b"])
    assert names(path) == ["b"] and content_of(path, "b") == b"hello"


def test_a_layer_whose_last_content_is_cut_short_is_refused(tar: Path) -> None:
    whole = layer(member("a", content=b"a"), member("b", content=b"hello"))
    path = docker_archive(tar, [whole[: whole.index(b"hello") + 4]], Cmd=["/b"])
    with pytest.raises(BadInput, match="unexpected end of data"):
        names(path)


def test_a_whiteout_takes_lower_files_and_trees(tar: Path) -> None:
    lower = layer(directory("a"), member("a/x"), member("a/y"), directory("t"), directory("t/u"), member("t/u/v"))
    upper = layer(member("a/.wh.x"), member(".wh.t"), member("a/.wh.never"))
    assert names(docker_archive(tar, [lower, upper])) == ["a", "a/y"]


def test_what_was_whited_out_may_come_back(tar: Path) -> None:
    layers = [layer(member("f", content=b"1")), layer(member(".wh.f")), layer(member("f", content=b"3"))]
    assert content_of(docker_archive(tar, layers), "f") == b"3"


@pytest.mark.parametrize("opaque_first", [True, False])
def test_an_opaque_directory_hides_lower_layers_only(tar: Path, opaque_first: bool) -> None:
    lower = layer(directory("a"), member("a/old"), directory("a/d"), member("a/d/older"))
    marks = [member("a/.wh..wh..opq")]
    new = [member("a/new"), member("a/d/newer")]
    upper = layer(directory("a", mode=0o700), *(marks + new if opaque_first else new + marks))
    with open_image(docker_archive(tar, [lower, upper])) as image:
        assert [entry.path for entry in image.entries()] == ["a", "a/d", "a/d/newer", "a/new"]
        assert image.find("a").mode == 0o700  # type: ignore[union-attr]


def test_other_aufs_names_are_left_out(tar: Path) -> None:
    assert names(docker_archive(tar, [layer(directory(".wh..wh.plnk"), member("f"))])) == ["f"]


def test_a_file_replaces_a_tree_and_a_tree_a_file(tar: Path) -> None:
    lower = layer(directory("a"), member("a/x"), member("b", content=b"file"))
    upper = layer(member("a", content=b"now a file"), directory("b"), member("b/y"))
    assert names(docker_archive(tar, [lower, upper])) == ["a", "b", "b/y"]
    assert content_of(tar, "a") == b"now a file"


def test_a_directory_given_again_keeps_what_is_in_it(tar: Path) -> None:
    layers = [layer(directory("a"), member("a/x")), layer(directory("a", uid=5))]
    with open_image(docker_archive(tar, layers)) as image:
        assert [(entry.path, entry.uid) for entry in image.entries()] == [("a", 5), ("a/x", 0)]


def test_a_hard_link_to_a_lower_layers_file_brings_it_up(tar: Path) -> None:
    lower = layer(directory("a", mode=0o700), member("a/one", content=b"same", uid=3), member("a/other", content=b"o"))
    upper = layer(member("two", type=tarfile.LNKTYPE, linkname="a/one", uid=3))
    with open_image(docker_archive(tar, [lower, upper])) as image:
        found = {entry.path: entry for entry in image.entries()}
        assert found["two"].inode == found["a/one"].inode
        assert (found["two"].uid, image.open(found["two"]).read()) == (3, b"same")
        assert (found["a"].mode, sorted(found)) == (0o700, ["a", "a/one", "a/other", "two"])


def test_a_hard_link_to_nothing_is_refused(tar: Path) -> None:
    with pytest.raises(BadInput, match="not there"):
        open_image(docker_archive(tar, [layer(member("l", type=tarfile.LNKTYPE, linkname="gone"))]))


def test_directories_that_no_layer_names_are_there(tar: Path) -> None:
    with open_image(docker_archive(tar, [layer(member("a/b/c"))])) as image:
        assert [(entry.path, entry.kind) for entry in image.entries()] == [
            ("a", Kind.DIRECTORY),
            ("a/b", Kind.DIRECTORY),
            ("a/b/c", Kind.FILE),
        ]


def test_a_layer_writes_through_its_own_links_and_not_through_those_of_lower_ones(tar: Path) -> None:
    lower = layer(
        directory("usr"),
        directory("usr/lib"),
        member("lib", type=tarfile.SYMTYPE, linkname="../../usr/lib"),
        member("lib/own.so", content=b"own"),
    )
    upper = layer(member("lib/x.so", content=b"so"))
    assert names(docker_archive(tar, [lower])) == ["lib", "usr", "usr/lib", "usr/lib/own.so"]
    assert names(docker_archive(tar, [lower, upper])) == ["lib", "lib/x.so", "usr", "usr/lib", "usr/lib/own.so"]
    assert content_of(tar, "/lib/x.so") == b"so"


# What must not be believed.


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_names_that_lead_out_are_refused(tar: Path, name: str) -> None:
    with pytest.raises(BadInput, match="leads out"):
        open_image(docker_archive(tar, [layer(member(name))]))


def test_absolute_names_are_the_images_own(tar: Path) -> None:
    assert names(docker_archive(tar, [layer(member("/etc/x"), member("./y"))])) == ["etc", "etc/x", "y"]


def test_links_in_a_circle_are_refused(tar: Path) -> None:
    circle = layer(
        member("a", type=tarfile.SYMTYPE, linkname="b"), member("b", type=tarfile.SYMTYPE, linkname="a"), member("a/x")
    )
    with pytest.raises(BadInput, match="circle"):
        open_image(docker_archive(tar, [circle]))


@pytest.mark.parametrize("form", [docker_archive, oci_archive])
def test_a_changed_layer_is_noticed(tar: Path, form: Any) -> None:
    content = layer(member("f", content=b"wanted"))
    form(tar, [content])
    changed = tar.read_bytes()
    old, new = (content, content.replace(b"wanted", b"forged"))
    if form is oci_archive:
        old, new = gzip.compress(old, mtime=0), gzip.compress(new, mtime=0)
    assert old in changed
    if len(old) != len(new):
        pytest.skip("the two compress to different lengths")
    tar.write_bytes(changed.replace(old, new))
    with pytest.raises(BadInput, match="damaged"):
        open_image(tar)


def test_a_changed_config_is_noticed(tar: Path) -> None:
    docker_archive(tar, [layer(member("f"))], User="one")
    tar.write_bytes(tar.read_bytes().replace(b'"User": "one"', b'"User": "two"'))
    with pytest.raises(BadInput, match="damaged"):
        open_image(tar)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no tar",
        b"\x1f\x8bbroken",
        gzip.compress(b"x" * 5000, mtime=0)[:40],
        layer(member("other")),
        layer(member("manifest.json", content=b"nonsense")),
        layer(member("manifest.json", content=b"[]")),
        layer(member("manifest.json", content=b"[{}]")),
        layer(member("manifest.json", content=b'[{"Config":"c","Layers":[]}]')),
        layer(member("manifest.json", content=b'[{"Config":"c","Layers":[]}]'), member("c", content=b"[]")),
        layer(member("manifest.json", content=b'[{"Config":"c","Layers":[]}]'), member("c", content=b"{}")),
        layer(member("index.json", content=b'{"manifests":[]}')),
        layer(member("index.json", content=b'{"manifests":[{"digest":"sha256:../../x"}]}')),
        layer(member("index.json", content=b'{"manifests":["x"]}')),
    ],
)
def test_what_is_no_image_is_one_clear_error(tar: Path, content: bytes) -> None:
    tar.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        open_image(tar)
    assert "\n" not in caught.value.brief


def test_an_absent_file_is_bad_input(tar: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no image .*image.tar"):
        open_image(tar)


# The process.

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/var/www:/bin/sh\n"
    b"# comment\nbroken\nbad:x:a:b::/:\n77:x:5:6::/seven:\nalias:x:101:7::/home/alias:\n"
)
GROUP = b"root:x:0:\nweb:x:102:\nlogs:x:200:web,root\nmore:x:300:other,web\n"


def with_users(tar: Path, user: str, **run: Any) -> Path:
    files = layer(directory("etc"), member("etc/passwd", content=PASSWD), member("etc/group", content=GROUP))
    return docker_archive(tar, [files], User=user, **run)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (0, 200), "/root")),
        ("root", (0, 0, (0, 200), "/root")),
        ("web", (101, 102, (102, 200, 300), "/var/www")),
        ("101", (101, 102, (102, 200, 300), "/var/www")),
        ("web:logs", (101, 200, (200,), "/var/www")),
        ("web:5", (101, 5, (5,), "/var/www")),
        ("4321", (4321, 0, (0,), "/")),
        ("4321:logs", (4321, 200, (200,), "/")),
        ("77", (77, 0, (0,), "/")),
        ("alias", (101, 7, (7,), "/var/www")),  # the home is the uid's first entry's: runtimes look it up by number
        ("bad", (0, 0, (0,), "/root")),  # what is no number is 0
        (":200", (0, 200, (200,), "/root")),
        ("web:0", (101, 0, (0,), "/var/www")),
        ("+101", (101, 102, (102, 200, 300), "/var/www")),
    ],
)
def test_users_are_resolved_as_docker_does(tar: Path, user: str, expected: tuple[Any, ...]) -> None:
    with open_image(with_users(tar, user)) as image:
        assert resolve_user(image) == expected


@pytest.mark.parametrize("user", ["-1", "web:-5", "2147483648"])
def test_ids_that_no_process_can_have_are_refused(tar: Path, user: str) -> None:
    with open_image(with_users(tar, user)) as image, pytest.raises(BadInput, match="no id that a process"):
        resolve_user(image)


@pytest.mark.parametrize("user", ["nobody", "web:nogroup"])
def test_unknown_users_and_groups_are_refused(tar: Path, user: str) -> None:
    with open_image(with_users(tar, user)) as image, pytest.raises(BadInput, match="is not in its"):
        resolve_user(image)


def test_an_image_without_users_runs_numbers(tar: Path) -> None:
    with open_image(docker_archive(tar, [layer(member("x"))], User="65532:65532")) as image:
        assert resolve_user(image) == (65532, 65532, (65532,), "/")


def test_passwd_may_be_a_link(tar: Path) -> None:
    files = layer(
        member("etc/passwd", type=tarfile.SYMTYPE, linkname="/nix/passwd"), member("nix/passwd", content=PASSWD)
    )
    with open_image(docker_archive(tar, [files], User="web")) as image:
        assert resolve_user(image)[0] == 101


def test_the_process_joins_entrypoint_command_and_environment(tar: Path) -> None:
    path = with_users(tar, "web", Entrypoint=["/e"], Cmd=["c"], Env=["A=image", "B=image"], WorkingDir="/srv")
    with open_image(path) as image:
        process = process_of(image, environment={"A": "given"})
        assert process.argv == ("/e", "c")
        assert process.cwd == "/srv"
        assert process.environment == {"PATH": DEFAULT_PATH, "A": "given", "B": "image", "HOME": "/var/www"}
        assert process_of(image, command=["x", "y"]).argv == ("/e", "x", "y")
        assert process_of(image, command=[]).argv == ("/e", "c")  # as Docker takes an empty list


def test_no_program_is_bad_input(tar: Path) -> None:
    with open_image(docker_archive(tar, [layer(member("x"))])) as image, pytest.raises(BadInput, match="no program"):
        process_of(image)


# What the lab adds, and what no image is let do.


@pytest.mark.parametrize("name", [".wh.", "etc/.wh..", "etc/.wh...", ".wh..."])
def test_a_whiteout_that_names_no_entry_is_refused(tar: Path, name: str) -> None:
    with pytest.raises(BadInput, match="names no entry"):
        open_image(docker_archive(tar, [layer(member("a")), layer(member(name))]))


def test_what_the_lab_adds_goes_where_links_lead_inside_the_image(tar: Path) -> None:
    members = [
        member("etc", type=tarfile.SYMTYPE, linkname="/run/../var/config"),
        member("var/config/hosts", type=tarfile.SYMTYPE, linkname="../../../../own/hosts"),
        member("data", type=tarfile.SYMTYPE, linkname="/srv"),
    ]
    with open_image(docker_archive(tar, [layer(*members)])) as image:
        image.add_file("/etc/hosts", b"the lab's")
        image.add_directory("/data/of/service", mode=0o700, uid=3, gid=4)
        found = {entry.path: entry for entry in image.entries()}
        added = found["own/hosts"]
        assert image.open(added).read() == b"the lab's"
        assert (added.kind, added.mode, added.uid, added.size) == (Kind.FILE, 0o644, 0, 9)
        assert (found["srv/of/service"].mode, found["srv/of/service"].uid, found["srv/of/service"].gid) == (0o700, 3, 4)
        assert found["srv/of"].kind is Kind.DIRECTORY


def test_what_the_lab_adds_takes_the_place_of_what_is_there_and_leaves_directories(tar: Path) -> None:
    members = [directory("etc"), directory("etc/hosts"), member("etc/hosts/x"), directory("tmp", mode=0o1777)]
    with open_image(docker_archive(tar, [layer(*members)])) as image:
        image.add_file("/etc/hosts", b"1")
        image.add_file("/etc/hosts", b"2")
        image.add_directory("/tmp")
        image.add_directory("/")
        found = {entry.path: entry for entry in image.entries()}
        assert (sorted(found), found["tmp"].mode) == (["etc", "etc/hosts", "tmp"], 0o1777)
        assert image.open(found["etc/hosts"]).read() == b"2"


def test_an_engines_own_notes_and_foreign_names_of_attributes_are_left_out(tar: Path) -> None:
    named = {
        "trusted.overlay.redirect": b"/x",
        "user.x": b"1",
        "security.capability": CAPABILITY,
        "-f/etc/shadow": b"x",
    }
    with open_image(docker_archive(tar, [layer(member("a", xattrs=named))])) as image:
        assert set(next(iter(image.entries())).xattrs) == {"user.x", "security.capability"}


@pytest.mark.parametrize("field", ["uid", "gid"])
def test_an_owner_that_no_kernel_knows_is_refused(tar: Path, field: str) -> None:
    with pytest.raises(BadInput, match=f"has the {field} 4294967295"):
        open_image(docker_archive(tar, [layer(member("a", **{field: 2**32 - 1}))]))


def test_a_device_that_no_kernel_knows_is_refused(tar: Path) -> None:
    device = member("a", type=tarfile.CHRTYPE, devmajor=5000, devminor=1)
    with pytest.raises(BadInput, match="has the devmajor 5000"):
        open_image(docker_archive(tar, [layer(device)]))


@pytest.mark.parametrize(
    "headers",
    [{"mtime": "nan"}, {"mtime": "1e400"}, {"size": "9" * 30}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}],
)
def test_hostile_headers_are_one_clear_line(tar: Path, headers: dict[str, str]) -> None:
    info, content = member("a")
    info.pax_headers = headers
    with pytest.raises(BadInput, match="not a readable tar"):
        open_image(docker_archive(tar, [layer((info, content))]))


def test_links_of_an_archive_that_run_in_a_circle_are_one_clear_line(tar: Path) -> None:
    tar.write_bytes(layer(member("manifest.json", type=tarfile.SYMTYPE, linkname="manifest.json")))
    with pytest.raises(BadInput):
        open_image(tar)


@pytest.mark.parametrize("user", ["9" * 5000, "4294967295", "x"])
def test_a_user_that_can_be_none_is_one_clear_line(tar: Path, user: str) -> None:
    passwd = member("etc/passwd", content=f"x:x:{'9' * 5000}:0:::\ny:x:4294967296:0:::\n".encode())
    with open_image(docker_archive(tar, [layer(passwd)], User=user)) as image, pytest.raises(BadInput, match="user"):
        resolve_user(image)
