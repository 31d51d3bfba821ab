# SPDX-License-Identifier: Apache-2.0
"""The works that are measured, by topic. :data:`TREES` are done by every subject that has containers, :data:`BLOCKS`
by every subject that has a large file, :data:`OWN` by pycow alone."""

from __future__ import annotations

from pycow.bench.works._work import Scale, Work
from pycow.bench.works.blocks import BLOCK_WORKS
from pycow.bench.works.containers import CONTAINER_WORKS
from pycow.bench.works.copy_up import COPY_UP_WORKS
from pycow.bench.works.files import FILE_WORKS
from pycow.bench.works.growth import GROWTH_WORKS, OWN_WORKS
from pycow.bench.works.layers import FLOOR_WORKS, LAYER_WORKS
from pycow.bench.works.sync import SYNC_WORKS

__all__ = ["BLOCKS", "OWN", "TREES", "Scale", "Work"]

TREES: tuple[Work, ...] = (*CONTAINER_WORKS, *COPY_UP_WORKS, *FILE_WORKS, *LAYER_WORKS, *GROWTH_WORKS)
BLOCKS: tuple[Work, ...] = (*BLOCK_WORKS, *SYNC_WORKS)
OWN: tuple[Work, ...] = (*OWN_WORKS, *FLOOR_WORKS)
