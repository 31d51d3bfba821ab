#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the seeds of the fuzz targets: seeds.py FOLDER writes FOLDER/TARGET/seed-NAME.

The targets make most of what they need from small numbers; the seeds only show them the way to what is far off: a
value of each kind for the decoders, archives in each tar format, a long sequence of operations, damage at each kind of
place. Deterministic.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import tarfile
from pathlib import Path

STAT_FILE, STAT_DIR = 0o100644, 0o040755


def add(
    archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mtime = kind, len(data), 1
    for key, value in fields.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def archive(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        add(tar, "etc", tarfile.DIRTYPE, mode=0o755)
        add(tar, "etc/hosts", data=b"x" * 600)
        add(tar, "d" * 120 + "/" + "n" * 100, data=b"long")
        add(tar, "sym", tarfile.SYMTYPE, linkname="etc/" + "t" * 150)
        add(tar, "hard", tarfile.LNKTYPE, linkname="etc/hosts")
        add(tar, "null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add(tar, "pipe", tarfile.FIFOTYPE)
        add(tar, "etc/.wh.large", data=b"")
        add(tar, "up/.wh..wh..opq", data=b"")
        pax = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"} if form == tarfile.PAX_FORMAT else {}
        add(tar, "attr", data=b"y", pax_headers=pax, uid=1 << 22)
    return out.getvalue()[:8192]


def sparse() -> bytes:
    """A file in GNU's PAX sparse format 1.0."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        fields = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "s",
            "GNU.sparse.realsize": "9999",
        }
        add(tar, "GNUSparseFile.0/s", data=b"1\n4096\n5\n".ljust(512, b"\0") + b"holes", pax_headers=fields)
    return out.getvalue()[:4096]


def tar_seeds() -> dict[str, bytes]:
    forms = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    seeds = {}
    for number, (name, form) in enumerate(forms.items()):
        try:
            seeds[name] = bytes([12 + number]) + archive(form)
        except ValueError:  # a name that ustar cannot hold
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w", format=form) as tar:
                add(tar, "a/b", data=b"content")
                add(tar, "a/.wh.b")
            seeds[name] = bytes([12]) + out.getvalue()[:4096]
    seeds["sparse"] = b"\x04" + sparse()
    return seeds


def format_seeds() -> dict[str, bytes]:
    inode = struct.pack("<IIIIQQQqqqqQQQII", STAT_FILE, 0, 0, 1, 0, 5, 0, 1, 1, 1, 1, 1, 77, 0, 1, 0).ljust(136, b"\0")
    record = struct.pack("<QQQQQQQQqIIQ", 16, 1, 0, 1, 2, 1, 10, 5, 1, 1, 0, 0)
    super_block = b"PYCOW\0SB" + struct.pack("<IIQQ", 1, 4096, 0, 3) + bytes(range(1, 33))
    super_block += struct.pack("<qQQQQQIIIIQQQQQ", 1, 16, 2, 5, 4, 0, 2, 0, 1, 0, 8192, 0, 10, 5, 64)
    leaf = struct.pack("<IHBBHHHH", 0x4E574F43, 1, 0, 0, 2, 4096 - 20, 0, 0) + struct.pack("<QQ", 1, 1) + bytes(32)
    leaf += struct.pack("<QQHH", 1, 10 << 56, 4096 - 10, 10) + struct.pack("<QQHH", 1, 11 << 56, 4096 - 20, 10)
    inner = struct.pack("<IHBBHHHH", 0x4E574F43, 1, 1, 0, 2, 0, 0, 0) + struct.pack("<QQ", 1, 1) + bytes(32)
    inner += struct.pack("<QQQQ", 1, 0, 17, 1) + struct.pack("<QQQQ", 2, 0, 18, 1)
    pages = {
        f"page{kind}": b"\x02PYCOW\0PG"
        + struct.pack("<HHIIIQQ", 1, kind - 1, 1 if kind < 3 else 0, 0, 0, 2, 0)
        + bytes(24)
        for kind in (1, 2, 3)
    }
    return {
        "super": b"\0" + super_block,
        "leaf": b"\x01\x01" + struct.pack("<H", len(leaf)) + leaf + bytes(range(200)),
        "inner": b"\x01\x01" + struct.pack("<H", len(inner)) + inner,
        **pages,
        "records": pages["page1"] + struct.pack("<HIIBI", 1, 2, 1, 0, 1) * 3,
        "segments": pages["page3"] + struct.pack("<BBHIIIQQ", 1, 1, 0, 300, 10, 0, 0, 0),
        "batch": b"\x03PYCOW\0JB" + struct.pack("<HHIIIQQ", 1, 0, 4, 1, 0, 2, 0),
        "run": b"\x04" + struct.pack("<QIQ", 1 << 32 | 5, 7, 3),
        "inode": b"\x05" + inode,
        "link": b"\x06" + struct.pack("<QQ", 5, 6),
        "tree": b"\x07" + record,
        "dead": b"\x08" + struct.pack("<QQ", 20, 3),
        "dirent": b"\x09" + (struct.pack("<QBB", 5, 8, 3) + b"abc") * 2,
        "xattr": b"\x09" + (struct.pack("<BH", 6, 2) + b"user.abc") * 2,
    }


def noise_seeds(target: str, count: int, length: int) -> dict[str, bytes]:
    source = random.Random(target)
    return {f"noise{i}": source.randbytes(length) for i in range(count)}


def damage_seeds() -> dict[str, bytes]:
    """mode, then (file, operation, block, offset, value) each: one byte in each kind of structure."""
    seeds = {}
    for mode in range(8):
        for file in range(8):
            body = b"".join(struct.pack("<BBHHH", file, 0, block, 16 + 8 * block, 0x55) for block in range(4))
            seeds[f"m{mode}f{file}"] = bytes([mode]) + body
    return seeds


def main() -> None:
    top = Path(sys.argv[1])
    targets = {
        "fuzz_tar": tar_seeds(),
        "fuzz_format": format_seeds(),
        "fuzz_damage": damage_seeds(),
        "fuzz_operations": noise_seeds("operations", 6, 1500),
    }
    for target, seeds in targets.items():
        folder = top / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
