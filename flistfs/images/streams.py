"""The content of a layer, checked as it is read: what arrives is what the image says, or it is refused."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO, Final

from flistfs.errors import FormatError, SourceError
from flistfs.images.blobs import Blobs
from flistfs.images.image import Layer
from flistfs.sources.decompress import Decompressed

_PART: Final = 1 << 20


class LayerStream:
    """A layer, uncompressed; `finish` says whether all of it was as it should be."""

    def __init__(self, blobs: Blobs, layer: Layer, *, is_checked: bool = True) -> None:
        """Open a layer; digests are computed only if it `is_checked`.

        Raises:
            SourceError: it is not there.
        """
        self._layer = layer
        self._file = _Counted(blobs.open(layer.blob), layer, layer.digest if is_checked else None)
        try:
            self._stream = Decompressed(self._file)
        except OSError as error:
            self._file.close()
            raise SourceError(f"it cannot be read: {error}") from None
        self._hash = _hash_of(layer.diff_id) if is_checked else None

    def read(self, size: int, /) -> bytes:
        """Return that many bytes, or the rest if there are fewer; raises `FormatError`, `OSError`."""
        data: bytes = self._stream.read(size)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def finish(self) -> None:
        """Read the rest of it, and check all.

        Raises:
            FormatError: it is not what the image says.
        """
        while self.read(_PART):
            pass
        self._file.check()
        if self._hash is not None and _digest_of(self._hash) != self._layer.diff_id:
            raise FormatError(f"its content is not {self._layer.diff_id}")

    def close(self) -> None:
        """Close its file."""
        self._file.close()


class _Counted(io.RawIOBase):
    """A file of a layer, with its size and digest."""

    def __init__(self, file: BinaryIO, layer: Layer, digest: str | None) -> None:
        self._file = file
        self._layer = layer
        self._hash = None if digest is None else _hash_of(digest)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        self._size += len(data)
        if self._layer.size is not None and self._size > self._layer.size:
            raise FormatError(f"it has more than its {self._layer.size:,} bytes")
        if self._hash is not None:
            self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def check(self) -> None:
        while self.read(_PART):
            pass
        if self._layer.size is not None and self._size != self._layer.size:
            raise FormatError(f"it has {self._size:,} bytes, not {self._layer.size:,}")
        if self._hash is not None and _digest_of(self._hash) != self._layer.digest:
            raise FormatError(f"it is not {self._layer.digest}")

    def close(self) -> None:
        self._file.close()
        super().close()


def _hash_of(digest: str) -> hashlib._Hash:
    return hashlib.new(digest.partition(":")[0])


def _digest_of(found: hashlib._Hash) -> str:
    return f"{found.name}:{found.hexdigest()}"
