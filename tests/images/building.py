"""Images made for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "chardev": tarfile.CHRTYPE,
}

Entry = Mapping[str, Any]
"""An entry of a layer, as the vectors have it: name, type, and maybe data, link, mode, mtime, pax."""

OCI = "application/vnd.oci.image."


def layer_of(entries: Iterable[Entry]) -> bytes:
    """A layer with these entries."""
    written = io.BytesIO()
    with tarfile.open(None, "w", written, format=tarfile.PAX_FORMAT) as tar:
        for each in entries:
            member = tarfile.TarInfo()
            name, content = each["name"], each.get("data", "").encode()
            member.name, member.type = name, _TYPES[each["type"]]
            member.mode = int(each.get("mode", "0o755" if each["type"] == "directory" else "0o644"), 8)
            member.mtime = each.get("mtime", 0)
            member.linkname = each.get("link", "")
            member.pax_headers = dict(each.get("pax", {}))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def config_of(layers: Sequence[bytes], **config: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    """The configuration of an image with these layers, which are not compressed."""
    diff_ids = [digest(layer) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return {"architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs}


def write_blob(directory: Path, content: bytes, kind: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    """Write a blob into a layout, and return its descriptor."""
    place = directory / "blobs/sha256"
    place.mkdir(parents=True, exist_ok=True)
    (place / digest(content)[7:]).write_bytes(content)
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def write_manifest(
    directory: Path,
    layers: Sequence[bytes],
    config: Mapping[str, Any],
    **more: Any,  # noqa: ANN401  JSON
) -> dict[str, Any]:
    """Write an image into a layout, its layers compressed, and return the descriptor of its manifest."""
    manifest = {
        "schemaVersion": 2,
        "config": write_blob(directory, json.dumps(config).encode(), f"{OCI}config.v1+json"),
        "layers": [
            write_blob(directory, gzip.compress(each, mtime=0), f"{OCI}layer.v1.tar+gzip") for each in layers
        ],
    }
    return write_blob(directory, json.dumps(manifest).encode(), f"{OCI}manifest.v1+json", **more)


def write_layout(directory: Path, *manifests: Mapping[str, Any]) -> None:
    """Make a layout of what was written into a directory."""
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": [*manifests]}
    (directory / "index.json").write_text(json.dumps(index))


def image_of(directory: Path, layers: Sequence[Iterable[Entry]], **config: Any) -> Path:  # noqa: ANN401  JSON
    """Write a layout with one image of these layers; return its directory."""
    made = [layer_of(each) for each in layers]
    directory.mkdir(exist_ok=True)
    write_layout(directory, write_manifest(directory, made, config_of(made, **config)))
    return directory


def docker_archive(path: Path, layers: Sequence[bytes], names: Sequence[str], **config: Any) -> Path:  # noqa: ANN401  JSON
    """Write what `docker save` wrote before version 25: its manifest last, layers behind links."""
    content = json.dumps(config_of(layers, **config)).encode()
    name = f"{digest(content)[7:]}.json"
    paths = [f"{number}{'0' * 63}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": name, "RepoTags": [*names], "Layers": paths}]
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for layer, place in zip(layers, paths, strict=True):
            add(f"{digest(layer)[7:]}.tar", layer)
            link = tarfile.TarInfo(place)
            link.type, link.linkname = tarfile.SYMTYPE, f"../{digest(layer)[7:]}.tar"
            tar.addfile(link)
        add(name, content)
        add("manifest.json", json.dumps(manifest).encode())
    return path
