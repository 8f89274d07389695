"""One-to-one assignment on a sparse list of allowed pairs, without an n x m matrix.

Leaving a row or a column single is made an ordinary choice with its own price: every row and
every column gets a stand-in partner, and two stand-ins may take each other for nothing wherever
their owners may. The doubled graph always has a full matching, the cheapest of which is found by
shortest augmenting paths (Jonker & Volgenant 1987, Computing 38:325, in its sparse form).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Components are solved together until they hold this many pairs.
BATCH = 1024


#: Into how many steps the largest price is divided.
STEPS = 2.0**30


def assign(rows: Ints, columns: Ints, costs: Floats, *, single: float | None = None) -> Ints:
    """Choose pairs so that no row or column is used twice and the total price is least.

    The price is the sum of the chosen pairs' costs plus ``single`` for every row and every
    column left alone. Memory is linear in the pairs; connected components are independent, so
    time is near linear when they are small.

    Parameters
    ----------
    rows, columns
        ``(k,)`` indices of the allowed pairs, each pair once.
    costs
        ``(k,)`` finite.
    single
        Price of leaving one row or one column alone. None: so dear that the number of pairs comes
        first (costs must not be negative). Zero with negative costs: the sum alone decides.

    Returns
    -------
    Ints
        Indices into the list of pairs, ascending.

    Examples
    --------
    >>> import numpy as np
    >>> i = np.array
    >>> assign(i([0, 0, 1]), i([0, 1, 0]), i([1.0, 5.0, 9.0])).tolist()
    [1, 2]
    >>> assign(i([0, 0, 1]), i([0, 1, 0]), i([-9.0, -5.0, -1.0]), single=0.0).tolist()
    [0]
    """
    if len(rows) == 0:
        return np.empty(0, dtype=np.int64)
    chosen = [
        batch[_solve(rows[batch], columns[batch], costs[batch], single)]
        for batch in _batches(rows, columns)
    ]
    return np.sort(np.concatenate(chosen))


def _batches(rows: Ints, columns: Ints) -> Iterator[Ints]:
    """Index arrays of pairs, whole connected components at a time, about BATCH pairs each."""
    n_rows, n_columns = int(rows.max()) + 1, int(columns.max()) + 1
    size = n_rows + n_columns
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, n_rows + columns)), (size, size))
    component = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    at = 0
    for start in [*starts[1:].tolist(), len(order)]:
        if start - at >= BATCH or start == len(order):
            yield order[at:start]
            at = start


def _solve(rows: Ints, columns: Ints, costs: Floats, single: float | None) -> NDArray[np.bool_]:
    """Solve one batch; True for every chosen pair."""
    row_ids, r = np.unique(rows, return_inverse=True)
    column_ids, c = np.unique(columns, return_inverse=True)
    n, m = len(row_ids), len(column_ids)
    if single is None:
        # One more pair changes the sum by less than this. Kept as small as the batch allows:
        # prices of very different size make the search slow.
        single = (1 + min(n, m)) * (1 + float(costs.max()))
    tail = np.concatenate([r, np.arange(n), n + np.arange(m), n + c])
    head = np.concatenate([c, m + np.arange(n), np.arange(m), m + r])
    price = np.concatenate([costs, np.full(n + m, single), np.zeros(len(r))])
    # Every full matching has n + m edges, so a constant on all of them changes nothing; it keeps
    # prices above zero, which a sparse matrix would drop.
    price += 1.0 - price.min()
    # Whole numbers, so that sums are exact: with rounded ones the search can go round in circles
    # for ever. A step is a billionth of the largest price.
    price = np.rint(price * (STEPS / price.max())) + 1.0
    graph = csr_matrix((price, (tail, head)), shape=(n + m, n + m))
    left, right = min_weight_full_bipartite_matching(graph)
    partner = np.full(n, -1)
    partner[left[left < n]] = right[left < n]
    chosen: NDArray[np.bool_] = partner[r] == c
    return chosen
