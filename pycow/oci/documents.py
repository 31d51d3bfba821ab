# SPDX-License-Identifier: Apache-2.0
"""JSON of images as it comes from outside: nothing about its shape is taken on trust."""

from __future__ import annotations

import json
from typing import Any, Final

from pycow.errors import ImageError

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "List",
    "Object",
    "as_object",
    "items",
    "object_at",
    "parse",
    "parse_object",
    "render",
    "text",
    "texts",
]

DOCUMENT_BYTES_MAX: Final = 16 << 20  # of a manifest, index or config

Object = dict[str, Any]
List = list[Any]


def parse(data: bytes, what: str) -> Any:
    """The value of a JSON document in UTF-8; ImageError when it is none."""
    if len(data) > DOCUMENT_BYTES_MAX:
        raise ImageError(f"{what}: more than {DOCUMENT_BYTES_MAX >> 20} MiB of JSON")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what}: not JSON: {str(error)[:200]}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number is too large")
    return int(digits)


def render(value: Any) -> bytes:
    """The canonical form of what we write: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def parse_object(data: bytes, what: str) -> Object:
    return as_object(parse(data, what), what)


def as_object(value: Any, what: str) -> Object:
    if not isinstance(value, dict):
        raise ImageError(f"{what}: a JSON object was expected")
    return value


def text(value: Object, key: str, what: str) -> str:
    """The string value[key], "" when it is missing or null."""
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ImageError(f"{what}: {key!r} is not a string")
    return found


def items(value: Object, key: str, what: str) -> List:
    """The array value[key], empty when it is missing or null."""
    found = value.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ImageError(f"{what}: {key!r} is not an array")
    return found


def texts(value: Object, key: str, what: str) -> list[str]:
    """The array of strings value[key], empty when it is missing or null."""
    found = items(value, key, what)
    if not all(isinstance(item, str) for item in found):
        raise ImageError(f"{what}: {key!r} holds something else than strings")
    return found


def object_at(value: Object, key: str, what: str) -> Object:
    """The object value[key], empty when it is missing or null."""
    found = value.get(key)
    return {} if found is None else as_object(found, f"{what}: {key!r}")
