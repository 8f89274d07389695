"""Spatial statistics beside squidpy: same input, one run, interleaved, equality checked.

    python bench/bench_spatial.py [--quick | --thorough] [--peer-python PATH] [--data CSV]
                                  [--only NAME ...] [--no-million]

``--peer-python`` is a Python with ``squidpy>=1.8.2`` and ``spatialdata>=0.7.3``; without it only
our own figures are printed. Each side is one process on one core; the two take turns. A task warms
up on a small input (compilation), then runs and reports wall time, CPU time and how far the peak of
its memory rose. Ratios are of CPU time, because the wall time of a shared machine says little.
``--thorough`` repeats more often and permutes more. Nothing is written outside a temporary folder.

Curves are compared three ways, because squidpy's ``ripley`` does less as it is called by default.
With as many points in each simulation as ours have: squidpy holds all pairs at once, so one of its
simulations is run, its time is the difference to a run of none, and it is multiplied by the number
of simulations, as the row says; without the memory for it the row says how much it would be. With
as many points as a type has. And with its default of 1,000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

N_TYPES = 10
ONE_CORE = dict.fromkeys(
    ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
#: Distances are in px at this density, so that 200 px hold about 75 nuclei (speed.md's setting).
DENSITY = 1e6 / 40_900**2


def nuclei(n: int, seed: int = 0, *, clustered: bool = True) -> dict[str, Any]:
    """Nuclei of ten types in a square, half of them in clusters with a favourite type."""
    rng = np.random.default_rng(seed)
    side = float(np.sqrt(n / DENSITY))
    if not clustered:
        codes = rng.integers(0, N_TYPES, n)
        return {"at": rng.random((n, 2)) * side, "codes": codes, "side": side}
    centres = rng.random((max(n // 100, 5), 2)) * side
    own = rng.integers(0, len(centres), n // 2)
    close = centres[own] + rng.normal(0, 60, (n // 2, 2))
    at = np.concatenate([np.mod(close, side), rng.random((n - n // 2, 2)) * side])
    favourite = rng.integers(0, N_TYPES, len(centres))
    codes = rng.integers(0, N_TYPES, n)
    keeps = rng.random(n // 2) < 0.4
    codes[: n // 2][keeps] = favourite[own][keeps]
    order = rng.permutation(n)
    return {"at": at[order], "codes": codes[order], "side": side}


def our_pattern(data: dict[str, Any]) -> Any:
    from nucleoscope.spatial import Pattern, Window

    window = Window.box((0, 0), (data["side"], data["side"]), unit="px")
    names = tuple(f"t{i}" for i in range(N_TYPES))
    return Pattern(data["at"], data["codes"], names, "px", window=window)


def holed(side: float) -> Any:
    """A tissue with holes in pixels of 20 px: nine of every ten of a square."""
    from nucleoscope.spatial import Window

    n = int(side // 20)
    y, x = np.indices((n, n))
    mask = (y // 25 % 4 != 1) | (x // 25 % 5 >= 2)
    return Window(mask, (side / n, side / n), (0.0, 0.0), unit="px")


def our_graph(data: dict[str, Any]) -> Any:
    from nucleoscope.spatial import Graph

    return Graph(data["indptr"], data["indices"], data["lengths"])


def ours(task: str, data: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    from nucleoscope import spatial
    from nucleoscope.spatial.enrichment import permuted_sums

    pattern = our_pattern(data)
    if task == "delaunay":

        def run() -> dict[str, Any]:
            graph = spatial.delaunay(pattern)
            return {"indptr": graph.indptr, "indices": graph.indices}

    elif task == "enrichment":
        graph = our_graph(data)

        def run() -> dict[str, Any]:
            found = spatial.enrichment(graph, pattern)
            return {"z": found.z, "counts": found.counts}

    elif task == "permutations":
        graph = our_graph(data)

        def run() -> dict[str, Any]:
            sums = permuted_sums(graph, pattern, int(data["n_perms"]))
            counts = spatial.edge_sums(graph, pattern)
            return {"z": (counts - sums.mean(axis=0)) / sums.std(axis=0), "counts": counts}

    elif task == "co_occurrence":
        bins = spatial.Bins(float(data["high"]), int(data["n_radii"]) - 1, float(data["low"]))

        def run() -> dict[str, Any]:
            return {"ratio": spatial.co_occurrence(pattern, bins).ratio}

    elif task.startswith("envelope"):
        bins = spatial.Bins(float(data["reach"]), 49)
        null = task.removeprefix("envelope ")

        def run() -> dict[str, Any]:
            n = int(data["n_simulations"])
            found = spatial.curve_test(pattern, bins, null=null, n_simulations=n)

            def plain() -> Any:  # for the check, not timed
                k = spatial.cross_k(pattern, bins, correction="none").k
                return np.stack([k[i, i] for i in range(N_TYPES)])

            return {"p": found.p, "plain": plain}

    else:
        bins = spatial.Bins(200.0, 50)
        correction = "none" if "uncorrected" in task else "translation"
        jobs = 2 if "two jobs" in task else 1
        if "mask" in task:
            pattern = pattern.inside(holed(data["side"]))

        def run() -> dict[str, Any]:
            found = spatial.cross_k(pattern, bins, correction=correction, n_jobs=jobs)

            def plain() -> Any:  # for the check, not timed
                return spatial.cross_k(pattern, bins, correction=correction).k

            return {"k": found.k, "one job": plain}

    return run


def squidpys(task: str, data: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    import anndata
    import pandas as pd
    import squidpy
    from scipy.sparse import csr_matrix

    n = len(data["at"])
    names = [f"t{i}" for i in range(N_TYPES)]
    types = pd.Categorical.from_codes(data["codes"], names)
    obs = pd.DataFrame({"type": types}, index=[str(i) for i in range(n)])
    adata = anndata.AnnData(obs=obs)
    adata.obsm["spatial"] = np.asarray(data["at"])
    if "indptr" in data:
        ones = np.ones(len(data["indices"]))
        graph = csr_matrix((ones, data["indices"], data["indptr"]), shape=(n, n))
        adata.obsp["spatial_connectivities"] = graph
    if task == "delaunay":

        def run() -> dict[str, Any]:
            found = squidpy.gr.spatial_neighbors(
                adata, coord_type="generic", delaunay=True, copy=True
            )
            graph = csr_matrix(found[0])
            graph.sort_indices()
            return {"indptr": graph.indptr, "indices": graph.indices}

    elif task in ("enrichment", "permutations"):

        def run() -> dict[str, Any]:
            found = squidpy.gr.nhood_enrichment(
                adata, "type", n_perms=int(data["n_perms"]), seed=0, copy=True, n_jobs=1,
                show_progress_bar=False,
            )  # fmt: skip
            return {"z": found.zscore, "counts": found.counts}

    elif task == "co_occurrence":
        interval = np.linspace(float(data["low"]), float(data["high"]), int(data["n_radii"]))

        def run() -> dict[str, Any]:
            return {
                "ratio": squidpy.gr.co_occurrence(adata, "type", interval=interval, copy=True)[0]
            }

    else:
        # The largest simulations are few; what they take is the difference to none at all.
        n_run = {"ripley all": 1, "ripley none": 0}.get(task, int(data["n_simulations"]))

        def run() -> dict[str, Any]:
            found = squidpy.gr.ripley(
                adata, "type", mode="L", n_simulations=n_run,
                n_observations=int(data["n_observations"]), max_dist=float(data["reach"]),
                n_steps=50, seed=0, copy=True,
            )  # fmt: skip
            stat = found["L_stat"].pivot(index="bins", columns="type", values="stats")
            return {"l": stat.to_numpy().T}

    return run


def peak_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Start the peak of this process's memory anew, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def worker(side: str) -> None:
    """Do the tasks that come in, one line each: task, folder."""
    import warnings

    warnings.simplefilter("ignore")
    build = ours if side == "ours" else squidpys
    for line in sys.stdin:
        task, folder = json.loads(line)
        build(task, dict(np.load(Path(folder) / "small.npz")))()
        run = build(task, dict(np.load(Path(folder) / "data.npz")))
        forget_peak()
        before, wall, cpu = peak_mb(), time.perf_counter(), time.process_time()
        found = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures = {"wall": wall, "cpu": cpu, "mb": peak_mb() - before}
        arrays = {name: value() if callable(value) else value for name, value in found.items()}
        np.savez(Path(folder) / f"{side}.npz", **arrays)
        print("@" + json.dumps(figures), flush=True)


class Side:
    """One side's process; started with its first task."""

    def __init__(self, python: str, name: str) -> None:
        self.name = name
        self.command = [python, str(Path(__file__).resolve()), "--worker", name]
        self.process: subprocess.Popen[str] | None = None
        #: What was measured, so that a peer meets the same question only once.
        self.known: dict[tuple[str, int], tuple[list[dict[str, float]], dict[str, Any]]] = {}

    def measure(self, task: str, folder: Path) -> dict[str, float]:
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, env=os.environ | ONE_CORE, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([task, str(folder)]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                figures: dict[str, float] = json.loads(line[1:])
                return figures
        raise SystemExit(f"{self.name} {task} failed")

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()


@dataclass
class Case:
    """One comparison: what to run on what, how to check it, and the goal.

    With ``smaller``, squidpy runs on that instead and its times are multiplied by ``times``.
    ``alike`` is how many times more curves and simulated nuclei ours has; a ratio times it compares
    like with like. ``peer_task`` when squidpy has another name for it. With
    ``none_task`` squidpy runs one simulation, and none, and the difference is multiplied by their
    number. ``refused`` says why squidpy cannot run.
    """

    name: str
    task: str
    data: dict[str, Any]
    check: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], str]
    goal: str = ""
    repeats: int = 3
    peer_repeats: int = 3
    smaller: dict[str, Any] | None = None
    times: float = 1.0
    alike: float = 1.0
    peer_task: str = ""
    none_task: str = ""
    refused: str = ""


def best(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: min(run[key] for run in runs) for key in runs[0]}


def compare(case: Case, mine: Side, peer: Side | None) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for_peer = folder if case.smaller is None else folder / "smaller"
        for place, data in ((folder, case.data), (for_peer, case.smaller)):
            if data is not None:
                place.mkdir(exist_ok=True)
                np.savez(place / "data.npz", **data)
                np.savez(place / "small.npz", **small_like(data))
        asked = (case.peer_task or case.task, id(case.data["at"]))
        known = peer.known.get(asked) if peer else None
        own: list[dict[str, float]] = []
        theirs: list[dict[str, float]] = [] if known is None else known[0]
        for turn in range(max(case.repeats, case.peer_repeats)):
            if turn < case.repeats:
                own.append(mine.measure(case.task, folder))
            if peer and not case.refused and known is None and turn < case.peer_repeats:
                theirs.append(peer.measure(asked[0], for_peer))
                if case.none_task:
                    none = peer.measure(case.none_task, for_peer)
                    times = int(case.data["n_simulations"])
                    for key in ("wall", "cpu"):
                        theirs[-1][key] = none[key] + times * (theirs[-1][key] - none[key])
        found, a = dict(np.load(folder / "ours.npz")), best(own)
        row = f"| {case.name} | {a['wall']:.3f} s ({a['cpu']:.3f}) | {a['mb']:.0f} MB "
        if case.refused:
            return f"{row}| - | - | - | {case.refused} | {case.goal} |"
        if peer is None:
            return f"{row}| - | - | - | {case.check(found, {}, case.data)} | {case.goal} |"
        answer = known[1] if known else dict(np.load(for_peer / "squidpy.npz"))
        peer.known[asked] = theirs, answer
        b = best(theirs)
        b |= {key: b[key] * case.times for key in ("wall", "cpu")}
        if case.smaller is not None:
            said = f"squidpy's time extrapolated {case.times:g}x from 20k (checked there)"
        else:
            said = case.check(found, answer, case.data)
        if case.none_task:
            one = b["cpu"] / int(case.data["n_simulations"])
            said += f"; one simulation of squidpy's takes {one:.1f} s, multiplied by their number"
        ratio, alike = b["cpu"] / a["cpu"], ""
        if case.alike != 1:
            alike = f"; {ratio * case.alike:.0f}x per curve and simulated nucleus"
        return (
            f"{row}| {b['wall']:.2f} s ({b['cpu']:.2f}) | {b['mb']:.0f} MB | {ratio:.1f}x{alike} "
            f"| {said} | {case.goal} |"
        )


def small_like(data: dict[str, Any]) -> dict[str, Any]:
    """A small input with the same settings, for warming up."""
    few = nuclei(400, seed=9)
    few |= {
        k: v for k, v in data.items() if k not in few and k not in ("indptr", "indices", "lengths")
    }
    if "n_perms" in data:
        few["n_perms"] = 5
    if "n_simulations" in data:
        few |= {"n_simulations": 19, "n_observations": 400}
    return few | graph_of(few) if "indptr" in data else few


def graph_of(data: dict[str, Any]) -> dict[str, Any]:
    from nucleoscope.spatial import delaunay

    graph = delaunay(our_pattern(data))
    return {"indptr": graph.indptr, "indices": graph.indices, "lengths": graph.lengths}


def same_edges(mine: dict[str, Any], peer: dict[str, Any], data: dict[str, Any]) -> str:
    if not peer:
        return "-"
    pairs = [
        set(
            zip(
                np.repeat(np.arange(len(g["indptr"]) - 1), np.diff(g["indptr"])),
                g["indices"],
                strict=True,
            )
        )
        for g in (mine, peer)
    ]
    return "edges equal" if pairs[0] == pairs[1] else f"{len(pairs[0] ^ pairs[1])} edges differ"


def same_z(mine: dict[str, Any], peer: dict[str, Any], data: dict[str, Any]) -> str:
    if not peer:
        return "-"
    counts = "counts equal" if np.array_equal(mine["counts"], peer["counts"]) else "COUNTS DIFFER"
    n = int(data["n_perms"])
    error = np.sqrt(1 / n + mine["z"] ** 2 / (2 * n))
    gaps = np.abs(mine["z"] - peer["z"]) / error
    inside = "z within" if gaps.max() < 4.5 else "Z OUTSIDE"
    return f"{counts}, {inside} Monte-Carlo error (worst {gaps.max():.1f} s.e.)"


def same_ratio(mine: dict[str, Any], peer: dict[str, Any], data: dict[str, Any]) -> str:
    if not peer:
        return f"{np.isfinite(mine['ratio']).mean():.0%} defined"
    return f"largest difference {np.abs(mine['ratio'] - peer['ratio']).max():.1e}"


def same_pairs(mine: dict[str, Any], peer: dict[str, Any], data: dict[str, Any]) -> str:
    """squidpy's L counts the same pairs; it scales them by the hull and by all nuclei."""
    if not peer:
        return "-"
    from scipy.spatial import ConvexHull

    n, area = len(data["at"]), float(data["side"]) ** 2
    own = np.bincount(data["codes"], minlength=N_TYPES)
    pairs = mine["plain"] * (own * (own - 1))[:, None] / area
    theirs = np.pi * peer["l"][:, 1:] ** 2 * n * (n / ConvexHull(data["at"]).volume)
    return f"pairs differ by {np.abs(pairs / theirs - 1).max():.0e}"


def finite_k(mine: dict[str, Any], peer: dict[str, Any], data: dict[str, Any]) -> str:
    said = "finite" if np.isfinite(mine["k"]).all() else "GAPS"
    equal = np.array_equal(mine["k"], mine["one job"])
    return f"{said}, {'equal to' if equal else 'NOT'} one job's to the last bit"


def squidpy_interval(at: Any, n: int = 50) -> dict[str, float]:
    """squidpy's default distances: evenly spaced up to half of the tissue."""
    total = at.sum(axis=1)
    low, second = at[np.argpartition(total, 2)[:2]]
    high = float(np.linalg.norm(low - at[total.argmax()]) / 2)
    return {"low": float(np.linalg.norm(low - second)), "high": high, "n_radii": n}


def half_z(mine: dict[str, Any], peer: dict[str, Any], data: dict[str, Any]) -> str:
    """Both z come from permutations, so both err."""
    return same_z(mine, peer, data | {"n_perms": data["n_perms"] / 2})


def side_by_side(n: int, how: str) -> list[Case]:
    data = nuclei(n)
    large = n > 50_000
    n_perms = {"quick": 100, "usual": 200 if large else 1000, "thorough": 1000}[how]
    graphed = data | graph_of(data) | {"n_perms": n_perms}
    radii = data | squidpy_interval(data["at"])
    few = nuclei(20_000) if large else data
    smaller = few | squidpy_interval(few["at"]) if large else None
    sims = 19 if how == "quick" or large else 99
    reps = {"quick": (1, 1), "usual": (1, 1), "thorough": (3, 1 if large else 3)}[how]
    size, perms = f"{n // 1000}k", f"{n_perms} permutations"
    cases = [
        Case(f"Delaunay graph {size}", "delaunay", data, same_edges, "", *reps),
        Case(f"enrichment z, closed form, against {perms}, {size}", "enrichment", graphed, same_z,
             "G6a 1,000x at 1000", *reps, peer_task="permutations"),
        Case(f"enrichment, {perms} on both sides, {size}", "permutations", graphed, half_z,
             "G6a 5x", *reps),
        Case(f"co-occurrence, squidpy's 50 radii, {size}", "co_occurrence", radii, same_ratio,
             "G6b 10x at 20k", reps[0], 1, smaller, (n / 20_000) ** 2 if large else 1.0),
    ]  # fmt: skip
    for null in ("labelling-exact", "labelling", "csr"):
        cases += curve_cases(data, null, sims, 1 if how == "thorough" and not large else reps[0])
    return cases


def curve_cases(data: dict[str, Any], null: str, sims: int, repeats: int) -> list[Case]:
    """Ours against squidpy's L with as many points as ours, as many as a type has, and 1,000."""
    n, size = len(data["at"]), f"{len(data['at']) // 1000}k"
    need, free, refused = ripley_gb(n), free_gb(), ""
    if need + 4 > free:
        refused = f"squidpy would need {need:.0f} GB for its pairs, {free:.0f} GB are free"
    cases = []
    for draws, peer_task in ((n, "all"), (n // N_TYPES, "type"), (1000, "default")):
        called = {"all": "as ours", "type": "as a type has", "default": "its default"}[peer_task]
        is_all = peer_task == "all"
        name = (
            f"K of all 10 x 10 pairs to 200 px, translation, envelope, {null}; squidpy: L of 10 "
            f"types, no edge correction, {draws} points a draw, {called}; "
            f"{sims} simulations, {size}"
        )
        settings = {"n_simulations": sims, "reach": 200.0, "n_observations": draws}
        # A simulation of ours gives 100 curves of all nuclei, one of squidpy's is compared with 10.
        more = 1.0 if is_all or null == "labelling-exact" else 10 * n / (N_TYPES * draws)
        cases.append(
            Case(name, f"envelope {null}", data | settings, same_pairs, "G6c 50x" if is_all else "",
                 repeats, 1, peer_task=f"ripley {peer_task}", alike=more,
                 none_task="ripley none" if is_all else "", refused=refused if is_all else "")
        )  # fmt: skip
    return cases


def ripley_gb(n: int) -> float:
    """What squidpy's L holds of n points: all distances, and each compared with 50 radii."""
    return n * (n - 1) / 2 * (8 + 50) / 1e9


def free_gb() -> float:
    """Free memory; none known is none."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return 0.0
    line = next(x for x in info.read_text().splitlines() if x.startswith("MemAvailable"))
    return int(line.split()[1]) / 1e6


def alone(n: int, how: str) -> list[Case]:
    data, reps, size = nuclei(n, clustered=False), 1 if how == "quick" else 3, f"{n / 1e6:g}M"
    graphed = data | graph_of(data) | {"n_perms": 1000}
    radii = data | squidpy_interval(data["at"])
    curves = data | {"n_simulations": 19, "reach": 200.0}
    k = "cross-K 10 x 10 to 200 px"
    return [
        Case(f"Delaunay graph {size}", "delaunay", data, same_edges, "", 1),
        Case(f"enrichment z {size}", "enrichment", graphed, same_z, "", reps),
        Case(f"{k}, no correction, {size}", "cross-k uncorrected", data, finite_k, "", reps),
        Case(f"{k}, no correction, two jobs, {size}", "cross-k uncorrected two jobs", data,
             finite_k, "G6b 0.6 s wall", reps),
        Case(f"{k}, translation, {size}", "cross-k", data, finite_k, "", reps),
        Case(f"{k}, translation, two jobs, {size}", "cross-k two jobs", data, finite_k,
             "G6b 0.6 s wall", reps),
        Case(f"{k}, translation in a mask with holes, two jobs, {size}", "cross-k mask two jobs",
             data, finite_k, "", reps),
        Case(f"co-occurrence, squidpy's 50 radii, {size}", "co_occurrence", radii, same_ratio,
             "G6b 5 s, 1 GB", reps),
        Case(f"{k}, translation, envelope, labelling-exact, {size}", "envelope labelling-exact",
             curves, same_pairs, "", 1),
    ]  # fmt: skip


def real(path: Path, how: str) -> list[Case]:
    """Real coordinates: 9,711 cells of a multiplexed tissue section, types by their marker."""
    import pandas as pd

    frame = pd.read_csv(path)
    at = frame[["Y_centroid", "X_centroid"]].to_numpy()
    markers = ["CD57", "CD45", "CD11B", "SMA", "CD16", "ECAD", "FOXP3", "NCAM", "ELANE"]
    rank = frame[markers].rank(pct=True)
    codes = np.where(rank.max(axis=1) > 0.9, rank.to_numpy().argmax(axis=1), N_TYPES - 1)
    data = {"at": at - at.min(axis=0), "codes": codes, "side": float(np.ptp(at, axis=0).max())}
    perms = {"n_perms": {"quick": 1000, "usual": 2000, "thorough": 10_000}[how]}
    return [
        Case(f"enrichment z, real cells, against {perms['n_perms']} permutations", "enrichment",
             data | graph_of(data) | perms, same_z, "agreement", 1, 1, peer_task="permutations"),
        Case("co-occurrence, real cells", "co_occurrence", data | squidpy_interval(data["at"]),
             same_ratio, "agreement", 1, 1),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller inputs, one repeat")
    parser.add_argument("--peer-python", help="a Python with squidpy")
    parser.add_argument("--only", nargs="*", help="run the cases whose name holds one of these")
    parser.add_argument("--no-million", action="store_true", help="leave out the million nuclei")
    parser.add_argument("--data", type=Path, help="a CSV with Y_centroid, X_centroid and markers")
    parser.add_argument("--thorough", action="store_true", help="more repeats and permutations")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker)
        return
    how = "quick" if args.quick else "thorough" if args.thorough else "usual"
    heads = ("what", "ours: wall (CPU)", "memory", "squidpy: wall (CPU)", "memory", "CPU ratio")
    print(f"| {' | '.join((*heads, 'check', 'goal'))} |")
    print("|---|---|---|---|---|---|---|---|")
    mine = Side(sys.executable, "ours")
    peer = Side(args.peer_python, "squidpy") if args.peer_python else None
    makers: list[tuple[Callable[[], list[Case]], Side | None]] = [
        (lambda: side_by_side(20_000, how), peer),
        (lambda: side_by_side(100_000, how), peer),
    ]
    if args.data:
        makers.append((lambda: real(args.data, how), peer))
    if not args.no_million:
        makers.append((lambda: alone(1_000_000, how), None))
    kept = []  # a peer's answers are known by the data they are about, which must stay alive
    for make, other in makers:
        kept.append(make())
        for case in kept[-1]:
            if not args.only or any(word in case.name for word in args.only):
                print(compare(case, mine, other), flush=True)
    mine.close()
    if peer:
        peer.close()


if __name__ == "__main__":
    main()
