# SPDX-License-Identifier: Apache-2.0
"""CONTAINER:PATH on the command line."""

from __future__ import annotations

import dataclasses

__all__ = ["Target", "inner_path", "parse_target"]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A path in a container, or on the host when container is None."""

    container: str | None
    path: str


def inner_path(path: str) -> str:
    """A path in a container counts from its root, with or without the slash. What it ends with ("/.") is kept."""
    return "/" + path.lstrip("/")


def parse_target(text: str) -> Target:
    """docker's rule: a colon before any slash names a container; a host path with one is written ./a:b."""
    head, colon, tail = text.partition(":")
    if not colon or not head or "/" in head or head.startswith("."):
        return Target(None, text)
    return Target(head, inner_path(tail))
