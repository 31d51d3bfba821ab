# SPDX-License-Identifier: Apache-2.0
"""pycow images."""

from __future__ import annotations

from typing import Any


def test_the_table(cli: Any) -> None:
    cli("tag", "busybox", "acme/box:1.0")
    header, *rows = cli("images").columns
    assert header == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert sorted(row[:2] for row in rows) == [["acme/box", "1.0"], ["busybox", "latest"]]
    identifier, created, size = rows[0][2:]
    assert len(identifier) == 12
    assert created.endswith(" ago")
    assert size.endswith("kB")


def test_only_some(cli: Any) -> None:
    cli("tag", "busybox", "acme/box:1.0")
    assert [row[0] for row in cli("images", "acme/box").columns[1:]] == ["acme/box"]
    assert [row[0] for row in cli("images", "busybox:latest").columns[1:]] == ["busybox"]
    assert cli("images", "nothing").columns[1:] == []


def test_ids(cli: Any) -> None:
    cli("tag", "busybox", "acme/box:1.0")
    (full,) = cli("images", "-q", "--no-trunc").lines  # once, though it has two names
    assert full.startswith("sha256:")
    assert cli("images", "-q").lines == [full[7:19]]
    assert cli("images", "-q", "--json").json == [full]


def test_an_image_without_a_name(box: Any) -> None:
    box("commit", "box")
    assert ["<none>", "<none>"] in [row[:2] for row in box("images").columns]


def test_json(cli: Any) -> None:
    (value,) = cli("images", "--json").json
    assert value["tags"] == ["busybox:latest"]
    assert value["size"] > 64 * 4096
    assert len(value["layers"]) == 1
