"""Images: which one is meant of those that are there, and what it is made of.

Sources: OCI image-spec (image-layout.md, image-index.md, manifest.md, config.md); moby's `docker save`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from flistfs.errors import SourceError, UsageError
from flistfs.images.blobs import NOTHING, ArchiveBlobs, Blobs, DirectoryBlobs, Given, read
from flistfs.images.places import Place, Platform, own_platform
from flistfs.util.closing import Closing

_MAX_JSON: Final = 4 << 20  # bytes, which registries take as well
_MAX_LAYERS: Final = 1000  # the kernel's overlay takes 500
_MAX_DEPTH: Final = 4  # indexes in indexes

_OCI: Final = "application/vnd.oci.image."
_DOCKER: Final = "application/vnd.docker."
_INDEXES: Final = frozenset({f"{_OCI}index.v1+json", f"{_DOCKER}distribution.manifest.list.v2+json"})
_MANIFESTS: Final = frozenset({f"{_OCI}manifest.v1+json", f"{_DOCKER}distribution.manifest.v2+json"})

_DIGEST: Final = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_REFERENCE: Final = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: a tar archive, maybe compressed.

    Attributes:
        blob: The name of its file.
        diff_id: The digest of it, uncompressed.
        digest: That of the file; None if nothing says.
        size: Bytes of the file; None if nothing says.
    """

    blob: str
    diff_id: str
    digest: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class _Descriptor:
    digest: str
    size: int
    kind: str
    platform: Platform | None
    reference: str | None

    @property
    def blob(self) -> str:
        algorithm, _, digits = self.digest.partition(":")
        return f"blobs/{algorithm}/{digits}"


class Image(Closing):
    """An image that is open.

    Attributes:
        name: What it is called, where it says; None if not.
        digest: That of its manifest, or of its configuration where there is none.
        config: Its configuration, as JSON.
        layers: The lowest first.
        blobs: The files that it is made of.
    """

    def __init__(
        self,
        blobs: Blobs,
        name: str | None,
        digest: str,
        config: Mapping[str, Any],
        layers: Sequence[Layer],
    ) -> None:
        self.blobs = blobs
        self.name = name
        self.digest = digest
        self.config = config
        self.layers = layers

    @classmethod
    def open(cls, place: Place, platform: Platform | None = None, given: Given = NOTHING) -> Image:
        """Open an image, of a platform where there are several; by default this machine's.

        Raises:
            SourceError: it is not there, or is invalid.
            UsageError: there are several, and none is chosen.
        """
        is_directory = place.transport == "oci"
        return cls.of(
            DirectoryBlobs(place.path) if is_directory else ArchiveBlobs(place.path, given), place, platform
        )

    @classmethod
    def of(cls, blobs: Blobs, place: Place, platform: Platform | None = None) -> Image:
        """Return the image that files are, which it closes; raises as `open`, and closes them then."""
        with ExitStack() as opened:
            opened.callback(blobs.close)
            # What docker has written since version 25 is both; its index may lack what the other has.
            is_docker = place.transport in {"docker-archive", "archive"} and blobs.has("manifest.json")
            if place.transport == "archive" and not is_docker and not blobs.has("index.json"):
                raise SourceError(
                    f"{place} begins like a container image, and is none; tar:- takes it as it is"
                )
            image = (_of_docker if is_docker else _of_layout)(blobs, place, platform)
            opened.pop_all()
        return image

    def close(self) -> None:
        """Close what it lies in."""
        self.blobs.close()


# OCI layouts


def _of_layout(blobs: Blobs, place: Place, platform: Platform | None) -> Image:
    found = [
        each
        for each in _descriptors(_json(read(blobs, "index.json", _MAX_JSON), "index.json"), "manifests")
        if each.kind in _INDEXES | _MANIFESTS and _is_image(each)
    ]
    chosen = [each for each in found if place.name in {None, each.reference}]
    names = sorted({each.reference for each in found if each.reference})
    if not found:
        raise SourceError(f"there is no image in {place.path}")
    if not chosen:
        raise UsageError(f"there is no image {place.name!r} in {place.path}{_listed(names)}")
    if len({each.reference for each in chosen}) > 1:
        raise UsageError(f"there are several images in {place.path}; choose one{_listed(names)}")
    manifest = _for_platform([*_manifests(blobs, chosen, 0)], platform)
    return _image(blobs, manifest, chosen[0].reference)


def _is_image(descriptor: _Descriptor) -> bool:
    return descriptor.platform is None or descriptor.platform.os != "unknown"  # an attestation


def _manifests(blobs: Blobs, found: Sequence[_Descriptor], depth: int) -> Iterator[_Descriptor]:
    """Yield the manifests that descriptors lead to, through indexes."""
    if depth > _MAX_DEPTH:
        raise SourceError("the image is invalid: its indexes are nested too deep")
    for each in found:
        if each.kind in _MANIFESTS:
            yield each
        elif each.kind in _INDEXES and blobs.has(each.blob):
            below = _descriptors(_json(_checked(blobs, each), each.digest), "manifests")
            yield from _manifests(blobs, [*filter(_is_image, below)], depth + 1)


def _for_platform(found: Sequence[_Descriptor], platform: Platform | None) -> _Descriptor:
    """Return the manifest for a platform: where there is only one, that, unless another is asked for."""
    wanted = platform or own_platform()
    if len(found) == 1 and (platform is None or found[0].platform is None):
        return found[0]
    chosen = [each for each in found if each.platform is None or wanted.takes(each.platform)]
    if not chosen:
        there = sorted(str(each.platform) for each in found)
        raise UsageError(f"the image is not made for {wanted}; choose with `platform`{_listed(there)}")
    return chosen[0]


def _image(blobs: Blobs, descriptor: _Descriptor, name: str | None) -> Image:
    manifest = _json(_checked(blobs, descriptor), descriptor.digest)
    config_of = _descriptor(manifest.get("config"), descriptor.digest)
    config = _json(_checked(blobs, config_of), config_of.digest)
    layers = _descriptors(manifest, "layers")
    diff_ids = _diff_ids(config, len(layers))
    found = [
        Layer(each.blob, diff_id, each.digest, each.size)
        for each, diff_id in zip(layers, diff_ids, strict=True)
    ]
    return Image(blobs, name, descriptor.digest, config, found)


def _checked(blobs: Blobs, descriptor: _Descriptor) -> bytes:
    """Return the content of a small blob, which is what its descriptor says."""
    content = read(blobs, descriptor.blob, _MAX_JSON)
    algorithm, _, digits = descriptor.digest.partition(":")
    if len(content) != descriptor.size or hashlib.new(algorithm, content).hexdigest() != digits:
        raise SourceError(f"the image is damaged: {descriptor.digest} has another size or digest")
    return content


def _descriptors(document: Mapping[str, Any], key: str) -> list[_Descriptor]:
    found = document.get(key)
    if not isinstance(found, list) or len(found) > _MAX_LAYERS:
        raise SourceError(f"the image is invalid: {key} is no list of up to {_MAX_LAYERS:,} descriptors")
    return [_descriptor(each, key) for each in found]


def _descriptor(raw: object, where: str) -> _Descriptor:
    if not isinstance(raw, dict) or not _is_descriptor(raw):
        raise SourceError(f"the image is invalid: a descriptor in {where} is none")
    on = raw.get("platform")
    platform = None if not on else Platform(str(on.get("os")), str(on.get("architecture")), on.get("variant"))
    reference = (raw.get("annotations") or {}).get(_REFERENCE)
    return _Descriptor(raw["digest"], raw["size"], str(raw.get("mediaType", "")), platform, reference)


def _is_descriptor(raw: Mapping[str, Any]) -> bool:
    digest, size = raw.get("digest"), raw.get("size")
    has_digest = isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None
    objects = (raw.get("platform"), raw.get("annotations"))
    return (
        has_digest
        and isinstance(size, int)
        and size >= 0
        and all(each is None or isinstance(each, dict) for each in objects)
    )


# What docker save writes


def _of_docker(blobs: Blobs, place: Place, platform: Platform | None) -> Image:
    entries = _json(read(blobs, "manifest.json", _MAX_JSON), "manifest.json", kind=list)
    candidates = []
    names: list[str] = []
    for entry in entries:
        tags = entry.get("RepoTags") or [] if isinstance(entry, dict) else None
        if not isinstance(tags, list) or not isinstance(entry.get("Layers"), list):
            raise SourceError("the image is invalid: manifest.json has another shape")
        names += [str(tag) for tag in tags]
        found_as = [str(tag) for tag in tags if place.name is None or _full(str(tag)) == _full(place.name)]
        if place.name is None or found_as:
            candidates.append((entry, next(iter(found_as), None)))
    if not entries:
        raise SourceError(f"there is no image in {place.path}")
    if not candidates:
        raise UsageError(f"there is no image {place.name!r} in {place.path}{_listed(sorted(names))}")
    found = []
    for entry, name in candidates:
        content = read(blobs, str(entry.get("Config")), _MAX_JSON)
        found.append((_json(content, str(entry.get("Config"))), content, entry, name))
    wanted = platform or own_platform()
    if len(found) > 1 or platform is not None:
        found = [each for each in found if wanted.takes(_platform_of(each[0]))]
        if not found:
            raise UsageError(f"the image is not made for {wanted}; choose another `platform`")
    if len({each[3] for each in found}) > 1:
        raise UsageError(f"there are several images in {place.path}; choose one{_listed(sorted(names))}")
    config, content, entry, name = found[0]
    diff_ids = _diff_ids(config, len(entry["Layers"]))
    layers = [Layer(str(blob), diff_id) for blob, diff_id in zip(entry["Layers"], diff_ids, strict=True)]
    return Image(blobs, name, f"sha256:{hashlib.sha256(content).hexdigest()}", config, layers)


def _full(name: str) -> str:
    """Return a name with all that docker lets one leave out: app is docker.io/library/app:latest."""
    first, slash, _ = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    if name.startswith("docker.io/") and name.count("/") == 1:
        name = name.replace("/", "/library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _platform_of(config: Mapping[str, Any]) -> Platform:
    return Platform(str(config.get("os")), str(config.get("architecture")), config.get("variant"))


# Configurations


def _diff_ids(config: Mapping[str, Any], count: int) -> list[str]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) and rootfs.get("type") == "layers" else None
    if not isinstance(found, list) or count > _MAX_LAYERS:
        raise SourceError(f"the image is invalid: it has no list of up to {_MAX_LAYERS:,} layers")
    if len(found) != count:
        raise SourceError(f"the image is invalid: it has {count} layers, and digests of {len(found)}")
    if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in found):
        raise SourceError("the image is invalid: the digest of a layer is none")
    return found


def _json(content: bytes, where: str, kind: type = dict) -> Any:  # noqa: ANN401  JSON
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, kind):
        raise SourceError(f"the image is invalid: {where} is no JSON of the right shape")
    return found


def _listed(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""
