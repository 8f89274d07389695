"""The same function over many items: here, in processes, or on a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from nucleoscope.errors import CallError, MissingExtraError, NucleoscopeError, ResourceError

Item = TypeVar("Item")
Result = TypeVar("Result")


#: An item whose process has died this often is given up, and what is then said of it.
TRIES = 3
DIED = (
    f"the process that worked on it died {TRIES} times, most often because memory ran out; use "
    "fewer --jobs or a machine with more memory."
)


class Failure(NamedTuple):
    """Why an item failed: the sentence, and the exit code its kind of error has."""

    text: str
    exit_code: int


def shard(items: Sequence[Item], text: str | None) -> list[Item]:
    """Part K of N of the items, from ``"K/N"``; K counts from 1.

    >>> shard(["a", "b", "c"], "2/2")
    ['b']
    """
    if text is None:
        return list(items)
    try:
        k, n = (int(part) for part in text.split("/"))
    except ValueError:
        raise CallError(f"--shard is K/N, such as 1/4; found {text!r}.") from None
    if not 1 <= k <= n:
        raise CallError(f"--shard K/N needs 1 <= K <= N; found {text!r}.")
    return list(items[k - 1 :: n])


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    jobs: int = 1,
    cluster: str | None = None,
) -> Iterator[tuple[int, Result | None, Failure | None]]:
    """Apply ``function`` to every item; yields (index, result, failure) as they finish.

    An item that fails with one of our errors gives a ``Failure`` and the others go on; so does one
    that kills its process ``TRIES`` times. Any other exception is raised.

    Raises
    ------
    MissingExtraError
        A cluster is named and the extra is not installed.
    """
    if cluster is not None:
        yield from _on_cluster(function, items, cluster)
    elif jobs > 1 and len(items) > 1:
        yield from _in_processes(function, items, jobs)
    else:
        for index, item in enumerate(items):
            result, error = _guarded(function, item)
            yield index, result, error


def _guarded(
    function: Callable[[Item], Result], item: Item
) -> tuple[Result | None, Failure | None]:
    try:
        return function(item), None
    except NucleoscopeError as error:
        return None, Failure(str(error), error.exit_code)


def _in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int
) -> Iterator[tuple[int, Result | None, Failure | None]]:
    """Items in processes; one that dies takes none of the other items with it.

    Processes take items in order, so when one has died, the item that killed it is among the first
    unfinished ones. Each of these is tried again by itself, and then the rest go on together.
    """
    left, tries = list(range(len(items))), Counter[int]()
    while left:
        suspects = [i for i in left if tries[i]]
        asked = suspects[:1] or left
        done = set()
        for i, result, failure in _in_pool(function, items, asked, jobs):
            done.add(i)
            yield i, result, failure
        left = [i for i in left if i not in done]
        for i in [i for i in asked if i not in done][:jobs]:
            tries[i] += 1
            if tries[i] == TRIES:
                left.remove(i)
                yield i, None, Failure(DIED, ResourceError.exit_code)


def _in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], asked: Sequence[int], jobs: int
) -> Iterator[tuple[int, Result | None, Failure | None]]:
    """Some items in processes, until all are done or a process has died."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    # A forked child inherits the locks of torch's and numba's threads; a fresh one has none.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(asked)), mp_context=context) as pool:
        try:
            waiting = {pool.submit(_guarded, function, items[i]): i for i in asked}
        except BrokenProcessPool:  # died while the items were still being handed out
            return
        for future in as_completed(waiting):
            try:
                result, error = future.result()
            except BrokenProcessPool:
                continue
            yield waiting[future], result, error


def _on_cluster(
    function: Callable[[Item], Result], items: Sequence[Item], address: str
) -> Iterator[tuple[int, Result | None, Failure | None]]:
    try:
        from distributed import Client, as_completed  # type: ignore[import-not-found]
    except ImportError:
        raise MissingExtraError("running on a cluster", "cluster") from None
    with Client(address) as client:
        futures = client.map(lambda item: _guarded(function, item), list(items), pure=False)
        order = {future.key: i for i, future in enumerate(futures)}
        for future in as_completed(futures):
            result, error = future.result()
            yield order[future.key], result, error
