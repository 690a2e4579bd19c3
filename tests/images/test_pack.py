"""Images become flists, by the command line: which one, what starts it, and what is refused."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

import flistfs
from tests.e2e.commands import FLISTFS, Home
from tests.e2e.schemas import check_answer
from tests.images.building import (
    config_of,
    docker_archive,
    image_of,
    layer_of,
    write_layout,
    write_manifest,
)
from tests.images.test_layers import file

CONFIG: dict[str, Any] = {
    "Entrypoint": ["/bin/app", "--fast"],
    "Cmd": ["serve"],
    "Env": ["PATH=/bin", "EMPTY=", "A=b=c"],
    "WorkingDir": "/srv",
    "User": "app:app",
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8080": {}},
    "Volumes": {"/data": {}},
    "Labels": {"made.by": "hand"},
    "StopSignal": "SIGINT",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def packed(home: Home, source: str | Path, *options: str, code: int = 0) -> dict[str, Any]:
    out = home.path / "out.flist"
    done = home.run("pack", str(source), str(out), "--force", "--json", *options, code=code)
    check_answer("pack", done.stdout, code)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def refused(home: Home, source: str | Path, code: int, *options: str) -> str:
    """What is said where nothing is packed."""
    done = home.run("pack", str(source), str(home.path / "refused.flist"), *options, code=code)
    assert not (home.path / "refused.flist").exists()
    assert done.stderr.count("\n") == 1
    return done.stderr


def content(home: Home, path: str) -> bytes:
    with flistfs.open(home.path / "out.flist", store=f"dir://{home.path}/data/flistfs/blocks") as flist:
        return b"".join(flist.read(path))


def test_what_starts_an_image(home: Home, tmp_path: Path) -> None:
    directory = image_of(tmp_path / "image", [[file("bin/app", "#!")], [file("srv/x")]], **CONFIG)
    answer = packed(home, f"oci:{directory}", "--format", "sqlite")
    assert answer["image"]["source"] == f"oci:{directory}"
    with flistfs.open(tmp_path / "out.flist") as flist:
        says = {key: value.decode() for key, value in flist.metadata.items()}
    assert json.loads(says["entrypoint"]) == ["/bin/app", "--fast", "serve"]
    assert json.loads(says["environ"]) == {"PATH": "/bin", "EMPTY": "", "A": "b=c"}
    assert json.loads(says["port"]) == {"tcp/80": 80, "udp/53": 53, "tcp/8080": 8080}
    assert json.loads(says["volume"]) == {"/data": {}}
    assert json.loads(says["labels"]) == {"made.by": "hand"}
    assert json.loads(says["image-entrypoint"]) == CONFIG["Entrypoint"]
    assert json.loads(says["image-cmd"]) == CONFIG["Cmd"]
    assert (says["user"], says["workdir"], says["stop-signal"]) == ("app:app", "/srv", "SIGINT")
    assert says["image-digest"] == answer["image"]["digest"]
    startup = tomllib.loads(content(home, ".startup.toml").decode())["startup"]["entry"]
    assert startup["args"] == {
        "name": "/bin/app",
        "args": ["--fast", "serve"],
        "dir": "/srv",
        "env": {"PATH": "/bin", "EMPTY": "", "A": "b=c"},
    }


@pytest.mark.parametrize("format_", ["rocksdb", "sqlite"])
def test_what_a_user_says_comes_first(home: Home, tmp_path: Path, format_: str) -> None:
    directory = image_of(tmp_path / "image", [[file("a")]], **CONFIG)
    own = ("--entrypoint", "/bin/sh -c x", "--env", "PATH=/usr/bin", "--startup")
    packed(home, directory, "--format", format_, *own)
    startup = tomllib.loads(content(home, ".startup.toml").decode())["startup"]["entry"]["args"]
    assert (startup["name"], startup["env"]["PATH"], startup["env"]["A"]) == ("/bin/sh", "/usr/bin", "b=c")
    packed(home, directory, "--format", format_, "--no-startup")
    with flistfs.open(tmp_path / "out.flist") as flist:
        assert ".startup.toml" not in {node.path.decode() for node in flist.walk()}


def test_an_image_that_starts_nothing(home: Home, tmp_path: Path) -> None:
    packed(home, image_of(tmp_path / "image", [[file("a")]]), "--format", "sqlite")
    with flistfs.open(tmp_path / "out.flist") as flist:
        names = {node.path.decode() for node in flist.walk()}
    assert names == {"a", "dev", "etc", "proc", "run", "sys", "tmp"}


def test_what_docker_saves(home: Home, tmp_path: Path) -> None:
    layers = [layer_of([file("a", "low"), file("b")]), layer_of([file("a", "high")])]
    names = ("app:1", "app:latest")
    archive = docker_archive(tmp_path / "app.tar", layers, names, Cmd=["/a"])
    (tmp_path / "app.tar.gz").write_bytes(gzip.compress(archive.read_bytes()))
    for source in (archive, tmp_path / "app.tar.gz", f"docker-archive:{archive}:app:latest"):
        answer = packed(home, source, "--format", "sqlite")
        assert answer["image"]["name"] in names
        assert content(home, "a") == b"high"
    for known in ("app", "app:latest", "docker.io/library/app:1", "library/app:1"):
        packed(home, f"docker-archive:{archive}:{known}")
    for unknown in ("app:2", "quay.io/app:1", "me/app:1"):
        assert "there is no image" in refused(home, f"docker-archive:{archive}:{unknown}", 2)
    assert "app:1, app:latest" in refused(home, f"docker-archive:{archive}:other", 2)
    plain = packed(home, f"tar:{archive}")
    assert plain["image"] is None
    assert "manifest.json" in home.run("ls", str(tmp_path / "out.flist")).stdout


@pytest.mark.parametrize("is_pipe", [True, False])
def test_an_image_on_standard_input(home: Home, tmp_path: Path, is_pipe: bool) -> None:  # noqa: FBT001
    archive = docker_archive(tmp_path / "app.tar", [layer_of([file("a", "content")])], ["app:1"])
    (tmp_path / "app.tar.gz").write_bytes(gzip.compress(archive.read_bytes()))

    def piped(name: str, source: str) -> str:
        command = f"flistfs pack {source} {tmp_path}/out.flist --force"
        shell = f"cat {tmp_path}/{name} | {command}" if is_pipe else f"{command} < {tmp_path}/{name}"
        path = {"PATH": f"{FLISTFS.parent}:/usr/bin:/bin"}
        done = subprocess.run(
            ["sh", "-c", shell], env=home.environment(**path), capture_output=True, text=True, check=True
        )
        return done.stderr

    for name in ("app.tar", "app.tar.gz"):
        assert "docker-archive:- is the image app:1" in piped(name, "docker-archive:-")
        assert content(home, "a") == b"content"
    for source in ("-", "tar:-"):
        assert "is the image" not in piped("app.tar", source)
        assert b"app:1" in content(home, "manifest.json")


def test_an_archive_of_a_layout(home: Home, tmp_path: Path) -> None:
    directory = image_of(tmp_path / "image", [[file("a", "content")]])
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        tar.add(directory, ".")
    for source in (f"oci-archive:{tmp_path}/image.tar", directory):
        assert packed(home, source)["image"] is not None
        assert content(home, "a") == b"content"
    assert packed(home, f"dir:{directory}")["image"] is None


def test_one_of_several(home: Home, tmp_path: Path) -> None:
    directory = tmp_path / "image"
    directory.mkdir()
    found = []
    for name in ("amd64", "arm64", "arm/v7"):
        architecture, _, variant = name.partition("/")
        layers = [layer_of([file("machine", name)])]
        config = {**config_of(layers), "architecture": architecture}
        platform = {"os": "linux", "architecture": architecture, **({"variant": variant} if variant else {})}
        found.append(write_manifest(directory, layers, config, platform=platform))
    found.append({**found[0], "platform": {"os": "unknown", "architecture": "unknown"}})
    write_layout(directory, *found)
    for wanted, machine in (("arm64", b"arm64"), ("arm", b"arm/v7"), ("arm/v7", b"arm/v7")):
        packed(home, directory, "--platform", f"linux/{wanted}")
        assert content(home, "machine") == machine
    there = "linux/amd64, linux/arm/v7, linux/arm64"
    assert there in refused(home, directory, 2, "--platform", "linux/s390x")
    for wrong in ("linux", "linux/", "a/b/c/d"):
        assert "--platform" in refused(home, directory, 2, "--platform", wrong)
    assert "--platform" in refused(home, f"dir:{directory}", 2, "--platform", "linux/arm64")
    reference = "org.opencontainers.image.ref.name"
    named = [{**each, "annotations": {reference: f"v{n}"}} for n, each in enumerate(found)]
    write_layout(directory, *named)
    assert "choose one: v0, v1, v2" in refused(home, f"oci:{directory}", 2)
    assert "there is no image 'v9'" in refused(home, f"oci:{directory}:v9", 2)
    packed(home, f"oci:{directory}:v1")
    assert content(home, "machine") == b"arm64"


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (b"no json", 11),
        (b"[]", 11),
        (b'{"manifests": 1}', 11),
        (b'{"manifests": [{"digest": "sha256:../../etc/passwd", "size": 1}]}', 11),
        (json.dumps({"manifests": [1] * 100_000}).encode(), 11),
        (b"[" * 1_000_000, 11),
        (b" " * (5 << 20), 11),
        (b'{"manifests": []}', 11),
    ],
    ids=range(8),
)
def test_images_that_are_none(home: Home, tmp_path: Path, index: bytes, code: int) -> None:
    directory = image_of(tmp_path / "image", [[file("a")]])
    (directory / "index.json").write_bytes(index)
    assert refused(home, f"oci:{directory}", code)


def test_a_damaged_layer_names_itself(home: Home, tmp_path: Path) -> None:
    said = refused(home, image_of(tmp_path / "image", [[file("a")], [file("b"), file(".wh.", "")]]), 11)
    assert "layer 2 (sha256:" in said
    assert ".wh.: it is a whiteout of nothing" in said


@pytest.mark.parametrize("key", ["Entrypoint", "Env", "Labels", "Volumes", "User", "ExposedPorts"])
def test_configurations_of_another_shape(home: Home, tmp_path: Path, key: str) -> None:
    said = refused(home, image_of(tmp_path / "image", [[file("a")]], **{key: 7}), 11)
    assert f"{key} of its configuration" in said


def test_places_that_are_none(home: Home) -> None:
    for source in ("oci:", "docker-archive:", "oci-archive:"):
        assert "names no file" in refused(home, source, 2)
    for source in ("oci:nowhere", "docker-archive:nowhere.tar", "oci-archive:/dev/null"):
        assert refused(home, source, 11)
