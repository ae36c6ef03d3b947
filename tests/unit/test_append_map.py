"""A mapping that only grows: each version has its own keys, whichever version is extended."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.core.values.append_map import AppendMap


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9))))
def test_each_version_equals_a_copied_dict(adds: list[tuple[int, int]]) -> None:
    """Each pair adds a key to one of the earlier versions."""
    versions: list[AppendMap[int, int]] = [AppendMap()]
    dicts: list[dict[int, int]] = [{}]
    for number, (place, key) in enumerate(adds):
        base = place % len(versions)
        versions.append(versions[base].adding(key, number))
        dicts.append({key: number, **dicts[base]} if key not in dicts[base] else dicts[base])
    for version, expected in zip(versions, dicts, strict=True):
        assert version == expected
        assert len(version) == len(expected)
        assert set(version) == set(expected)
        assert [version.get(key, -1) for key in range(10)] == [expected.get(key, -1) for key in range(10)]
        assert [key in version for key in range(10)] == [key in expected for key in range(10)]


def test_a_key_of_a_later_version_is_missing_in_an_earlier_one() -> None:
    one = AppendMap({"a": 1})
    two = one.adding("b", 2)
    assert (list(one), list(two), repr(two)) == (["a"], ["a", "b"], "{'a': 1, 'b': 2}")
    with pytest.raises(KeyError):
        one["b"]
    with pytest.raises(KeyError):
        two["c"]
    assert two.adding("a", 9) is two


def test_versions_of_several_threads_do_not_mix() -> None:
    base: AppendMap[Any, Any] = AppendMap({"base": 0})
    made: list[AppendMap[Any, Any]] = []
    barrier = threading.Barrier(8)

    def add(name: int) -> None:
        barrier.wait(60)
        version = base
        for number in range(200):
            version = version.adding((name, number), number)
        made.append(version)

    threads = [threading.Thread(target=add, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 8
    for version in made:
        (name,) = {key[0] for key in version if key != "base"}
        expected: dict[Any, int] = {(name, number): number for number in range(200)}
        assert version == {"base": 0} | expected
