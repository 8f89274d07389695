"""One function over many items, in order or not, here or in other processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.flow.scale import run_all, shard


@given(n_items=st.integers(0, 30), n=st.integers(1, 8))
def test_shards_are_a_partition_as_even_as_can_be(n_items: int, n: int) -> None:
    items = list(range(n_items))
    parts = [shard(items, f"{k}/{n}") for k in range(1, n + 1)]
    assert sorted(x for part in parts for x in part) == items
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_without_a_shard_everything_is_done() -> None:
    assert shard([3, 1, 2], None) == [3, 1, 2]


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "a/b", "0/2", "3/2", "-1/2", "1/0", "1.5/2"])
def test_an_impossible_shard_is_refused(text: str) -> None:
    with pytest.raises(CallError, match="--shard"):
        shard([1, 2], text)


def square(value: int) -> int:
    if value == 3:
        raise InputError("three is bad.")
    return value * value


def crash(value: int) -> int:
    raise ZeroDivisionError(f"{value}")


def process(value: int) -> int:
    del value
    return os.getpid()


def test_one_after_the_other_keeps_the_order() -> None:
    assert list(run_all(square, [1, 2, 4])) == [(0, 1, None), (1, 4, None), (2, 16, None)]
    assert list(run_all(square, [])) == []


def test_our_errors_are_told_and_the_others_go_on() -> None:
    found = list(run_all(square, [2, 3, 4]))
    assert found == [(0, 4, None), (1, None, ("three is bad.", 3)), (2, 16, None)]


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_all(crash, [1]))


def test_a_single_item_needs_no_process() -> None:
    assert list(run_all(process, [1], jobs=8)) == [(0, os.getpid(), None)]


@pytest.mark.parametrize("jobs", [0, 1])
def test_few_jobs_stay_in_this_process(jobs: int) -> None:
    assert {r for _, r, _ in run_all(process, [1, 2], jobs=jobs)} == {os.getpid()}


def test_a_cluster_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"nucleoscope\[cluster\]"):
        list(run_all(square, [1], cluster="tcp://nowhere:1"))


def poison(item: tuple[Path, int]) -> int:
    """Kills its process for 3, and for 5 the first time."""
    folder, value = item
    if value == 3 or (value == 5 and not (folder / "seen").exists()):
        if value == 5:
            (folder / "seen").touch()
        os._exit(9)
    return value * value


def test_an_item_that_kills_its_process_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    items = [(tmp_path, value) for value in range(8)]
    found = {i: (result, failure) for i, result, failure in run_all(poison, items, jobs=2)}
    assert sorted(found) == list(range(8))
    result, failure = found.pop(3)
    assert result is None and failure is not None
    assert "died 3 times" in failure.text and failure.exit_code == 5
    assert {i: result for i, (result, _) in found.items()} == {i: i * i for i in found}
    assert all(failure is None for _, failure in found.values())


class Future:
    """Stands for a future of the cluster."""

    def __init__(self, key: str, value: object) -> None:
        self.key, self._value = key, value

    def result(self) -> object:
        return self._value


class Client:
    """Stands for a cluster that finishes in reverse order."""

    def __init__(self, address: str) -> None:
        assert address == "tcp://here:1"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: object, items: list[int], pure: bool) -> list[Future]:
        assert not pure
        return [Future(f"k{i}", function(x)) for i, x in enumerate(items)]  # type: ignore[operator]


def test_a_cluster_gives_results_with_their_item(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    stub = SimpleNamespace(Client=Client, as_completed=lambda futures: reversed(futures))
    monkeypatch.setitem(sys.modules, "distributed", stub)
    found = sorted(run_all(square, [5, 3, 2], cluster="tcp://here:1"))
    assert found == [(0, 25, None), (1, None, ("three is bad.", 3)), (2, 4, None)]
