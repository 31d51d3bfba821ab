# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

import pycow


def test_life(store: pycow.Store) -> None:
    volume = store.volumes.create("data", labels={"a": "b"})
    (volume.fs / "f").write_bytes(b"x" * 5000)
    assert store.volumes.get("data") == volume
    assert store.volumes.get("data").labels == {"a": "b"}
    assert (store.volumes.get("data").fs / "f").read_bytes() == b"x" * 5000
    assert [v.name for v in store.volumes] == ["data"]
    usage = volume.usage()
    assert usage.size == usage.virtual_size == 5000
    assert usage.exclusive >= 8192
    volume.remove()
    assert len(store.volumes) == 0
    with pytest.raises(pycow.NotFoundError, match="no such volume: data"):
        store.volumes.get("data")
    with pytest.raises(pycow.NotFoundError):
        volume.remove()


def test_names(store: pycow.Store) -> None:
    store.volumes.create("data")
    with pytest.raises(pycow.ExistsError):
        store.volumes.create("data")
    for name in ("", "a", "-a", "a b", "a/b", "ä1"):
        with pytest.raises(pycow.InvalidError):
            store.volumes.create(name)
