# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

import pycow
from pycow.catalog import Catalog


@pytest.fixture
def catalog(store: pycow.Store) -> Catalog:
    return store._catalog


KEYS = ["a", "a/b:latest", ".", "..", "%41", "~", "ä☃", "with space", "%tmp-0", "x" * 200]


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_any_form(catalog: Catalog, key: str) -> None:
    catalog.create("tests", key, {"value": key})
    assert catalog.get("tests", key) == {"value": key}
    assert catalog.keys("tests") == [key]
    assert list(catalog.items("tests")) == [(key, {"value": key})]
    catalog.delete("tests", key)
    assert catalog.find("tests", key) is None
    assert catalog.keys("tests") == []


def test_missing(catalog: Catalog) -> None:
    assert catalog.find("tests", "a") is None
    assert catalog.keys("tests") == []
    with pytest.raises(pycow.NotFoundError, match="no such test: a"):
        catalog.get("tests", "a")
    with pytest.raises(pycow.NotFoundError):
        catalog.delete("tests", "a")


def test_create_does_not_replace(catalog: Catalog) -> None:
    catalog.create("tests", "a", {"n": 1})
    with pytest.raises(pycow.ExistsError):
        catalog.create("tests", "a", {"n": 2})
    assert catalog.get("tests", "a") == {"n": 1}


def test_put_replaces(catalog: Catalog) -> None:
    catalog.put("tests", "a", {"n": "x" * 10000})
    catalog.put("tests", "a", {"n": 2})
    assert catalog.get("tests", "a") == {"n": 2}
    assert catalog.keys("tests") == ["a"]


def test_large_documents(catalog: Catalog) -> None:
    document = {"config": "x" * 3_000_000}
    catalog.create("tests", "a", document)
    assert catalog.get("tests", "a") == document


def test_rolled_back(store: pycow.Store, catalog: Catalog) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        catalog.create("tests", "a", {})
        raise RuntimeError
    assert catalog.find("tests", "a") is None
    catalog.create("tests", "a", {})
    assert catalog.keys("tests") == ["a"]


def test_readers_see_whole_documents(catalog: Catalog) -> None:
    catalog.put("tests", "a", {"n": 0, "fill": ""})
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                document = catalog.get("tests", "a")
                if len(document["fill"]) != document["n"] * 100:
                    wrong.append(document)
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(200):
        catalog.put("tests", "a", {"n": n % 50, "fill": "x" * (n % 50 * 100)})
    stop.set()
    reader.join()
    assert wrong == []
