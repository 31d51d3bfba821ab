# SPDX-License-Identifier: Apache-2.0
"""Images, containers, snapshots and volumes as JSON values. Sizes are bytes, times RFC 3339 in UTC."""

from __future__ import annotations

import dataclasses
from typing import Any

import pycow
from pycow.cli._format import iso_time, short_id

__all__ = ["Known", "container_value", "image_value", "inspect_container", "snapshot_value", "usage_value"]


def usage_value(usage: pycow.Usage) -> dict[str, int | None]:
    """size, virtual_size, exclusive, shared, quota."""
    return dataclasses.asdict(usage)


def image_value(image: pycow.Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "tags": list(image.tags),
        "created": iso_time(image.created),
        "size": image.size,
        "layers": list(image.layers),
    }


def container_value(container: pycow.Container, known: Known) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "image": known.name(container),
        "image_id": full_image_id(container.image_id),
        "command": known.command(container),
        "created": iso_time(container.created),
        "status": "created",
        "labels": dict(container.labels),
    }


def snapshot_value(snapshot: pycow.Snapshot) -> dict[str, Any]:
    return {"name": snapshot.name, "created": iso_time(snapshot.created), "usage": usage_value(snapshot.usage())}


def inspect_container(container: pycow.Container, known: Known) -> dict[str, Any]:
    """In the shape of ``docker inspect``."""
    usage = container.usage()
    command = known.command(container)
    return {
        "Id": container.id,
        "Created": iso_time(container.created),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": {"Status": "created", "Running": False},
        "Image": full_image_id(container.image_id),
        "Name": "/" + container.name,
        "ForkedFrom": container.forked_from,
        "SizeRw": usage.size,
        "SizeRootFs": usage.virtual_size,
        "SizeExclusive": usage.exclusive,
        "SizeShared": usage.shared,
        "Quota": usage.quota,
        "Config": {
            "Image": known.name(container),
            "Cmd": list(container.command),
            "Labels": dict(container.labels),
        },
        "Snapshots": [{"Name": s.name, "Created": iso_time(s.created)} for s in container.snapshots()],
    }


def full_image_id(image_id: str) -> str:
    return image_id if image_id.startswith("sha256:") else f"sha256:{image_id}"


class Known:
    """What the images say about the containers made of them; read once."""

    def __init__(self, store: pycow.Store) -> None:
        self._images = {image.id: image for image in store.images.list()}

    def name(self, container: pycow.Container) -> str:
        """What people call the container's image: its first tag, or the short id."""
        image_id = full_image_id(container.image_id)
        image = self._images.get(image_id)
        return image.tags[0] if image is not None and image.tags else short_id(image_id)

    def command(self, container: pycow.Container) -> list[str]:
        """As docker puts it together: the image's entry point, and the container's command or the image's."""
        image = self._images.get(full_image_id(container.image_id))
        config = (image.config.get("config") or {}) if image is not None else {}
        words = [*(config.get("Entrypoint") or ()), *(container.command or config.get("Cmd") or ())]
        return [word for word in words if isinstance(word, str)]
