# SPDX-License-Identifier: Apache-2.0
"""A store, a small image, and a way to run command lines."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycow.cli import run

BIG_BYTES = 64 * 4096


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command line did."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def columns(self) -> list[list[str]]:
        """Cells of a table, header first; cells are apart by two blanks or more."""
        return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in self.lines]


class Cli:
    """Runs command lines on one store: ``cli("ps", "-s")`` must succeed, ``cli.fails("rm", "x")`` must not."""

    def __init__(self, store: Path, capture: pytest.CaptureFixture[bytes]) -> None:
        self.store = store
        self._capture = capture

    def run(self, *arguments: str | Path) -> Result:
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        return Result(code, out, err.decode("utf-8", "surrogateescape"))

    def __call__(self, *arguments: str | Path) -> Result:
        result = self.run("--store", self.store, *arguments)
        assert result.code == 0, result.err
        assert result.err == ""
        return result

    def fails(self, *arguments: str | Path) -> Result:
        """One line on stderr, and a code that is not 0."""
        result = self.run("--store", self.store, *arguments)
        assert result.code != 0, result.text
        assert result.err.startswith("pycow: ")
        assert result.err.count("\n") == 1
        return result


def _add(tar: tarfile.TarFile, name: str, content: bytes = b"", **attributes: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    info.mtime = 1_700_000_000
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def make_layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "tmp"):
            _add(tar, name, type=tarfile.DIRTYPE, mode=0o755)
        _add(tar, "bin/sh", b"#!", mode=0o755)
        _add(tar, "bin/ash", type=tarfile.LNKTYPE, linkname="bin/sh")
        _add(tar, "bin/link", type=tarfile.SYMTYPE, linkname="sh", mode=0o777)
        _add(tar, "dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        _add(tar, "etc/hostname", b"box\n", uid=7, gid=8)
        _add(tar, "big.bin", bytes(range(256)) * (BIG_BYTES // 256))
    return out.getvalue()


def make_archive(path: Path, *, tags: list[str] | None = None, layer: bytes | None = None) -> Path:
    """As docker save writes it: one layer, two metadata steps."""
    layer = make_layer() if layer is None else layer
    created = "2024-01-01T00:00:00Z"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [
            {"created": created, "created_by": "/bin/sh -c #(nop) ADD file:rootfs.tar with a long name in / "},
            {"created": created, "created_by": "ENV A=1", "empty_layer": True},
            {"created": created, "created_by": 'CMD ["sh"]', "empty_layer": True},
        ],
    }
    text = json.dumps(config).encode()
    name = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": tags or ["busybox:latest"], "Layers": ["l/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, f"{name}.json", text)
        _add(tar, "l/layer.tar", layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "image.tar")


@pytest.fixture
def archive_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes archives: archive_of("name.tar", tags=[...], layer=bytes)."""
    return lambda name, **options: make_archive(tmp_path / name, **options)


@pytest.fixture
def bare(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """No store yet."""
    return Cli(tmp_path / "data" / "store", capsysbinary)


@pytest.fixture
def cli(bare: Cli, archive: Path) -> Cli:
    """A store with the image busybox:latest."""
    bare("load", "-i", archive)
    return bare


@pytest.fixture
def box(cli: Cli) -> Cli:
    """And the container "box" of it."""
    cli("create", "--name", "box", "busybox")
    return cli
