"""The base of a session: the trees of sealed flists in layers, later ones on top of earlier ones.

Directories are merged, with the owner, mode and times of the uppermost, also through links
(see `flistfs.tree.uniting`).
Anything else hides whatever is below it at the same path, and a directory hides anything but a directory or a
link: the last layer with a path decides. No layer removes anything from those below; there are no whiteouts.

Everything comes from the catalogs. No block is fetched: a session records hash and key of each chunk, and
reads it when it is needed, from its own store or from the base's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flistfs.errors import ClashError, FormatError
from flistfs.reading.flist import Faults, Flist
from flistfs.reading.union import Clash, Union, described
from flistfs.sources.item import Item
from flistfs.tree.chunks import CHUNK_SIZE, Stored, chunk_length
from flistfs.tree.names import join, printable
from flistfs.tree.node import Access, Kind, Node
from flistfs.tree.owners import FIRST_OWN_NUMBER, MAX_ID, said_number
from flistfs.tree.rules import Part, Place, Prefer, Rules

_NANO = 1_000_000_000

# Clashes named in a message.
_NAMED_CLASHES = 20

# Numbers available for accounts that an flist knows by name only.
_OWN_NUMBERS = MAX_ID - FIRST_OWN_NUMBER + 1


@dataclass(frozen=True, slots=True)
class Layer:
    """An flist, and its name in messages."""

    name: str
    flist: Flist


class BaseSource:
    """A `TreeSource` of the merged tree of flists.

    Old flists know accounts by name only, and their etc/passwd is in a block, and no block is fetched: such
    an account gets a number of the session's own, and `named_users` and `named_groups` report afterwards
    which numbers stand for a name only. `unknown_owners` counts the entries with one of those.
    """

    def __init__(self, layers: Sequence[Layer], *, replace_links: bool = False) -> None:
        """Walk these layers, the lowest first; `close` closes them.

        A directory follows a link to a directory of a lower layer, or with `replace_links` hides it.
        """
        self.layers = layers
        self.unknown_owners = 0
        self.hidden: Mapping[str, Sequence[bytes]] = {}
        self._rules = Rules(Prefer.LAST, replace_links=replace_links)
        self._users = _Numbers()
        self._groups = _Numbers()
        self._walked = 0
        self._total = sum(layer.flist.estimated_directories for layer in layers)

    @classmethod
    def open(
        cls, packages: Sequence[str], *, replace_links: bool = False, accept_faults: bool = False
    ) -> Self:
        """Open flists: packages, or directories with an unpacked one (blocks).

        With `accept_faults` what is there of them is taken; else a fault is an error.

        Raises:
            FormatError: one does not exist, is damaged, or is not an flist.
        """
        faults = Faults.ACCEPTED if accept_faults else Faults.RAISED
        with ExitStack() as opened:
            layers = [Layer(name, opened.enter_context(Flist.open(Path(name), faults))) for name in packages]
            source = cls(layers, replace_links=replace_links)
            opened.pop_all()
        return source

    def items(self) -> Iterator[Item]:
        """Yield the merged tree.

        Raises:
            FormatError: a record is invalid, or holds something that a session cannot; names the path.
            ClashError: a link is in the way of a directory, or vice versa; names the paths.
        """
        union = Union([(layer.name, layer.flist) for layer in self.layers], self._rules)
        if union.clashes:
            raise _clash(union.clashes)
        self.hidden = union.hidden()
        waiting = [union.root()]
        while waiting:
            below: list[Place] = []
            yield from self._walk_directory(union, waiting.pop(), below)
            waiting += reversed(below)

    def measure(self) -> None:
        """Do nothing: the number of records is known."""

    def extent(self, size: int) -> tuple[int, int]:  # noqa: ARG002  a TreeSource's signature
        """Return how many directories of how many were walked; merged ones count once for each layer."""
        return min(self._walked, self._total), self._total

    def named(self, path: bytes) -> str:
        """Return a path of the tree, without naming its flist."""
        return os.fsdecode(path) or "."

    def close(self) -> None:
        """Close the flists."""
        for layer in self.layers:
            layer.flist.close()

    @property
    def accepted_faults(self) -> int:
        """How many faults were met and accepted."""
        return sum(layer.flist.accepted_faults for layer in self.layers)

    @property
    def named_users(self) -> dict[int, bytes]:
        """The names of users without a number in the flists, by their numbers in the session."""
        return self._users.named()

    @property
    def named_groups(self) -> dict[int, bytes]:
        """The names of groups without a number in the flists, by their numbers in the session."""
        return self._groups.named()

    def _walk_directory(self, union: Union, place: Place, below: list[Place]) -> Iterator[Item]:
        """Yield the entries of a directory, and append its subdirectories to `below`."""
        found: dict[bytes, list[tuple[int, Node]]] = {}
        directories: dict[Part, Node] = {}
        for part in place.parts:
            directories[part], entries = _directory(self.layers[part.tree], part.path)
            self._walked += 1
            for node in entries:
                found.setdefault(node.name, []).append((part.tree, node))
        head = union.own_parts(place)[-1]
        yield self._item(self.layers[head.tree], place.path, directories[head])
        for name, candidates in sorted(found.items()):
            chosen = [candidates[index] for index in union.chosen([node for _, node in candidates])]
            if chosen[0][1].kind is Kind.DIRECTORY:
                below.append(union.below(place, name, [Part(tree, node.path) for tree, node in chosen]))
            else:
                ((tree, node),) = chosen
                yield self._item(self.layers[tree], join(place.path, name), node)

    def _item(self, layer: Layer, path: bytes, node: Node) -> Item:
        """Return the item of a node, with the path `path`."""
        access = node.access
        assert access is not None  # noqa: S101  for the type checker: a node without one has a fault
        uid, gid = self._owner(layer, path, access)
        mtime_ns = node.mtime * _NANO
        is_file = node.kind is Kind.FILE
        return Item(
            path=path,
            mode=node.mode,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            atime_ns=mtime_ns,
            ctime_ns=node.ctime * _NANO,
            size=node.size if is_file else 0,
            rdev=os.makedev(*node.device) if node.device else 0,
            target=node.target or b"",
            stored=_chunks(layer, path, node) if is_file else (),
        )

    def _owner(self, layer: Layer, path: bytes, access: Access) -> tuple[int, int]:
        uid = self._users.number(access.uid, access.user)
        gid = self._groups.number(access.gid, access.group)
        if uid is None or gid is None:
            raise _refusal(layer, path, f"more than {_OWN_NUMBERS} accounts have no number")
        self.unknown_owners += _is_unknown(access.uid, access.user) or _is_unknown(access.gid, access.group)
        return uid, gid


def _clash(clashes: Sequence[Clash]) -> ClashError:
    named = ", ".join(described(clash) for clash in clashes[:_NAMED_CLASHES])
    more = f", and {len(clashes) - _NAMED_CLASHES:,} more" if len(clashes) > _NAMED_CLASHES else ""
    return ClashError(f"{named}{more}; `replace_links` lets the later one replace the other")


def _refusal(layer: Layer, path: bytes, what: str) -> FormatError:
    return FormatError(f"{layer.name} cannot be used as a base: {printable(path) or '/'}: {what}")


def _directory(layer: Layer, path: bytes) -> tuple[Node, Sequence[Node]]:
    """Return a directory and its entries; raise FormatError if one has a fault."""
    fault = next(layer.flist.faults(path), None)
    if fault is not None:
        raise _refusal(
            layer,
            fault.path,
            f"{fault.what} (flistfs verify --no-store lists every fault, `accept_faults` takes the rest)",
        )
    try:
        directory, listing = layer.flist.directory(path), layer.flist.listing(path)
    except FormatError as error:
        raise _refusal(layer, path, str(error)) from None
    if directory is None or listing is None:  # a subdirectory's fault was found with its entry
        raise _refusal(layer, path, "there is no root directory")
    return directory, listing


class _Numbers:
    """The numbers of users, or of groups, some of which are known by name only."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._numbers: dict[bytes, int] = {}
        self._own = 0

    def number(self, number: int | None, name: bytes) -> int | None:
        """Return an account's number: the recorded one, else the one in its name, else one of our own.

        None if our own are used up.
        """
        if number is not None:
            self._given.add(number)
            return number
        if name not in self._numbers:
            said = said_number(name)
            if said is None:
                if self._own == _OWN_NUMBERS:
                    return None
                said = FIRST_OWN_NUMBER + self._own
                self._own += 1
            self._numbers[name] = said
        return self._numbers[name]

    def named(self) -> dict[int, bytes]:
        """Return the names of accounts without a number, by the number they got.

        A number that has several names, or that some entries have themselves, is left out.
        """
        claims = Counter(self._numbers.values())
        return {
            number: name
            for name, number in self._numbers.items()
            if claims[number] == 1 and number not in self._given
        }


def _is_unknown(number: int | None, name: bytes) -> bool:
    return number is None and said_number(name) is None


def _chunks(layer: Layer, path: bytes, file: Node) -> tuple[Stored, ...]:
    size, chunk_size = file.size, file.chunk_size
    if file.blocks and chunk_size != CHUNK_SIZE:
        raise _refusal(
            layer, path, f"its blocks have {chunk_size} bytes each; sessions use {CHUNK_SIZE} only"
        )
    most = layer.flist.format.limits.file_size
    if size > most:
        raise _refusal(layer, path, f"it has {size} bytes; a session allows at most {most}")
    return tuple(
        Stored(chunk_length(size, index), ref.hash, ref.key) for index, ref in enumerate(file.blocks)
    )


# Where its blocks are
