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

    def __init__(self, blobs: Blobs, layer: Layer) -> None:
        """Open a layer.

        Raises:
            SourceError: it is not there.
        """
        self._layer = layer
        self._file = _Counted(blobs.open(layer.blob), layer)
        try:
            self._stream = Decompressed(self._file)
        except OSError as error:
            self._file.close()
            raise SourceError(f"it cannot be read: {error}") from None
        self._hash = hashlib.new(layer.diff_id.partition(":")[0])

    def read(self, size: int, /) -> bytes:
        """Return that many bytes, or the rest if there are fewer; raises `FormatError`, `OSError`."""
        data: bytes = self._stream.read(size)
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
        if self._hash.hexdigest() != self._layer.diff_id.partition(":")[2]:
            raise FormatError(f"its content is not {self._layer.diff_id}")

    def close(self) -> None:
        """Close its file."""
        self._file.close()


class _Counted(io.RawIOBase):
    """A file of a layer, with its size and digest."""

    def __init__(self, file: BinaryIO, layer: Layer) -> None:
        self._file = file
        self._layer = layer
        self._hash = None if layer.digest is None else hashlib.new(layer.digest.partition(":")[0])
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
        if self._hash is not None and f"{self._hash.name}:{self._hash.hexdigest()}" != self._layer.digest:
            raise FormatError(f"it is not {self._layer.digest}")

    def close(self) -> None:
        self._file.close()
        super().close()
