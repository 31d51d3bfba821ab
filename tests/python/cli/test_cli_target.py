# SPDX-License-Identifier: Apache-2.0
"""CONTAINER:PATH."""

from __future__ import annotations

import pytest

from pycow.cli._target import Target, inner_path, parse_target


@pytest.mark.parametrize(
    ("text", "container", "path"),
    [
        ("box:/etc", "box", "/etc"),
        ("box:etc/x", "box", "/etc/x"),
        ("box:", "box", "/"),
        ("box:/a:b", "box", "/a:b"),
        ("box:/dir/.", "box", "/dir/."),
        ("/a:b", None, "/a:b"),
        ("./a:b", None, "./a:b"),
        ("dir/a:b", None, "dir/a:b"),
        (":x", None, ":x"),
        ("plain", None, "plain"),
        (".", None, "."),
    ],
)
def test_which_side_a_path_is_on(text: str, container: str | None, path: str) -> None:
    assert parse_target(text) == Target(container, path)


def test_paths_in_containers_count_from_the_root() -> None:
    assert inner_path("etc") == inner_path("/etc") == inner_path("//etc") == "/etc"
    assert inner_path("dir/.") == "/dir/."
