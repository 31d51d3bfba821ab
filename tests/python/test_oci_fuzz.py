# SPDX-License-Identifier: Apache-2.0
"""Image archives whose documents say what they should not: hypothesis changes manifest, index and config.

Whatever they say, a load gives an image in a store that checks clean, or raises an error of pycow and leaves nothing.
The examples of CI are always the same; OCI_FUZZ_EXAMPLES=N tries N others.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import layer_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pycow

EXAMPLES = int(os.environ.get("OCI_FUZZ_EXAMPLES", "150"))
LAYERS = [layer_tar({"etc/": None, "etc/hosts": b"x"}), layer_tar({"big": b"y" * 9000, "etc/.wh.hosts": b""})]
TAR = "application/vnd.oci.image.layer.v1.tar"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config() -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-09-13T12:26:40Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["A=1"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in LAYERS]},
        "history": [{"created": "2020-09-13T12:26:40Z", "created_by": f"step {i}"} for i in range(2)],
    }


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", "/", "../../x", "sha256:" + "0" * 64, "sha256:", "a\0b", "linux", "2020-13-99T99:99:99Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """The document with up to three places replaced, removed, or given twice."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(document))))
        if not path:
            return draw(json_values)
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "twice"]))
        if how == "replace":
            parent[path[-1]] = draw(json_values)
        elif how == "remove":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[draw(st.text(max_size=5))] = copy.deepcopy(parent[path[-1]])
    return document


def dump(draw: st.DrawFn, document: Any) -> bytes:
    data = json.dumps(document, ensure_ascii=True).encode()
    if draw(st.integers(0, 15)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    if draw(st.integers(0, 15)) == 0:
        data += draw(st.binary(max_size=4))
    return data


@st.composite
def docker_members(draw: st.DrawFn) -> dict[str, bytes]:
    """As docker save writes it."""
    text = dump(draw, draw(changed(config())))
    name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": ["test:latest"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    members = {"0/layer.tar": LAYERS[0], "1/layer.tar": LAYERS[1], name: text}
    return {**members, "manifest.json": dump(draw, draw(changed(manifest)))}


@st.composite
def oci_members(draw: st.DrawFn) -> dict[str, bytes]:
    """An OCI layout; digests fit what they name unless they were changed."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        blobs["blobs/sha256/" + digest(data).removeprefix("sha256:")] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(dump(draw, draw(changed(config()))), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(layer, TAR) for layer in LAYERS],
    }
    descriptor = blob(dump(draw, draw(changed(manifest))), "application/vnd.oci.image.manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "test:latest"}
    descriptor["platform"] = {"architecture": "amd64", "os": "linux"}
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    layout = {"imageLayoutVersion": "1.0.0"}
    return {
        **blobs,
        "index.json": dump(draw, draw(changed(index))),
        "oci-layout": dump(draw, draw(changed(layout))),
    }


def archive(path: Path, members: dict[str, bytes], cut: int) -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = out.getvalue()
    path.write_bytes(data[: len(data) - cut] if cut else data)
    return path


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_documents_of_all_kinds(kind: str, tmp_path: Path) -> None:
    members = docker_members() if kind == "docker" else oci_members()
    counts = {"loaded": 0, "refused": 0}
    with pycow.open(tmp_path / "store", commit_interval=0) as store:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize="OCI_FUZZ_EXAMPLES" not in os.environ,
        )
        @given(members=members, cut=st.sampled_from([0] * 15 + [5000]))
        def load(members: dict[str, bytes], cut: int) -> None:
            trees, images = store.stats().trees, len(store.images)
            try:
                image = store.images.load(archive(tmp_path / "image.tar", members, cut))
            except pycow.Error as error:
                counts["refused"] += 1
                assert str(error)  # noqa: PT017
                assert (store.stats().trees, len(store.images)) == (trees, images)
                return
            counts["loaded"] += 1
            assert image.size >= 0
            assert image.history() is not None
            box = store.containers.create(image)
            assert box.usage().size == 0
            box.remove()
            store.images.remove(image, force=True)
            assert store.stats().trees == trees

        load()
        assert store.check().errors == ()
    assert counts["refused"] > 0 or EXAMPLES < 20
