"""An image as a source of items: what its layers make together, and nothing that a layer hides.

The headers of all layers are read first, which settles the tree; then the layers are read once more, for the
content of those files that are left. Nothing is unpacked to the disk.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final

from flistfs.errors import FormatError, SourceError
from flistfs.images.files import Files
from flistfs.images.image import Image
from flistfs.images.streams import LayerStream
from flistfs.images.tree import Attributes, Found, LayeredTree, cleaned, decoded_xattrs, encoded_xattrs
from flistfs.sources.archive import member_item
from flistfs.sources.excludes import Filter, nothing_excluded
from flistfs.sources.item import Item, Note, Problem
from flistfs.sources.tar import HARD_LINK, BadMember, Member, TarReader
from flistfs.sources.tar_headers import MemberError
from flistfs.tree.names import printable

_MEMBERS: Final = 1 << 32
"""A member is known by the number of its layer times this, and its own in the layer."""

_LAZY: Final = frozenset({b".no.prefetch.landmark", b".prefetch.landmark", b"stargz.index.json"})
"""What eStargz adds to layers for its own readers."""

_WANTED: Final[Mapping[bytes, int]] = {
    b"dev": 0o755,
    b"etc": 0o755,
    b"proc": 0o555,
    b"run": 0o755,
    b"sys": 0o555,
    b"tmp": 0o1777,
}
"""The directories that a container needs, with their modes: images of one program often have none."""


class LayeredSource:
    """A `TreeSource` of the tree of an image."""

    def __init__(self, image: Image, name: str, *, excluded: Filter = nothing_excluded) -> None:
        """Read an image, which is called `name` in errors; `close` closes it."""
        self._image = image
        self._name = name
        self._excluded = excluded
        self._total = 0

    def measure(self) -> None:
        """Do nothing: how much there is, the headers tell."""

    def extent(self, size: int) -> tuple[int, int]:
        """Return how many bytes of content of how many are done."""
        return size, self._total

    def named(self, path: bytes) -> str:
        """Return the name of an entry, after that of the image."""
        return f"{self._name}: {os.fsdecode(path) or '.'}"

    def close(self) -> None:
        """Close the image."""
        self._image.close()

    def items(self) -> Iterator[Item | Problem | Note]:
        """Yield the tree: directories and links, then files in the order of the layers.

        Raises:
            SourceError: a layer is damaged, invalid, or not what the image says; it names the entry.
        """
        with closing(LayeredTree()) as tree:
            for number in range(len(self._image.layers)):
                tree.begin_layer()
                self._settle(tree, number)
            with closing(Files()) as files:
                yield from self._without_content(tree, files)
                yield from self._contents(files)

    # The tree

    def _settle(self, tree: LayeredTree, number: int) -> None:
        with self._read(number) as members:  # of which everything is checked here, and but once
            for index, _, member in members:
                with self._located(number, member.name):
                    _take(tree, member, number * _MEMBERS + index)

    @contextmanager
    def _read(
        self, number: int, *, is_checked: bool = True
    ) -> Iterator[Iterator[tuple[int, TarReader, Member]]]:
        """Open a layer, and check at the end that it is what the image says."""
        layer = self._image.layers[number]
        with (
            self._located(number),
            closing(LayerStream(self._image.blobs, layer, is_checked=is_checked)) as stream,
        ):
            yield _members(stream)
            if is_checked:
                stream.finish()

    @contextmanager
    def _located(self, number: int, entry: bytes | None = None) -> Iterator[None]:
        """Say where something is wrong."""
        where = f"{self._name}: layer {number + 1} ({self._image.layers[number].diff_id})"
        try:
            yield
        except MemberError as error:
            raise SourceError(f"{where}: {printable(entry or b'')}: {error}") from None
        except (FormatError, tarfile.TarError, OSError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise SourceError(f"{where}: {reason}") from None

    def _without_content(self, tree: LayeredTree, files: Files) -> Iterator[Item]:
        """Yield directories, links and special files; files are noted, to be yielded as layers have them."""
        left_out: bytes | None = None
        for found in tree.nodes():
            path, attributes = found.path, found.attributes
            if left_out is not None and path.startswith(left_out):
                continue
            if path and self._excluded(path, attributes.is_directory):
                left_out = path + b"/" if attributes.is_directory else left_out
                continue
            if stat.S_ISREG(attributes.mode):
                files.add(path, attributes.origin)
                self._total += attributes.size
            else:
                yield _item(found)
        for path, mode in _WANTED.items():
            if not tree.has(path) and not self._excluded(path, True):
                yield _item(Found(path, Attributes(stat.S_IFDIR | mode, 0, 0, 0)))

    def _contents(self, files: Files) -> Iterator[Item | Problem]:
        """Yield the files, and further names of each as hard links to it."""
        for number in range(len(self._image.layers)):
            wanted = files.between(number * _MEMBERS, (number + 1) * _MEMBERS)
            next_one = next(wanted, None)
            if next_one is None:
                continue
            with self._read(number, is_checked=False) as members:
                for index, reader, member in members:
                    if next_one is None:  # the rest is hidden
                        break
                    if next_one[0] != number * _MEMBERS + index:
                        continue
                    first = next_one[1]
                    with self._located(number, member.name):
                        item = member_item(reader, member, first)
                    yield item
                    while (next_one := next(wanted, None)) and next_one[0] == number * _MEMBERS + index:
                        yield _link(item, next_one[1])


def _members(stream: LayerStream) -> Iterator[tuple[int, TarReader, Member]]:
    reader = TarReader(stream)
    for index, member in enumerate(reader.members()):
        if isinstance(member, BadMember):
            raise FormatError(f"{printable(member.name)}: {member.reason}")
        yield index, reader, member


def _take(tree: LayeredTree, member: Member, origin: int) -> None:
    path = cleaned(member.name)
    if path in _LAZY:
        return
    if member.kind == HARD_LINK:
        tree.link(path, cleaned(member.link))
        return
    item = member_item(None, member, path)
    tree.put(
        path,
        Attributes(
            item.mode,
            item.uid,
            item.gid,
            item.mtime_ns,
            item.rdev,
            item.target,
            item.size,
            origin,
            encoded_xattrs(item.xattrs),
        ),
    )


def _item(found: Found) -> Item:
    attributes = found.attributes
    return Item(
        found.path,
        attributes.mode,
        attributes.uid,
        attributes.gid,
        attributes.mtime_ns,
        attributes.mtime_ns,
        rdev=attributes.rdev,
        target=attributes.target,
        xattrs=decoded_xattrs(attributes.xattrs),
    )


def _link(item: Item, path: bytes) -> Item:
    return Item(
        path, item.mode, item.uid, item.gid, item.mtime_ns, item.atime_ns, link=item.path, xattrs=item.xattrs
    )
