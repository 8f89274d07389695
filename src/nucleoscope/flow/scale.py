"""The same function over many items: here, in processes, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from nucleoscope.errors import CallError, MissingExtraError, NucleoscopeError

Item = TypeVar("Item")
Result = TypeVar("Result")


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

    An item that fails with one of our errors gives a ``Failure`` and the others go on; any other
    exception is raised.

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
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # A forked child inherits the locks of torch's and numba's threads; a fresh one has none.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(items)), mp_context=context) as pool:
        waiting = {pool.submit(_guarded, function, item): i for i, item in enumerate(items)}
        for future in as_completed(waiting):
            result, error = future.result()
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
