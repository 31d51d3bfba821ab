# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: stores in temporary directories, and images made by hand (without pycow's help)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import pycow

Layer = Mapping[str, bytes | None]  # path -> content; None for a directory
MakeArchive = Callable[..., Path]


def layer_tar(files: Layer) -> bytes:
    """A layer as a tar; a path that ends with "/" is a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path.strip("/"))
            info.mtime = 1_600_000_000
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size, info.mode = len(content), 0o644
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def docker_archive(path: Path, layers: Sequence[Layer], tag: str = "test:latest") -> Path:
    """What `docker save` writes, for layers given as files."""
    tars = [layer_tar(layer) for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-09-13T12:26:40Z",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(t).hexdigest() for t in tars]},
            "history": [{"created": "2020-09-13T12:26:40Z", "created_by": f"layer {i}"} for i in range(len(tars))],
        }
    ).encode()
    names = [f"{i}/layer.tar" for i in range(len(tars))]
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": names}]).encode()
    members = [(config_name, config), *zip(names, tars, strict=True), ("manifest.json", manifest)]
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def make_archive(tmp_path: Path) -> MakeArchive:
    """make_archive(layers, tag=...) -> path of a docker archive."""
    count = iter(range(1_000_000))

    def make(layers: Sequence[Layer], tag: str = "test:latest") -> Path:
        return docker_archive(tmp_path / f"image-{next(count)}.tar", layers, tag)

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[pycow.Store]:
    """A new store without background commits. It must check clean at the end of each test."""
    with pycow.open(tmp_path / "store", commit_interval=0) as opened:
        yield opened
        if not opened.closed:
            assert opened.check().errors == ()


@pytest.fixture
def fs(store: pycow.Store) -> pycow.FileSystem:
    """The file system of a new volume."""
    return store.volumes.create("test").fs


BIG_BYTES = 1 << 20


@pytest.fixture
def image(store: pycow.Store, make_archive: MakeArchive) -> pycow.Image:
    """An image of two layers with a large file."""
    base: dict[str, bytes | None] = {
        "etc/": None,
        "etc/hosts": b"127.0.0.1 localhost\n",
        "etc/passwd": b"root:x:0:0::/:/bin/sh\n",
        "big.bin": b"\xaa" * BIG_BYTES,
    }
    top: dict[str, bytes | None] = {"opt/": None, "opt/app/": None, "opt/app/run": b"#!/bin/sh\n"}
    return store.images.load(make_archive([base, top], "test:latest"))
