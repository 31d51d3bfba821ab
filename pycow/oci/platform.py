# SPDX-License-Identifier: Apache-2.0
"""Names of processor architectures as images write them."""

from __future__ import annotations

import platform

__all__ = ["host_architecture"]

_NAMES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "loongarch64": "loong64",
}


def host_architecture() -> str:
    """The architecture of this machine in Go's words ("amd64", "arm64", ...)."""
    machine = platform.machine().lower()
    return _NAMES.get(machine, machine)
