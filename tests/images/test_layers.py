"""Layers become the tree that a tested tool makes of them."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flistfs.errors import SourceError
from flistfs.images.image import Image
from flistfs.images.places import Place
from flistfs.images.source import LayeredSource
from flistfs.sources.data import BytesSource
from flistfs.sources.item import Item
from tests.images.building import image_of, layer_of
from tests.needs import needs_data

MADE = {"dev", "etc", "proc", "run", "sys", "tmp"}


@dataclass(frozen=True)
class Node:
    """What is at a path: an item, and the content of a file, also of one that is a hard link."""

    item: Item
    content: bytes = b""


def nodes_of(directory: Path) -> dict[str, Node]:
    """The tree of the only image in a directory."""
    found: dict[str, Node] = {}
    place = Place("oci", str(directory))
    with closing(LayeredSource(Image.open(place), str(place))) as source:
        for item in source.items():
            assert isinstance(item, Item)
            path = item.path.decode()
            assert path not in found
            if item.link is not None:
                found[path] = Node(item, found[item.link.decode()].content)
                continue
            pieces = [piece.source for piece in item.pieces]
            content = b"".join(piece.data for piece in pieces if isinstance(piece, BytesSource))
            assert len(content) == item.size
            found[path] = Node(item, content)
    return found


def shown(node: Node) -> dict[str, str]:
    """A node as the vectors have it."""
    mode = node.item.mode
    if stat.S_ISDIR(mode):
        return {"directory": oct(stat.S_IMODE(mode))}
    if stat.S_ISLNK(mode):
        return {"link": node.item.target.decode()}
    if stat.S_ISREG(mode):
        return {"data": node.content.decode()}
    return {"special": oct(stat.S_IFMT(mode))}


def vectors() -> Iterator[Mapping[str, Any]]:
    path = needs_data("oci-layers.json")
    yield from json.loads(path.read_text())["vectors"]


@pytest.mark.parametrize("number", range(36))
def test_the_vectors(tmp_path: Path, number: int) -> None:
    vector = [*vectors()][number]
    directory = image_of(tmp_path / "image", vector["layers"])
    if vector.get("refused"):
        with pytest.raises(SourceError, match=r"layer [12] \(sha256:"):
            nodes_of(directory)
        return
    found = nodes_of(directory)
    root = found.pop("")
    wanted = vector["tree"]
    for path in MADE - wanted.keys():  # what a container needs, and this image has not
        assert stat.S_ISDIR(found.pop(path).item.mode)
    plain = {
        path: {key: value for key, value in each.items() if key != "same_as"}
        for path, each in wanted.items()
        if not path.startswith(".wh.")  # which that tool keeps, and an image cannot have
    }
    assert {path: shown(node) for path, node in found.items()} == plain, vector["name"]
    for path, each in wanted.items():
        if "same_as" in each and {path, each["same_as"]} <= found.keys():
            one, other = found[path].item, found[each["same_as"]].item
            assert (one.link or one.path) == (other.link or other.path)
    if "root" in vector:
        assert oct(stat.S_IMODE(root.item.mode)) == vector["root"]["mode"]
        assert root.item.mtime_ns == vector["root"]["mtime"] * 10**9


def file(name: str, data: str = "x", **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    return {"name": name, "type": "file", "data": data, **more}


def test_what_is_hidden_is_not_read(tmp_path: Path) -> None:
    """Neither what a whiteout removes, nor what is replaced, nor what an opaque directory hides."""
    lower = [file("gone", "hidden1"), file("old", "hidden2"), file("d/x", "hidden3"), file("kept", "seen")]
    upper = [file(".wh.gone", ""), file("old", "new"), file("d/.wh..wh..opq", ""), file("d/y", "other")]
    found = nodes_of(image_of(tmp_path / "image", [lower, upper]))
    contents = {node.content for node in found.values()} - {b""}
    assert contents == {b"seen", b"new", b"other"}


def test_an_opaque_directory_is_the_upper_one_s(tmp_path: Path) -> None:
    """Wherever its marks stand in the archive, what a directory was below is forgotten."""
    lower = [{"name": "a", "type": "directory"}, {"name": "a/b", "type": "directory", "mode": "0o700"}]
    marks = [file("a/.wh..wh..opq", "")]
    for upper in ([file("a/b/c"), *marks], [*marks, file("a/b/c")]):
        found = nodes_of(image_of(tmp_path / "image", [lower, upper]))
        assert stat.S_IMODE(found["a/b"].item.mode) == 0o755


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([file(".wh..", "")], "whiteout of nothing"),
        ([file(".wh...", "")], "whiteout of nothing"),
        ([{"name": "h", "type": "hardlink", "link": "nowhere"}], "hard link to what is not there"),
        (
            [{"name": "d", "type": "directory"}, {"name": "h", "type": "hardlink", "link": "d"}],
            "hard link to a directory",
        ),
        (
            [
                {"name": "a", "type": "symlink", "link": "b"},
                {"name": "b", "type": "symlink", "link": "a"},
                file("a/x"),
            ],
            "too many symbolic links",
        ),
    ],
)
def test_what_no_layer_holds(tmp_path: Path, entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        nodes_of(image_of(tmp_path / "image", [entries]))


def test_layers_that_are_not_what_the_image_says(tmp_path: Path) -> None:
    directory = image_of(tmp_path / "image", [[file("a")], [file("b")]])
    blobs = sorted((directory / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    layer = next(path for path in blobs if path.read_bytes()[:2] == b"\x1f\x8b")
    content = layer.read_bytes()
    for damaged in (content[:-9], content + b"\0", b"", bytes(len(content)), layer_of([file("c")])):
        layer.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"layer [12] \(sha256:"):
            nodes_of(directory)
    layer.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        nodes_of(directory)


def test_extended_attributes_are_kept_to_be_counted(tmp_path: Path) -> None:
    directory = {"name": "d", "type": "directory", "pax": {"SCHILY.xattr.user.a": "b"}}
    found = nodes_of(image_of(tmp_path / "image", [[directory, file("f", pax={"SCHILY.xattr.user.c": "d"})]]))
    assert found["d"].item.xattrs == {b"user.a": b"b"}
    assert found["f"].item.xattrs == {b"user.c": b"d"}
