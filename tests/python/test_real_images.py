# SPDX-License-Identifier: Apache-2.0
"""Real root file systems in archives that other tools made: every entry of the loaded tree equals the tars'.

What is expected is worked out from the tars with the standard library alone. The quick root file system is a busybox
with all its applets; the large one is Debian's minbase, made by debootstrap once and kept in a cache directory
(PYCOW_TEST_CACHE, or one below the system's temporary directory).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import decimal
import gzip
import hashlib
import io
import json
import os
import posixpath
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import archives
import pytest

import pycow
from pycow import FileSystem, Image, Store

IN_CI = os.environ.get("CI") == "true"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def lacking(what: str, *, could_be_had: bool = True) -> NoReturn:
    """Skips; in continuous integration, where everything that can be had must be there, fails."""
    if IN_CI and could_be_had:
        pytest.fail(f"{what} (and CI=true)")
    pytest.skip(what)


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        lacking(f"{name} is not installed", could_be_had=os.geteuid() == 0)
    return found


def run(*command: str | Path, **more: Any) -> str:
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # sanitizers are for us alone
    more.setdefault("env", env)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600, **more)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


# ---- What is expected: layers applied to a dictionary


@dataclasses.dataclass
class Node:
    """An inode. mtime_ns is None where no layer says it."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int | None = None
    link: str = ""
    rdev: int = 0
    size: int = 0
    sha256: str = ""
    xattrs: dict[str, bytes] = dataclasses.field(default_factory=dict)


TYPES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def node_of(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Node:
    node = Node(TYPES[info.type] | info.mode, info.uid, info.gid)
    mtime = decimal.Decimal(info.pax_headers.get("mtime", info.mtime))
    node.mtime_ns = int((mtime * 10**9).to_integral_value(decimal.ROUND_FLOOR))
    if info.isreg():
        content = tar.extractfile(info)
        assert content is not None
        node.size = info.size
        node.sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if info.issym():
        node.link, node.size = info.linkname, len(os.fsencode(info.linkname))
    if info.ischr() or info.isblk():
        node.rdev = os.makedev(info.devmajor, info.devminor)
    for key, value in info.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            node.xattrs[key.removeprefix("SCHILY.xattr.")] = value.encode("utf-8", "surrogateescape")
    return node


def drop(nodes: dict[str, Node], path: str, *, itself: bool = True) -> None:
    for known in [p for p in nodes if p.startswith(path.rstrip("/") + "/") or (itself and p == path)]:
        if known != "/":
            del nodes[known]


def apply_layer(nodes: dict[str, Node], layer: IO[bytes]) -> None:
    lower = set(nodes)
    with tarfile.open(fileobj=layer, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            path = posixpath.normpath("/" + info.name)
            parent, name = posixpath.split(path)
            if name == ".wh..wh..opq":
                for known in [p for p in lower if p.startswith(parent.rstrip("/") + "/")]:
                    nodes.pop(known, None)
                continue
            if name.startswith(".wh."):
                drop(nodes, posixpath.join(parent, name.removeprefix(".wh.")))
                continue
            if info.islnk():
                target = nodes[posixpath.normpath("/" + info.linkname)]
                drop(nodes, path)
                nodes[path] = target
                continue
            node = node_of(tar, info)
            known = nodes.get(path)
            if not (known is not None and stat.S_ISDIR(known.mode) and info.isdir()):
                drop(nodes, path)
            nodes[path] = node
            lower.discard(path)


def expected(layers: list[IO[bytes]]) -> dict[str, Node]:
    nodes: dict[str, Node] = {"/": Node(stat.S_IFDIR | 0o755)}
    for layer in layers:
        apply_layer(nodes, layer)
        for node in nodes.values():  # a layer changes directories in ways that their own entries do not say
            if stat.S_ISDIR(node.mode) and layer is not layers[-1]:
                node.mtime_ns = None
    return nodes


# ---- What is there


def actual(fs: FileSystem) -> Iterator[tuple[str, pycow.Path]]:
    yield "/", fs.root
    pending = [fs.root]
    while pending:
        for path in pending.pop().iterdir():
            yield str(path), path
            if path.lstat().is_dir():
                pending.append(path)


def assert_equal(fs: FileSystem, nodes: dict[str, Node]) -> None:
    found = dict(actual(fs))
    assert found.keys() == nodes.keys()
    links = collections.Counter(id(node) for node in nodes.values())
    inodes: dict[int, int] = {}  # ours -> identity of the expected one
    for name, path in found.items():
        node, attr = nodes[name], path.lstat()
        assert (name, attr.mode, attr.uid, attr.gid) == (name, node.mode, node.uid, node.gid)
        assert (name, attr.rdev) == (name, node.rdev)
        if node.mtime_ns is not None:
            assert (name, attr.mtime_ns) == (name, node.mtime_ns)
        if not stat.S_ISDIR(node.mode):
            assert (name, attr.size) == (name, node.size)
            assert inodes.setdefault(attr.ino, id(node)) == id(node), f"{name}: hard links differ"
            assert (name, attr.nlink) == (name, links[id(node)])
        if stat.S_ISREG(node.mode):
            assert (name, hashlib.sha256(path.read_bytes()).hexdigest()) == (name, node.sha256)
        if stat.S_ISLNK(node.mode):
            assert (name, str(path.readlink())) == (name, node.link)
        xattrs = {key: path.getxattr(key, follow_symlinks=False) for key in path.listxattr(follow_symlinks=False)}
        assert (name, xattrs) == (name, node.xattrs)
    assert len(inodes) == len({id(node) for node in nodes.values() if not stat.S_ISDIR(node.mode)})


# ---- Root file systems


def pack(root: Path, out: Path) -> Path:
    run(
        tool("tar"), "--format=pax", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name",
        "--pax-option=delete=atime,delete=ctime", "-C", root, "-cf", out, ".",
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's busybox with its applets as links, and one of all kinds of things that a file system can hold."""
    busybox = Path(tool("busybox"))
    root = tmp_path_factory.mktemp("busybox") / "root"
    for name in "bin dev etc home lib proc root run sbin sys tmp usr/bin usr/sbin var/log".split():
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for number, applet in enumerate(run(busybox, "--list-full").split()):
        path = root / applet
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            os.link(root / "bin/busybox", path)
        else:
            path.symlink_to(posixpath.relpath("/bin/busybox", posixpath.dirname("/" + applet)))
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/empty").touch()
    (root / "tmp").chmod(0o1777)
    (root / "bin/busybox").chmod(0o4755)
    (root / "home" / ("n" * 255)).write_text("a long name")
    deep = root / "home" / "/".join(["d" * 100] * 12)
    deep.mkdir(parents=True)
    (deep / "file").write_text("a long path")
    (root / "home/link").symlink_to("/" + "t" * 300)
    (root / "home/dangling").symlink_to("nothing here")
    (root / "home/grüße\nzwei").write_text("text")
    os.close(os.open(os.fsencode(root / "home") + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY, 0o600))
    with (root / "home/sparse").open("wb") as out:
        out.seek(10_000_000)
        out.write(b"end")
    for size in (1, 511, 512, 513, 4095, 4096, 4097, 1_000_000):
        (root / f"home/size-{size}").write_bytes(os.urandom(size))
    os.mkfifo(root / "run/pipe")
    os.utime(root / "etc/passwd", ns=(0, 1_234_567_890_123_456_789))
    os.utime(root / "etc/empty", ns=(0, -1_500_000_000))
    for name, value in (
        ("user.test", b"\0binary\xff=\n"),
        ("security.capability", bytes.fromhex("0100000200200000" + "00" * 12)),
    ):
        with contextlib.suppress(OSError):  # not every file system, not without root
            os.setxattr(root / "etc/passwd", name, value)
    if os.geteuid() == 0:
        os.chown(root / "home/size-1", 1000, 100)
        os.chown(root / "home/link", 70_000, 3_000_000, follow_symlinks=False)
        os.chown(root / "home/size-513", 4_000_000_000, 4_000_000_001)
        with contextlib.suppress(OSError):
            os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(root / "dev/sda", stat.S_IFBLK | 0o660, os.makedev(8, 300))
    return root


@pytest.fixture(scope="module")
def busybox_tar(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(busybox_root, tmp_path_factory.mktemp("tar") / "busybox.tar")


@pytest.fixture(scope="module")
def debian_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's minbase as a tar, from the cache when it is there."""
    if os.geteuid() != 0:
        lacking("debootstrap needs root", could_be_had=False)
    debootstrap = tool("debootstrap")
    suite = next(
        (line.partition("=")[2].strip().strip('"') for line in Path("/etc/os-release").read_text().splitlines()
         if line.startswith("VERSION_CODENAME=")), "stable",
    )  # fmt: skip
    cached = cache_folder() / f"debian-{suite}.tar"
    if not cached.exists():
        root = tmp_path_factory.mktemp("debian") / "root"
        made = subprocess.run(
            [debootstrap, "--variant=minbase", suite, root], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            lacking(f"debootstrap failed: {made.stdout[-300:]}{made.stderr[-300:]}")
        part = cached.with_name(f"{cached.name}.{os.getpid()}")
        try:
            pack(root, part).rename(cached)
        finally:
            part.unlink(missing_ok=True)
            shutil.rmtree(root)
    return cached


def cache_folder() -> Path:
    """A directory of our own, that nobody else can write to."""
    name = os.environ.get("PYCOW_TEST_CACHE") or os.path.join(tempfile.gettempdir(), f"pycow-test-cache-{os.geteuid()}")
    path = Path(name)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.lstat()
    assert stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022
    return path


# ---- Archives by other tools


def docker_archive(tar: Path, out: Path, tag: str = "real/rootfs:1") -> Path:
    """`docker save` of an image with the tar as its only layer, written without reading it into memory."""
    with tar.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    spec = archives.ImageSpec([], tags=[tag], diff_ids=[f"sha256:{digest}"])
    config = spec.config_bytes()
    manifest = [{"Config": f"{archives.sha256(config)}.json", "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(out, "w") as archive, tar.open("rb") as content:
        for name, data in (
            (f"{archives.sha256(config)}.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            archive.addfile(archives.file(name, data).info(), io.BytesIO(data))
        info = archives.file(f"{digest}/layer.tar").info()
        info.size = tar.stat().st_size
        archive.addfile(info, content)
    return out


def skopeo(source: str, target: str, *options: str) -> None:
    run(tool("skopeo"), "--insecure-policy", "copy", "--quiet", *options, source, target)


def layout_layers(layout: Path, scratch: Path) -> list[Path]:
    """The layers of a layout with one image, uncompressed."""

    def blob(descriptor: dict[str, Any]) -> Path:
        return layout / "blobs" / descriptor["digest"].replace(":", "/")

    [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
    layers = []
    for number, layer in enumerate(json.loads(blob(manifest).read_text())["layers"]):
        with gzip.open(blob(layer)) as source, (scratch / f"layer-{number}.tar").open("wb") as target:
            shutil.copyfileobj(source, target)
        layers.append(scratch / f"layer-{number}.tar")
    return layers


def check_archive(store: Store, archive: Path, layers: list[Path]) -> Image:
    """Loads the archive, and compares the image with its layers, given as plain tars."""
    image = store.images.load(archive)
    files: list[IO[bytes]] = []
    diff_ids = []
    with contextlib.ExitStack() as stack:
        for layer in layers:
            file = stack.enter_context(layer.open("rb"))
            diff_ids.append(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
            if layer.stat().st_size % 512:  # umoci may leave the last padding away, which tarfile does not like
                file = io.BytesIO(layer.read_bytes() + bytes(1024))  # type: ignore[assignment]
            file.seek(0)
            files.append(file)
        assert list(image.layers) == diff_ids
        assert_equal(image.fs, expected(files))
    assert image.size == sum(layer.size for layer in store.layers)
    return image


@pytest.fixture(params=["busybox", pytest.param("debian", marks=pytest.mark.slow)])
def rootfs_tar(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(f"{request.param}_tar")
    return path


class TestRootFileSystem:
    """One layer, through each tool and format."""

    def test_docker_archive(self, store: Store, rootfs_tar: Path, tmp_path: Path) -> None:
        archive = docker_archive(rootfs_tar, tmp_path / "image.tar")
        image = check_archive(store, archive, [rootfs_tar])
        assert image.tags == ("real/rootfs:1",)
        regular = {(a.ino): a.size for _, p in actual(image.fs) if (a := p.lstat()).is_file()}
        assert image.size <= sum(regular.values())  # holes are not counted
        store.commit()

    def test_docker_archive_by_skopeo(self, store: Store, rootfs_tar: Path, tmp_path: Path) -> None:
        ours = docker_archive(rootfs_tar, tmp_path / "ours.tar")
        skopeo(f"docker-archive:{ours}", f"docker-archive:{tmp_path}/image.tar:real/skopeo:2")
        image = check_archive(store, tmp_path / "image.tar", [rootfs_tar])
        assert image.tags == ("real/skopeo:2",)

    def test_compressed_docker_archive(self, store: Store, rootfs_tar: Path, tmp_path: Path) -> None:
        ours = docker_archive(rootfs_tar, tmp_path / "ours.tar")
        with ours.open("rb") as source, gzip.open(tmp_path / "image.tar.gz", "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        before = sorted(os.listdir(store.path))
        check_archive(store, tmp_path / "image.tar.gz", [rootfs_tar])
        assert {name.split("-")[0] for name in os.listdir(store.path)} >= {name.split("-")[0] for name in before}
        assert not [name for name in os.listdir(store.path) if name.startswith("load-")]

    @pytest.mark.parametrize(("form", "compression"), [("folder", "gzip"), ("tar", "zstd")])
    def test_oci_layout_by_skopeo(
        self, store: Store, rootfs_tar: Path, tmp_path: Path, form: str, compression: str
    ) -> None:
        ours = docker_archive(rootfs_tar, tmp_path / "ours.tar")
        layout = tmp_path / "layout"
        skopeo(f"docker-archive:{ours}", f"oci:{layout}:v1", f"--dest-compress-format={compression}")
        archive = layout
        if form == "tar":
            archive = tmp_path / "layout.tar"
            run("tar", "-C", layout, "-cf", archive, ".")
        image = check_archive(store, archive, [rootfs_tar])
        assert image.tags == ("layout:v1",)


class TestUmoci:
    """Layouts of several layers with additions, changes and deletions."""

    def test_layers(self, store: Store, rootfs_tar: Path, tmp_path: Path) -> None:
        umoci, layout, scratch = tool("umoci"), tmp_path / "layout", tmp_path / "scratch"
        (scratch / "etc/app").mkdir(parents=True)
        (scratch / "etc/app/config").write_text("a = b\n")
        (scratch / "etc/passwd").write_text("changed\n")
        if os.geteuid() != 0:
            lacking("umoci keeps owners as root only", could_be_had=False)
        root = tmp_path / "root"
        root.mkdir()
        run("tar", "--xattrs", "--xattrs-include=*", "-C", root, "-xf", rootfs_tar)
        name = f"{layout}:box"
        run(umoci, "init", "--layout", layout)
        run(umoci, "new", "--image", name)
        run(umoci, "insert", "--image", name, root, "/")
        run(umoci, "insert", "--image", name, scratch / "etc", "/etc")
        run(umoci, "insert", "--image", name, "--whiteout", "/usr/sbin")
        run(umoci, "insert", "--image", name, "--opaque", scratch / "etc/app", "/var")
        run(umoci, "config", "--image", name, "--config.cmd", "/bin/sh", "--author", "tests")
        image = check_archive(store, layout, layout_layers(layout, tmp_path))
        assert image.tags == ("layout:box",)
        assert len(image.layers) == 4
        assert (image.fs / "etc/passwd").read_text() == "changed\n"
        assert not (image.fs / "usr/sbin").exists()
        assert [path.name for path in (image.fs / "var").iterdir()] == ["config"]
        assert image.config["config"]["Cmd"] == ["/bin/sh"]
        sizes = [entry.size for entry in image.history()]
        assert sum(sizes) == image.size and len(sizes) >= 4

    def test_unpack_change_repack(self, store: Store, busybox_tar: Path, tmp_path: Path) -> None:
        """What a tool that works on files finds to have changed."""
        if os.geteuid() != 0:
            lacking("umoci keeps owners as root only", could_be_had=False)
        umoci, layout, bundle = tool("umoci"), tmp_path / "layout", tmp_path / "bundle"
        ours = docker_archive(busybox_tar, tmp_path / "ours.tar")
        skopeo(f"docker-archive:{ours}", f"oci:{layout}:box")
        run(umoci, "unpack", "--image", f"{layout}:box", bundle)
        root = bundle / "rootfs"
        (root / "etc/passwd").unlink()
        (root / "etc/passwd").mkdir()
        (root / "etc/passwd/inside").write_text("x")
        shutil.rmtree(root / "usr")
        (root / "usr").symlink_to("bin")
        (root / "home/size-4096").chmod(0o600)
        os.chown(root / "home/size-4097", 5, 6)
        run(umoci, "repack", "--image", f"{layout}:box", bundle)
        image = check_archive(store, layout, layout_layers(layout, tmp_path))
        assert len(image.layers) == 2
        assert (image.fs / "usr").readlink() == "bin"
        assert (image.fs / "etc/passwd/inside").read_text() == "x"


class TestOurCommit:
    def test_commit_is_a_layer_for_others(self, store: Store, busybox_tar: Path, tmp_path: Path) -> None:
        """The tar of a commit, applied by the model to the base, gives the container's tree."""
        image = store.images.load(docker_archive(busybox_tar, tmp_path / "image.tar"))
        box = store.containers.create(image)
        (box.fs / "etc/passwd").unlink()
        (box.fs / "usr/sbin").rmtree()
        (box.fs / "usr/sbin").mkdir()
        (box.fs / "usr/sbin/new").write_bytes(os.urandom(100_000))
        (box.fs / "home/size-4096").rename(box.fs / "home/renamed")
        (box.fs / "home/size-512").chmod(0o700)
        (box.fs / "tmp/hard").hardlink_to(box.fs / "home/renamed")
        made = box.commit("real/changed:1")
        layer = io.BytesIO(b"".join(made.tree().tar(image.tree())))
        assert made.layers[1] == f"sha256:{archives.sha256(layer.getvalue())}"
        with busybox_tar.open("rb") as base:
            nodes = expected([base, layer])
        for path, node in nodes.items():
            if node.mtime_ns is None:
                node.mtime_ns = (made.fs / path).lstat().mtime_ns
        assert_equal(made.fs, nodes)


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A layer of 1 GiB in a compressed archive goes through in less than 300 MiB."""
    layer = tmp_path / "layer.tar"
    info = archives.file("big").info()
    info.size = 1 << 30
    block = os.urandom(1 << 20)
    with layer.open("wb") as out:
        out.write(info.tobuf())
        for _ in range(1 << 10):
            out.write(block)
        out.write(bytes(10_240))
    archive = docker_archive(layer, tmp_path / "image.tar")
    layer.unlink()
    script = (
        "import pycow, re, sys\n"
        "with pycow.open(sys.argv[1]) as store:\n"
        "    image = store.images.load(sys.argv[2])\n"
        "    assert image.size == 1 << 30\n"
        # not ru_maxrss, which a child takes over from the process that started it
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
    )
    used = run(sys.executable, "-P", "-c", script, tmp_path / "store", archive)
    assert int(used) < 300 << 10
