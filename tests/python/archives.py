# SPDX-License-Identifier: Apache-2.0
"""Layers and image archives made to any wish, hostile ones too: docker-archive and OCI layout, in pure Python."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

CREATED = "2024-05-06T07:08:09.123456789Z"
CREATED_NS = 1_714_979_289_123_456_789
MTIME = 1_700_000_000

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- Tars


@dataclass
class Entry:
    """A tar member. kind is one of tarfile's type bytes; it follows from content and link when left out."""

    name: str
    content: bytes | None = None
    link: str = ""
    kind: bytes = b""
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    mtime: float = MTIME
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    pax: Mapping[str, str] = field(default_factory=dict)

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.name)
        info.type = self.kind or (
            tarfile.REGTYPE if self.content is not None else tarfile.SYMTYPE if self.link else tarfile.DIRTYPE
        )
        info.mode = self.mode if self.mode is not None else 0o755 if info.type == tarfile.DIRTYPE else 0o644
        info.uid, info.gid, info.mtime = self.uid, self.gid, self.mtime
        info.linkname = self.link
        info.devmajor, info.devminor = self.device
        info.size = len(self.content or b"")
        info.pax_headers = dict(self.pax)
        for name, value in self.xattrs.items():
            info.pax_headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
        return info


def file(name: str, content: bytes = b"", **more: Any) -> Entry:
    return Entry(name, content, **more)


def folder(name: str, **more: Any) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, **more)


def symlink(name: str, target: str, **more: Any) -> Entry:
    return Entry(name, link=target, kind=tarfile.SYMTYPE, **more)


def hardlink(name: str, target: str, **more: Any) -> Entry:
    return Entry(name, link=target, kind=tarfile.LNKTYPE, **more)


def device(name: str, major: int, minor: int, *, block: bool = False, **more: Any) -> Entry:
    return Entry(name, kind=tarfile.BLKTYPE if block else tarfile.CHRTYPE, device=(major, minor), **more)


def make_tar(entries: Iterable[Entry], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for entry in entries:
            tar.addfile(entry.info(), io.BytesIO(entry.content) if entry.content else None)
    return out.getvalue()


def compress(data: bytes, kind: str) -> bytes:
    """kind: plain, gzip, zstd; or several members or frames of one of the latter."""
    half = len(data) // 2
    makers: dict[str, Callable[[bytes], bytes]] = {
        "plain": bytes,
        "gzip": lambda part: gzip.compress(part, mtime=0),
        "zstd": lambda part: zstandard.compress(part),
        "gzip-members": lambda part: gzip.compress(part[:half], mtime=0) + gzip.compress(part[half:], mtime=0),
        "zstd-frames": lambda part: zstandard.compress(part[:half]) + zstandard.compress(part[half:]),
    }
    return makers[kind](data)


# ---- Images


@dataclass
class ImageSpec:
    """An image to be written. layers are uncompressed tars; changes to what is written go through config and hooks."""

    layers: Sequence[bytes]
    tags: Sequence[str] = ("test/image:1",)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] | None = None
    compression: str = "plain"
    architecture: str = "amd64"
    diff_ids: Sequence[str] | None = None

    def config_bytes(self) -> bytes:
        diff_ids = self.diff_ids if self.diff_ids is not None else [f"sha256:{sha256(layer)}" for layer in self.layers]
        history = self.history
        if history is None:
            history = [{"created": CREATED, "created_by": f"step {n}"} for n in range(len(self.layers))]
        document: dict[str, Any] = {
            "architecture": self.architecture,
            "os": "linux",
            "created": CREATED,
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
            **self.config,
        }
        return json.dumps(document).encode()

    @property
    def id(self) -> str:
        return f"sha256:{sha256(self.config_bytes())}"

    def blobs(self) -> list[bytes]:
        return [compress(layer, self.compression) for layer in self.layers]


Members = dict[str, bytes | Entry]


def docker_members(*images: ImageSpec, modern: bool = False) -> Members:
    """The files of a docker-archive by name; modern: with the names that docker 25 and later gives them."""
    members: Members = {}
    manifest = []
    for image in images:
        config = image.config_bytes()
        name = f"blobs/sha256/{sha256(config)}" if modern else f"{sha256(config)}.json"
        members[name] = config
        layers = []
        for blob in image.blobs():
            layer = f"blobs/sha256/{sha256(blob)}" if modern else f"{sha256(blob)}/layer.tar"
            members[layer] = blob
            layers.append(layer)
        manifest.append({"Config": name, "RepoTags": list(image.tags) or None, "Layers": layers})
    members["manifest.json"] = json.dumps(manifest).encode()
    return members


def descriptor(members: Members, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """A descriptor of data, which becomes a blob of the layout."""
    members[f"blobs/sha256/{sha256(data)}"] = data
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data), **more}


def oci_manifest(members: Members, image: ImageSpec, **more: Any) -> dict[str, Any]:
    """The descriptor of an image's manifest; all its blobs come into members."""
    suffix = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}[image.compression.partition("-")[0]]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(members, image.config_bytes(), OCI_CONFIG),
        "layers": [descriptor(members, blob, OCI_LAYER + suffix) for blob in image.blobs()],
    }
    return descriptor(members, json.dumps(manifest).encode(), OCI_MANIFEST, **more)


def oci_index(manifests: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}).encode()


def oci_members(*images: ImageSpec) -> Members:
    """The files of an OCI layout by name."""
    members: Members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    manifests = []
    for image in images:
        for tag in image.tags or [None]:
            annotations = {"annotations": {REF_NAME: tag}} if tag is not None else {}
            manifests.append(oci_manifest(members, image, **annotations))
    members["index.json"] = oci_index(manifests)
    return members


def tar_of(members: Members) -> bytes:
    """An archive of members; an Entry stands for itself, under its own name."""
    return make_tar(value if isinstance(value, Entry) else file(name, value) for name, value in members.items())


def write_tar(path: Path, members: Members, compression: str = "plain") -> Path:
    path.write_bytes(compress(tar_of(members), compression))
    return path


def write_folder(path: Path, members: Members) -> Path:
    for name, value in members.items():
        assert isinstance(value, bytes)
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(value)
    return path
