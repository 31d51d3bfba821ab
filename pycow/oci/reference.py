# SPDX-License-Identifier: Apache-2.0
"""Image references: "busybox" means "busybox:latest", and so does "docker.io/library/busybox"."""

from __future__ import annotations

import re

from pycow.errors import BadReferenceError

__all__ = ["DEFAULT_TAG", "normalize", "repository_of", "repository_word"]

DEFAULT_TAG = "latest"
_NAME_LENGTH_MAX = 255

_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"[0-9a-f]{64}")
_DEFAULT_DOMAINS = ("docker.io", "index.docker.io")


def normalize(reference: str) -> str:
    """The one way in which the store writes a reference: "[DOMAIN/]PATH:TAG" without docker.io/ and library/.

    The tag is "latest" when there is none. Raises BadReferenceError when it is not a valid reference, or names an
    image by its digest or id (which is no name).
    """
    if "@" in reference:
        raise BadReferenceError(f"invalid reference {reference!r}: a name is needed here, not a digest")
    name, tag = _split_tag(reference)
    domain, path = _split_domain(name)
    if len(name) > _NAME_LENGTH_MAX:
        raise BadReferenceError(f"invalid reference: the name has more than {_NAME_LENGTH_MAX} characters")
    if domain and not _DOMAIN.fullmatch(domain):
        raise BadReferenceError(f"invalid reference {reference!r}: {domain!r} is not a host name")
    if not _PATH.fullmatch(path):
        why = ": names must be lower case" if _PATH.fullmatch(path.lower()) else ""
        raise BadReferenceError(f"invalid reference {reference!r}{why}")
    if not _TAG.fullmatch(tag):
        raise BadReferenceError(f"invalid reference {reference!r}: {tag!r} is not a tag")
    if domain in _DEFAULT_DOMAINS:
        domain, path = "", path.removeprefix("library/")
    if not domain and (_ID.fullmatch(path) or path == "sha256"):
        raise BadReferenceError(f"invalid reference {reference!r}: it looks like an image id")
    return f"{domain}/{path}:{tag}" if domain else f"{path}:{tag}"


def repository_of(reference: str) -> str:
    """The name of a normalized reference without its tag."""
    return reference.rpartition(":")[0]


def repository_word(text: str) -> str | None:
    """text (of a file's name, say) as a name of an image, or None when it cannot be one."""
    word = re.sub(r"[^a-z0-9]+", lambda run: run[0] if run[0] in (".", "_", "__", "-") else "-", text.lower())
    word = word.strip("._-")
    return word if _PATH.fullmatch(word) and not _ID.fullmatch(word) else None


def _split_tag(reference: str) -> tuple[str, str]:
    name, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:  # the colon is a port's
        return reference, DEFAULT_TAG
    return name, tag


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower()):
        return first, rest
    return "", name
