"""The one call: tables of nuclei in, every statistic asked for out, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.autocorrelation import moran
from nucleoscope.spatial.centrality import centrality
from nucleoscope.spatial.enrichment import enrichment
from nucleoscope.spatial.envelope import FEWEST, curve_test
from nucleoscope.spatial.graph import GRAPHS, Graph, delaunay, nearest, within
from nucleoscope.spatial.marks import coupling, mark_correlation
from nucleoscope.spatial.niches import composition, niches
from nucleoscope.spatial.nulls import density_strata, null_model
from nucleoscope.spatial.pairs import Bins
from nucleoscope.spatial.pattern import Pattern, patterns_of
from nucleoscope.spatial.results import SpatialResult
from nucleoscope.spatial.tissue import tissue_of
from nucleoscope.spatial.window import Window
from nucleoscope.units import parse_length

Tissue = Window | Region | Volume
#: Hears how much is done (of 1) and what is being done.
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Settings:
    """How neighbours, distances and nulls are defined.

    Parameters
    ----------
    reach
        Longest distance looked at, with its unit: ``"100um"`` or ``"200px"``. Its unit is the unit
        of the whole analysis.
    n_bins
        Distances up to ``reach``.
    graph
        ``"delaunay"``, ``"nearest"`` or ``"radius"``.
    neighbours
        ``k`` of the nearest graph.
    max_edge
        Longest Delaunay edge, and radius of the radius graph, in the unit of ``reach``. Default:
        half of ``reach``.
    null
        Null model of the curves, a name in ``NULLS``.
    n_simulations
        Simulations per curve and permutations per score.
    permutations
        Of the enrichment, as a check; 0 takes the closed form, which needs none.
    strata
        A column of the tables within which types are dealt out, or ``"density"`` for ten groups by
        local density. None: the whole image.
    n_niches
        How many niches.
    flat
        True: stacks are analysed as seen from above; False: in three dimensions. None: as seen from
        above when none of them is deeper than ``reach``, because then hardly any pair lies that far
        apart along z, and counts in 3D say more about the section than about the nuclei.
    """

    reach: str = "100um"
    n_bins: int = 50
    graph: str = "delaunay"
    neighbours: int = 6
    max_edge: float | None = None
    null: str = "labelling"
    n_simulations: int = 199
    permutations: int = 0
    strata: str | None = None
    n_niches: int = 8
    flat: bool | None = None

    def __post_init__(self) -> None:
        parse_length(self.reach)
        null_model(self.null)
        if self.graph not in GRAPHS:
            raise CallError(f"no graph {self.graph!r}; there are {', '.join(GRAPHS)}.")
        if self.n_simulations < FEWEST:
            raise CallError(
                f"an envelope needs {FEWEST} simulations or more; found {self.n_simulations}."
            )
        if self.permutations < 0:
            raise CallError(f"permutations are 0 or more; found {self.permutations}.")

    @property
    def unit(self) -> str:
        """Unit of all lengths."""
        return parse_length(self.reach)[1]

    @property
    def bins(self) -> Bins:
        """The distances."""
        return Bins(parse_length(self.reach)[0], self.n_bins)

    @property
    def edge(self) -> float:
        """Longest edge."""
        return self.max_edge if self.max_edge is not None else self.bins.reach / 2

    def join(self, pattern: Pattern) -> Graph:
        """The graph of one image."""
        if self.graph == "nearest":
            return nearest(pattern, self.neighbours)
        if self.graph == "radius":
            return within(pattern, self.edge)
        return delaunay(pattern, max_length=self.edge)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, ready for every statistic.

    Parameters
    ----------
    pattern, graph
        Nuclei and neighbours.
    frame
        The rows of the nucleus table, in the order of the pattern.
    marks
        ``(n, D)`` embeddings in the same order, or None.
    settings, seed, n_jobs
        As given.
    """

    pattern: Pattern
    graph: Graph
    frame: pd.DataFrame
    marks: NDArray[np.floating] | None
    settings: Settings
    seed: int
    n_jobs: int


def _enrichment(sample: Sample) -> pd.DataFrame:
    return enrichment(
        sample.graph, sample.pattern, permutations=sample.settings.permutations,
        seed=sample.seed, n_jobs=sample.n_jobs,
    ).to_frame()  # fmt: skip


def _curve(statistic: str) -> Callable[[Sample], pd.DataFrame]:
    def run(sample: Sample) -> pd.DataFrame:
        settings = sample.settings
        return curve_test(
            sample.pattern, settings.bins, statistic, null=settings.null,
            n_simulations=settings.n_simulations, seed=sample.seed, n_jobs=sample.n_jobs,
        ).to_frame()  # fmt: skip

    return run


def _centrality(sample: Sample) -> pd.DataFrame:
    few = min(sample.settings.n_simulations, 99) if len(sample.pattern) <= 20_000 else 0
    return centrality(sample.graph, sample.pattern, permutations=few, seed=sample.seed)


def _moran(sample: Sample) -> pd.DataFrame:
    columns = [c for c in sample.frame.columns if str(c).startswith("f_")]
    values = sample.frame[columns].to_numpy(np.float64)
    return moran(sample.graph, values, tuple(columns))


def _marks(sample: Sample) -> NDArray[np.floating]:
    if sample.marks is None:
        raise CallError("statistics of embeddings need embedding=, one row per nucleus.")
    return sample.marks


def _mark_correlation(sample: Sample) -> pd.DataFrame:
    settings = sample.settings
    return mark_correlation(
        sample.pattern, _marks(sample), settings.bins, permutations=settings.n_simulations,
        seed=sample.seed, n_jobs=sample.n_jobs,
    ).to_frame()  # fmt: skip


def _coupling(sample: Sample) -> pd.DataFrame:
    return coupling(
        sample.graph, sample.pattern, _marks(sample),
        permutations=sample.settings.n_simulations, seed=sample.seed, n_jobs=sample.n_jobs,
    ).to_frame()  # fmt: skip


#: Name -> statistic of one image: a tidy table. A new statistic is one function and one row here.
STATISTICS: dict[str, Callable[[Sample], pd.DataFrame]] = {
    "enrichment": _enrichment,
    "centrality": _centrality,
    "k": _curve("k"),
    "pcf": _curve("pcf"),
    "g": _curve("g"),
    "co_occurrence": _curve("co_occurrence"),
    "moran": _moran,
    "mark_correlation": _mark_correlation,
    "coupling": _coupling,
}
#: Those computed when none are named; niches are learnt from all images together.
DEFAULT = ("enrichment", "centrality", "k", "co_occurrence", "moran", "niches")


def analyse(
    tables: NucleusTable | Sequence[NucleusTable],
    *,
    by: str = "type",
    tissue: Tissue | Mapping[str, Tissue] | None = None,
    statistics: Sequence[str] = DEFAULT,
    embedding: NDArray[np.floating] | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    n_jobs: int = 1,
) -> SpatialResult:
    """Who stands next to whom: spatial statistics of every image, each with its p.

    Parameters
    ----------
    tables
        Nuclei of one or more images. Images are never joined to each other.
    by
        Column that types the nuclei; those without a type are left out.
    tissue
        Where nuclei could have been, for all images or by image name: a ``Window``, a ``Region`` in
        pixels of level 0, or the image itself. None: the rectangle that the nuclei suggest.
    statistics
        Names in ``STATISTICS``, and ``"niches"``.
    embedding
        ``(n, D)``, row by row with the tables one after another; for ``mark_correlation`` and
        ``coupling``.
    settings
        Distances, graph, null.
    seed, n_jobs
        The number of jobs never changes the result.

    Returns
    -------
    SpatialResult

    Raises
    ------
    CallError
        An unknown statistic or column, or something needed that was not given.
    InputError
        No types, or coordinates do not exist in the asked unit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"id": range(200), "y": rng.random(200) * 300,
    ...     "x": rng.random(200) * 300, "type": ["a", "b"] * 100, "image": "tile"})
    >>> result = analyse(NucleusTable(frame), statistics=("enrichment",),
    ...     settings=Settings(reach="100px"))
    >>> len(result.to_frame("enrichment")), result.unit
    (4, 'px')
    """
    check_names(statistics)
    ready = prepare(
        tables, by=by, tissue=tissue, embedding=embedding, settings=settings, seed=seed,
        n_jobs=n_jobs,
    )  # fmt: skip
    return ready.compute(statistics)


def check_names(statistics: Sequence[str]) -> None:
    """Refuse statistics that there are not.

    >>> check_names(("enrichment", "niches"))
    """
    unknown = [s for s in statistics if s not in STATISTICS and s != "niches"]
    if unknown:
        raise CallError(f"no statistic {unknown[0]!r}; there are {', '.join(STATISTICS)}, niches.")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images ready for any statistic.

    Parameters
    ----------
    by
        Column that types the nuclei.
    samples
        One per image.
    settings, seed
        As given.
    notes
        What was left out, and what was assumed.
    """

    by: str
    samples: tuple[Sample, ...]
    settings: Settings
    seed: int
    notes: tuple[str, ...]

    def compute(
        self, statistics: Sequence[str] = DEFAULT, *, tell: Tell | None = None
    ) -> SpatialResult:
        """Statistics of every image.

        Parameters
        ----------
        statistics
            As for ``analyse``.
        tell
            Called before each statistic of each image with the share done and what comes next.

        Raises
        ------
        CallError
            An unknown statistic, or something needed that was not given.
        """
        check_names(statistics)
        notes, samples = list(self.notes), self.samples
        named = [s for s in statistics if s in STATISTICS]
        features = [c for s in samples for c in s.frame.columns if str(c).startswith("f_")]
        if "moran" in named and samples and not features:
            named.remove("moran")
            notes.append("Moran's I was left out: the table has no feature columns f_*.")
        found = _over_images(named, samples, tell)
        nuclei = _nuclei(samples, self.by)
        if "niches" in statistics:
            found["niches"] = _add_niches(samples, nuclei, self.settings, self.seed)
        patterns, graphs = tuple(s.pattern for s in samples), tuple(s.graph for s in samples)
        return SpatialResult(
            self.by, self.settings.unit, found, nuclei, patterns, graphs, tuple(notes)
        )


def prepare(
    tables: NucleusTable | Sequence[NucleusTable],
    *,
    by: str = "type",
    tissue: Tissue | Mapping[str, Tissue] | None = None,
    embedding: NDArray[np.floating] | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    n_jobs: int = 1,
) -> Prepared:
    """The first half of ``analyse``: every image's nuclei in their tissue, joined to a graph.

    Parameters, errors: as for ``analyse``.

    Examples
    --------
    >>> prepare([], settings=Settings(reach="100px")).samples
    ()
    """
    settings = settings or Settings()
    every = [tables] if isinstance(tables, NucleusTable) else list(tables)
    every, thin = _as_seen(every, settings)
    frame = pd.concat([NucleusTable.empty().frame, *(t.frame for t in every)], ignore_index=True)
    if embedding is not None and len(embedding) != len(frame):
        raise InputError(f"{len(embedding)} embeddings for {len(frame)} nuclei.")
    notes = list(thin)
    samples = []
    for pattern in patterns_of(every, by=by, unit=settings.unit):
        ready = _prepared(pattern, frame, tissue, settings, notes)
        assert ready.rows is not None  # noqa: S101  set at construction
        marks = None if embedding is None else embedding[ready.rows]
        rows = frame.iloc[ready.rows]
        samples.append(Sample(ready, settings.join(ready), rows, marks, settings, seed, n_jobs))
    return Prepared(by, tuple(samples), settings, seed, tuple(notes))


def _as_seen(
    tables: list[NucleusTable], settings: Settings
) -> tuple[list[NucleusTable], tuple[str, ...]]:
    """Tables without their z where stacks are analysed from above, and a note of it."""
    depth = max(map(_depth, tables), default=0.0)
    thin = settings.unit == "um" and 0 < depth < settings.bins.reach
    if not (thin if settings.flat is None else settings.flat):
        return tables, ()
    seen = [
        NucleusTable(t.frame.drop(columns="z_um", errors="ignore").assign(z=np.nan)) for t in tables
    ]
    if not thin:
        return seen, ("Nuclei of stacks are analysed as seen from above, as asked for.",)
    return seen, (
        f"The stacks are {depth:.0f} um deep, less than the reach of {settings.reach}, so nuclei "
        "are analysed as seen from above.",
    )


def _depth(table: NucleusTable) -> float:
    """Extent of a table's nuclei along z in um; 0 in a plane."""
    if "z_um" not in table.frame.columns or not table.frame["z_um"].notna().any():
        return 0.0
    return float(table.frame["z_um"].max() - table.frame["z_um"].min())


def _over_images(
    names: Sequence[str], samples: Sequence[Sample], tell: Tell | None
) -> dict[str, pd.DataFrame]:
    """Every statistic of every image, the images of a statistic one below another."""
    found = {}
    for done, name in enumerate(names):
        parts = []
        for number, sample in enumerate(samples):
            if tell is not None:
                share = (done + number / len(samples)) / len(names)
                tell(share, f"{name} {sample.pattern.image}")
            part = STATISTICS[name](sample)
            part.insert(0, "image", sample.pattern.image)
            parts.append(part)
        found[name] = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"image": []})
    return found


def _prepared(
    pattern: Pattern,
    frame: pd.DataFrame,
    tissue: Tissue | Mapping[str, Tissue] | None,
    settings: Settings,
    notes: list[str],
) -> Pattern:
    """The pattern in its window, with its strata."""
    where = f"{pattern.image}: " if pattern.image else ""
    window = _window_of(pattern, frame, tissue, settings.unit)
    if window is None:
        notes.append(f"{where}no tissue was given, so the rectangle of the nuclei stands for it.")
        ready = pattern.with_window()
    else:
        ready = pattern.inside(window)
        if len(ready) < len(pattern):
            n = len(pattern) - len(ready)
            notes.append(f"{where}{n} of {len(pattern)} nuclei lie outside the tissue, left out.")
    assert ready.window is not None  # noqa: S101  given above
    side = float(ready.window.extent[-2:].min())
    if settings.bins.reach > side / 2:
        notes.append(
            f"{where}the tissue is {side:.0f} {settings.unit} across; curves beyond a quarter of "
            f"that say little, take a shorter reach than {settings.reach}."
        )
    if settings.strata is None:
        return ready
    if settings.strata == "density":
        return replace(ready, strata=density_strata(ready, radius=settings.edge))
    if settings.strata not in frame.columns:
        raise CallError(f"no column {settings.strata!r} to take strata from.")
    assert ready.rows is not None  # noqa: S101  set at construction
    codes, _ = pd.factorize(frame[settings.strata].iloc[ready.rows].astype(str), sort=True)
    return replace(ready, strata=codes.astype(np.int64))


def _window_of(
    pattern: Pattern,
    frame: pd.DataFrame,
    tissue: Tissue | Mapping[str, Tissue] | None,
    unit: str,
) -> Window | None:
    given = tissue.get(pattern.image) if isinstance(tissue, Mapping) else tissue
    if given is None:
        return None
    if isinstance(given, Volume):
        if unit == "px":
            raise CallError("tissue found in an image is in um; give lengths in um as well.")
        given = tissue_of(given)
    if isinstance(given, Region):
        given = Window.from_region(given, mpp=None if unit == "px" else _mpp(pattern, frame))
    if pattern.n_dims == 2 and given.n_dims == 3:
        return given.from_above()
    if pattern.n_dims == 3 and given.n_dims == 2:
        slab = Window.around(pattern.at, unit)
        return given.extruded(slab.corner[0], slab.corner[0] + slab.extent[0])
    return given


def _mpp(pattern: Pattern, frame: pd.DataFrame) -> float:
    """Micrometres per pixel of an image, from the two sets of coordinates its table has."""
    assert pattern.rows is not None  # noqa: S101  set at construction
    rows = frame.iloc[pattern.rows]
    px = rows[["y", "x"]].to_numpy(np.float64)
    um = rows[["y_um", "x_um"]].to_numpy(np.float64)
    power = float((px**2).sum())
    mpp = float((px * um).sum()) / power if power > 0 else 0.0
    if mpp <= 0 or not np.allclose(um, px * mpp, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"{pattern.image}: x_um and y_um are not one pixel size times x and y, so a region in "
            "pixels cannot be placed; give the tissue as a Window in um."
        )
    return mpp


def _nuclei(samples: Sequence[Sample], by: str) -> pd.DataFrame:
    parts = []
    for sample in samples:
        pattern = sample.pattern
        part = sample.frame[["image", "id"]].reset_index(drop=True)
        part["row"] = pattern.rows
        part[by] = np.array(pattern.names, object)[pattern.codes]
        part["degree"] = sample.graph.degrees
        near = composition(sample.graph, pattern)
        for code, name in enumerate(pattern.names):
            part[f"near_{name}"] = near[:, code]
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"image": [], "id": []})


def _add_niches(
    samples: Sequence[Sample], nuclei: pd.DataFrame, settings: Settings, seed: int
) -> pd.DataFrame:
    names = samples[0].pattern.names if samples else ()
    around = [composition(s.graph, s.pattern, with_self=True) for s in samples]
    found = niches(around, names, n=settings.n_niches, seed=seed)
    nuclei["niche"] = np.concatenate([np.zeros(0, np.int64), *found.members])
    return found.to_frame()
