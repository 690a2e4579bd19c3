"""The sealed flists that a session starts from: their tree, and where their blocks are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from flistfs.authoring.request import BaseRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.errors import FormatError
from flistfs.format.base import Codec
from flistfs.format.metadata import without_backend
from flistfs.format.router import Router, format_router, without_passwords
from flistfs.sources.sealed import BaseSource, Layer
from flistfs.stores import Store, open_store
from flistfs.stores.combined.fallback import FallbackStore
from flistfs.stores.url import BASE_PASSWORD_VARIABLE, StoreUrl


@dataclass(frozen=True, slots=True)
class Base:
    """What an open session has of its base: the tree, if it is yet to start from it, and its blocks.

    `store` is None where the session's own store is all there is; `is_named` says that the user named it just
    now.
    """

    source: BaseSource | None = None
    store: Store | None = None
    is_named: bool = False

    def check(self) -> None:
        """Check that a named store answers (blocks); it makes no directory, as the `check` of a store would.

        Raises:
            StoreError: it cannot be.
        """
        if self.is_named and self.store is not None:
            self.store.missing([self.store.codec.no_block])


@contextmanager
def opened_base(
    directory: SessionDirectory, store: Store, password: str | None, request: BaseRequest | None = None
) -> Iterator[Base]:
    """Open the base of a session (blocks).

    Args:
        directory: The session's; with a request, where its blocks are is noted there.
        store: The session's store.
        password: That of the store which the user named for the base's blocks.
        request: What a new session starts from.

    Raises:
        FormatError: an flist is damaged.
        UsageError: the URL of its store is invalid.
    """
    with ExitStack() as opened:
        source = None
        if request is not None:
            source = opened.enter_context(
                closing(
                    BaseSource.open(
                        request.packages,
                        replace_links=request.replace_links,
                        accept_faults=request.accept_faults,
                    )
                )
            )
            _check_format(directory, source.layers)
            _note_stores(directory, store, source.layers, request)
            directory.keep_base_metadata(_metadata(source.layers))
        blocks = _open_stores(directory, store.codec, password)
        if blocks is not None:
            opened.callback(blocks.close)
        yield Base(source, blocks, is_named=request is not None and request.store is not None)


def _check_format(directory: SessionDirectory, layers: Sequence[Layer]) -> None:
    """Refuse flists of another format than the session's, whose blocks its own cannot name."""
    wanted = directory.settings().format
    for layer in layers:
        if (name := layer.flist.format.name) != wanted:
            raise FormatError(
                f"{layer.name} has the format {name}, the session the format {wanted}: convert it first "
                "(flistfs convert)"
            )


def _metadata(layers: Sequence[Layer]) -> dict[str, bytes]:
    """Return the metadata of flists that lie on top of each other, but for their servers."""
    return without_backend({key: each for layer in layers for key, each in layer.flist.metadata.items()})


def _note_stores(
    directory: SessionDirectory, store: Store, layers: Sequence[Layer], request: BaseRequest
) -> None:
    """Keep where the base's blocks are, other than in the session's store.

    That is where the user said; else where each flist says, and the user's usual store if one says nothing.
    """
    if request.store is not None:
        url: str | None = request.store
        routers: dict[Router, None] = {}
    else:
        found = [layer.flist.router() for layer in layers]
        url = request.usual if None in found else None
        routers = dict.fromkeys(without_passwords(router) for router in found if router is not None)
    directory.keep_base_stores(
        None if url in {store.url, directory.settings().store} else url,
        [format_router(router) for router in routers if router != store.readers_router],
    )


def _open_stores(directory: SessionDirectory, codec: Codec, password: str | None) -> Store | None:
    """Open the stores that were kept; servers that only an flist names get no password."""
    stores = [
        open_store(str(StoreUrl("router", path=path)), codec, reading=True, password_variable=None)
        for path in directory.base_routers()
    ]
    url = directory.settings().base_store
    if url is not None:
        stores.append(
            open_store(url, codec, password, reading=True, password_variable=BASE_PASSWORD_VARIABLE)
        )
    if len(stores) > 1:
        return FallbackStore(stores)
    return stores[0] if stores else None
