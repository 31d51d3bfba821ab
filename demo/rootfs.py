# SPDX-License-Identifier: Apache-2.0
"""Real root file systems as layer tars, and archives as ``docker save`` writes them, made with Python alone."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

__all__ = ["BadStep", "busybox_layer", "debian_layer", "docker_archive", "layer_of_files"]

CREATED = "2024-01-01T00:00:00Z"
_CREATED_S = 1704067200


class BadStep(Exception):
    """A step did not go as it should."""


# ---- Root file systems


def busybox_layer(folder: Path) -> Path:
    """A root file system of Debian's busybox-static: one binary, a hard link for each applet, and the files and
    devices that a small system has."""
    binary = _find_busybox(folder)
    applets = _output([str(binary), "--list-full"]).split()
    layer = folder / "busybox-layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in _DIRECTORIES:
            _add_dir(tar, name, 0o1777 if name == "tmp" else 0o700 if name == "root" else 0o755)
        _add_file(tar, "bin/busybox", binary.read_bytes(), 0o755)
        for applet in applets:
            if applet != "bin/busybox":
                _add_link(tar, applet, "bin/busybox", symbolic=not applet.startswith("bin/"))
        for name, text in _ETC.items():
            _add_file(tar, f"etc/{name}", text.encode(), 0o640 if name == "shadow" else 0o644)
        _add_link(tar, "etc/mtab", "../proc/mounts", symbolic=True)
        _add_link(tar, "var/run", "/run", symbolic=True)
        for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("random", 1, 8), ("tty", 5, 0)):
            _add_device(tar, f"dev/{name}", major, minor)
    return layer


_DIRECTORIES = "bin dev etc home proc root run sbin sys tmp usr usr/bin usr/sbin var var/log var/spool".split()
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "group": "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "shadow": "root:*:19723:0:99999:7:::\n",
    "hostname": "demo\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "profile": "export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n",
}


def _find_busybox(folder: Path) -> Path:
    """A static busybox that is installed, or one unpacked from Debian's package (needs no root)."""
    for candidate in (Path("/bin/busybox"), Path("/usr/bin/busybox"), shutil.which("busybox")):
        if candidate is not None and Path(candidate).is_file():
            return Path(candidate)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise BadStep("no busybox here: install it (Debian: apt-get install busybox-static)")
    fetched = folder / "package"
    fetched.mkdir()
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["apt-get", "download", "busybox-static"], cwd=fetched, check=True, stdout=subprocess.DEVNULL)
    for package in fetched.glob("busybox-static*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(fetched / "root")], check=True)
        for place in ("bin/busybox", "usr/bin/busybox"):
            if (fetched / "root" / place).is_file():
                return fetched / "root" / place
    raise BadStep("busybox is neither installed nor to be had from the package archive")


def debian_layer(folder: Path) -> Path:
    """A minbase root file system of this Debian's release, made by debootstrap (as root)."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise BadStep("a Debian image needs root and debootstrap (apt-get install debootstrap)")
    root = folder / "debian-root"
    suite = _suite()
    print(f"  debootstrap --variant=minbase {suite} (half a minute or more)", file=sys.stderr)
    log = folder / "debootstrap.log"
    with log.open("wb") as out:
        command = ["debootstrap", "--variant=minbase", suite, str(root)]
        try:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
        finally:
            _unmount_below(root)
    if code != 0:
        raise BadStep("debootstrap failed: " + " / ".join(log.read_text(errors="replace").splitlines()[-3:]))
    layer = folder / "debian-layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            _add_path(tar, path, str(path.relative_to(root)))
    shutil.rmtree(root)
    return layer


def _unmount_below(root: Path) -> None:
    """An interrupted debootstrap leaves /proc and /sys mounted; they must not be there when the root is removed."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        point = line.split()[1]
        if point.startswith(f"{root}/"):
            subprocess.run(["umount", "--lazy", point], check=False)


def _suite() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return "stable"


def _add_path(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tar.gettarinfo(path, name)
    if info is None:  # a socket
        return
    if not info.issym():
        for attribute in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, attribute, follow_symlinks=False).decode("utf-8", "surrogateescape")
            info.pax_headers = {**info.pax_headers, f"SCHILY.xattr.{attribute}": value}
    if info.isreg():
        with path.open("rb") as content:
            tar.addfile(info, content)
    else:
        tar.addfile(info)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# ---- Tars and archives


def layer_of_files(path: Path, files: dict[str, tuple[bytes, int]]) -> Path:
    """A layer tar of {name: (content, mode)}, with the directories above them."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        known: set[str] = set()
        for name, (content, mode) in files.items():
            parts = name.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                directory = "/".join(parts[:depth])
                if directory not in known:
                    known.add(directory)
                    _add_dir(tar, directory, 0o755)
            _add_file(tar, name, content, mode)
    return path


def docker_archive(path: Path, layer: Path, tag: str, command: list[str], created_by: str) -> Path:
    """An archive as ``docker save`` writes it, of an image with one layer and two metadata steps."""
    digest = hashlib.sha256()
    with layer.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {"Cmd": command, "Env": environment},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        "history": [
            {"created": CREATED, "created_by": created_by},
            {"created": CREATED, "created_by": f"ENV {environment[0]}", "empty_layer": True},
            {"created": CREATED, "created_by": f"CMD {json.dumps(command)}", "empty_layer": True},
        ],
    }
    text = json.dumps(config, separators=(",", ":")).encode()
    image_id = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{image_id}.json", "RepoTags": [tag], "Layers": [f"{digest.hexdigest()}/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add_file(tar, f"{image_id}.json", text, 0o644)
        _add_dir(tar, digest.hexdigest(), 0o755)
        info = _info(f"{digest.hexdigest()}/layer.tar", 0o644)
        info.size = layer.stat().st_size
        with layer.open("rb") as content:
            tar.addfile(info, content)
        _add_file(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return path


def _info(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    info.mtime = _CREATED_S
    info.uname = info.gname = "root"
    return info


def _add_dir(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = _info(name, mode)
    info.type = tarfile.DIRTYPE
    tar.addfile(info)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = _info(name, mode)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _add_link(tar: tarfile.TarFile, name: str, target: str, *, symbolic: bool) -> None:
    info = _info(name, 0o777 if symbolic else 0o755)
    info.type = tarfile.SYMTYPE if symbolic else tarfile.LNKTYPE
    info.linkname = "/" + target if symbolic and not target.startswith((".", "/")) else target
    tar.addfile(info)


def _add_device(tar: tarfile.TarFile, name: str, major: int, minor: int) -> None:
    info = _info(name, 0o666)
    info.type = tarfile.CHRTYPE
    info.devmajor, info.devminor = major, minor
    tar.addfile(info)
