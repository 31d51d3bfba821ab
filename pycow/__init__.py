# SPDX-License-Identifier: Apache-2.0
"""pycow: a copy-on-write store for container images, layers and writable file trees.

with pycow.open("store") as store:
    image = store.images.load("image.tar")
    box = store.containers.create(image, name="box")
    (box.fs / "out.txt").write_bytes(b"hello")
"""

from pycow.containers import Container, Containers, Snapshot
from pycow.errors import (
    AmbiguousError,
    BadReferenceError,
    BusyError,
    ClosedError,
    CorruptError,
    DeniedError,
    Error,
    ExistsError,
    ForkedError,
    FormatError,
    ImageError,
    InUseError,
    InvalidError,
    IsDirectoryError,
    LockedError,
    LoopError,
    NameTooLongError,
    NoSpaceError,
    NotDirectoryError,
    NotEmptyError,
    NotFoundError,
    OperationError,
    QuotaError,
    ReadOnlyError,
    StaleError,
)
from pycow.fs import File, FileSystem, Path
from pycow.images import Image, Images
from pycow.layers import Layer, Layers
from pycow.mount import Mount
from pycow.results import (
    ATTR_DTYPE,
    EXTENT_DTYPE,
    Attr,
    Change,
    CheckReport,
    DirEntry,
    Finding,
    HistoryEntry,
    RepairReport,
    ScrubReport,
    Stats,
    Usage,
)
from pycow.store import Store, open, repair  # noqa: A004
from pycow.volumes import Volume, Volumes

__version__ = "0.1.0"

__all__ = [
    "ATTR_DTYPE",
    "EXTENT_DTYPE",
    "AmbiguousError",
    "Attr",
    "BadReferenceError",
    "BusyError",
    "Change",
    "CheckReport",
    "ClosedError",
    "Container",
    "Containers",
    "CorruptError",
    "DeniedError",
    "DirEntry",
    "Error",
    "ExistsError",
    "File",
    "FileSystem",
    "Finding",
    "ForkedError",
    "FormatError",
    "HistoryEntry",
    "Image",
    "ImageError",
    "Images",
    "InUseError",
    "InvalidError",
    "IsDirectoryError",
    "Layer",
    "Layers",
    "LockedError",
    "LoopError",
    "Mount",
    "NameTooLongError",
    "NoSpaceError",
    "NotDirectoryError",
    "NotEmptyError",
    "NotFoundError",
    "OperationError",
    "Path",
    "QuotaError",
    "ReadOnlyError",
    "RepairReport",
    "ScrubReport",
    "Snapshot",
    "StaleError",
    "Stats",
    "Store",
    "Usage",
    "Volume",
    "Volumes",
    "__version__",
    "open",
    "repair",
]
