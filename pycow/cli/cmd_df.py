# SPDX-License-Identifier: Apache-2.0
"""``pycow df``: what the store uses."""

from __future__ import annotations

from typing import Any

import pycow
from pycow.cli._app import App
from pycow.cli._app import command as _command
from pycow.cli._describe import full_image_id
from pycow.cli._format import human_size

__all__ = ["command"]

HEADERS = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")


@_command("df")
def command(app: App) -> None:
    """Show how much images, containers and volumes hold, as `docker system df`, and what the store takes on disk.

    An image is active when a container was made of it; containers are not run here, so none of them is active.
    """
    with app.open() as store:
        kinds = [_images(store), _containers(store), _volumes(store)]
        stats = store.stats()
    disk = {"host": stats.host_bytes, "data": stats.data_bytes, "nodes": stats.node_bytes}
    if app.json:
        app.print_json([*kinds, {"type": "Disk", **disk}])
        return
    app.rows(HEADERS, [_row(kind) for kind in kinds], ())
    app.print()
    app.print(
        f"On disk: {human_size(disk['host'])} (file data {human_size(disk['data'])}, "
        f"tree nodes {human_size(disk['nodes'])})"
    )


def _images(store: pycow.Store) -> dict[str, Any]:
    """Each layer counts once, however many images share it."""
    images = store.images.list()
    used = {full_image_id(container.image_id) for container in store.containers.list()}
    active = [image for image in images if image.id in used]
    kept = {chain for image in active for chain in image.chain_ids}
    sizes = {layer.chain_id: layer.size for layer in store.layers.list()}
    return _kind(
        "Images", len(images), len(active), sum(sizes.values()), sum(n for c, n in sizes.items() if c not in kept)
    )


def _containers(store: pycow.Store) -> dict[str, Any]:
    containers = store.containers.list()
    size = sum(container.usage().size for container in containers)
    return _kind("Containers", len(containers), 0, size, size)


def _volumes(store: pycow.Store) -> dict[str, Any]:
    volumes = store.volumes.list()
    size = sum(volume.usage().size for volume in volumes)
    return _kind("Local Volumes", len(volumes), 0, size, size)


def _kind(name: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, Any]:
    return {"type": name, "total": total, "active": active, "size": size, "reclaimable": reclaimable}


def _row(kind: dict[str, Any]) -> tuple[str, ...]:
    share = f" ({kind['reclaimable'] * 100 // kind['size']}%)" if kind["size"] else ""
    return (
        kind["type"],
        str(kind["total"]),
        str(kind["active"]),
        human_size(kind["size"]),
        human_size(kind["reclaimable"]) + share,
    )
