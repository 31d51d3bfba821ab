# SPDX-License-Identifier: Apache-2.0
"""Image configs (image-spec, config.md): read and checked, extended by further layers and steps, and their history."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pycow.errors import ImageError
from pycow.oci.digest import chain_ids, parse_digest, sha256_hex
from pycow.oci.documents import Object, items, object_at, parse_object, render, text, texts
from pycow.oci.platform import host_architecture

__all__ = ["ImageConfig", "Step", "format_time", "parse_time"]

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_SECOND = 1_000_000_000
_EMPTY_KEYS = ("container", "container_config", "docker_version", "id", "parent", "throwaway")  # of docker's past


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of an image's history. created in ns, 0 when it does not say."""

    created_by: str = ""
    comment: str = ""
    author: str = ""
    created: int = 0
    empty_layer: bool = False

    def document(self) -> Object:
        found: Object = {}
        if self.created:
            found["created"] = format_time(self.created)
        for key in ("created_by", "comment", "author"):
            if value := getattr(self, key):
                found[key] = value
        if self.empty_layer:
            found["empty_layer"] = True
        return found


@dataclass(frozen=True)
class ImageConfig:
    """A config that was checked. raw are its bytes, whose sha256 is the image's id."""

    raw: bytes
    document: Object
    diff_ids: tuple[str, ...]
    steps: tuple[Step, ...]
    created: int  # ns, 0 when it does not say

    @classmethod
    def parse(cls, raw: bytes, what: str = "image config") -> ImageConfig:
        """ImageError when raw is not the config of an image."""
        document = parse_object(raw, what)
        rootfs = document.get("rootfs")
        if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
            raise ImageError(f'{what}: not the config of an image: there is no rootfs of type "layers"')
        for key in ("architecture", "os", "author"):
            text(document, key, what)
        object_at(document, "config", what)
        diff_ids = tuple(_diff_id(value, what) for value in texts(rootfs, "diff_ids", what))
        steps = tuple(_step(value, what) for value in items(document, "history", what))
        return cls(raw, document, diff_ids, steps, _time(document, what))

    @classmethod
    def scratch(cls) -> ImageConfig:
        """The config of an image without layers, for this machine's architecture."""
        document = {"architecture": host_architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        return cls.parse(render(document))

    @property
    def id(self) -> str:
        """In hex."""
        return sha256_hex(self.raw)

    @cached_property
    def chains(self) -> tuple[str, ...]:
        """The chainID of each layer in hex, lowest first."""
        return chain_ids(self.diff_ids)

    def extended(
        self,
        diff_ids: Sequence[str],
        steps: Iterable[Step],
        *,
        created: int,
        author: str = "",
        overrides: Mapping[str, Any] | None = None,
    ) -> ImageConfig:
        """The config with further layers and history on top. overrides go into its "config" (Cmd, Env, ...)."""
        document = {key: value for key, value in self.document.items() if key not in _EMPTY_KEYS}
        document.setdefault("architecture", host_architecture())
        document.setdefault("os", "linux")
        document["created"] = format_time(created)
        if author:
            document["author"] = author
        if overrides:
            document["config"] = {**(document.get("config") or {}), **overrides}
        # A layer that the history leaves out would take the entry of the next one.
        missing = len(self.diff_ids) - sum(not step.empty_layer for step in self.steps)
        document["history"] = [
            *(document.get("history") or []),
            *({"comment": "not in the history of the image below"} for _ in range(missing)),
            *(step.document() for step in steps),
        ]
        document["rootfs"] = {"type": "layers", "diff_ids": [*self.diff_ids, *diff_ids]}
        return ImageConfig.parse(render(document))

    def sized_steps(self, sizes: Sequence[int]) -> list[tuple[Step, int]]:
        """History with the size of each step, oldest first; sizes are those of the layers, lowest first.

        Steps without a layer have size 0; layers that the history leaves out come last.
        """
        rest = iter(sizes)
        found = [(step, 0 if step.empty_layer else next(rest, 0)) for step in self.steps]
        return found + [(Step(), size) for size in rest]


def _diff_id(value: str, what: str) -> str:
    digest = parse_digest(value, f"{what}: diff_ids")
    if digest.algorithm != "sha256":
        raise ImageError(f"{what}: diff_ids must be sha256 digests, not {digest.algorithm}")
    return str(digest)


def _step(value: Any, what: str) -> Step:
    what = f"{what}: history"
    if not isinstance(value, dict):
        raise ImageError(f"{what}: an entry is not an object")
    empty = value.get("empty_layer")
    if empty is not None and not isinstance(empty, bool):
        raise ImageError(f"{what}: 'empty_layer' is neither true nor false")
    return Step(
        created_by=text(value, "created_by", what),
        comment=text(value, "comment", what),
        author=text(value, "author", what),
        created=_time(value, what),
        empty_layer=bool(empty),
    )


def _time(document: Object, what: str) -> int:
    value = text(document, "created", what)
    if not value:
        return 0
    try:
        return parse_time(value)
    except ValueError:
        raise ImageError(f"{what}: 'created' is not a time: {value[:100]!r}") from None


def parse_time(value: str) -> int:
    """An RFC 3339 time in ns since the epoch; year 1, which stands for "unknown", gives 0. ValueError otherwise."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {value!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    # A month has no 31st always, but calendar.timegm would count on; strptime knows.
    time.strptime(f"{max(year, 1):04}-{month:02}-{day:02}", "%Y-%m-%d")
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(f"no such time of day: {value!r}")
    if year <= 1:
        return 0
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += -offset if match[8] == "+" else offset
    return seconds * _SECOND + int((match[7] or "0")[:9].ljust(9, "0"))


def format_time(ns: int) -> str:
    """ns since the epoch as RFC 3339 in UTC with as many digits as needed."""
    seconds, rest = divmod(ns, _SECOND)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{date}{fraction}Z"
