"""What an analysis returns: tidy tables, one row per nucleus, and an AnnData on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError, MissingExtraError
from nucleoscope.spatial.graph import Graph
from nucleoscope.spatial.pattern import Pattern


class Keys:
    """Where squidpy looks things up; the only place these names are written."""

    SPATIAL = "spatial"
    CONNECTIVITIES = "spatial_connectivities"
    DISTANCES = "spatial_distances"
    NEIGHBORS = "spatial_neighbors"
    MORAN = "moranI"

    @staticmethod
    def of(by: str, what: str) -> str:
        """``{column}_{statistic}``."""
        return f"{by}_{what}"


@dataclass(frozen=True, eq=False)
class SpatialResult:
    """Spatial statistics of one or more images.

    Parameters
    ----------
    by
        The column that typed the nuclei.
    unit
        Unit of every length in the tables, ``"um"`` or ``"px"``.
    tables
        Name of a statistic -> tidy table with a column ``image``; every row has its p where the
        statistic has one.
    nuclei
        One row per analysed nucleus: image, id, row (in the tables given), type, degree, one
        ``near_<type>`` column per type, and ``niche``, ``residual`` where asked for.
    patterns, graphs
        What the statistics were computed from, one per image.
    notes
        What had to be decided or left out, one sentence each.
    """

    by: str
    unit: str
    tables: Mapping[str, pd.DataFrame]
    nuclei: pd.DataFrame
    patterns: tuple[Pattern, ...] = ()
    graphs: tuple[Graph, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_frame(self, statistic: str) -> pd.DataFrame:
        """The table of one statistic.

        Raises
        ------
        CallError
            It was not computed; the message lists those there are.
        """
        if statistic not in self.tables:
            listed = ", ".join(self.tables) or "none"
            raise CallError(f"no table {statistic!r} in this result; there are {listed}.")
        return self.tables[statistic]

    def matrix(self, statistic: str, value: str, image: str | None = None) -> pd.DataFrame:
        """``value`` of every ordered pair of types as a square table."""
        frame = self.to_frame(statistic)
        if image is not None:
            frame = frame[frame["image"] == image]
        return frame.pivot_table(index="type_a", columns="type_b", values=value, dropna=False)

    def to_anndata(self) -> Any:
        """The nuclei and results as an ``anndata.AnnData`` with squidpy's names.

        ``obsm["spatial"]`` holds ``(x, y)`` as squidpy plots it (``(x, y, z)`` for stacks),
        ``obsp`` the graph, ``uns`` the enrichment, interactions, centralities, co-occurrence and
        Moran's I of the first image.

        Raises
        ------
        MissingExtraError
            anndata is not installed.
        """
        try:
            import anndata  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingExtraError("to_anndata()", "spatial") from error
        obs = self.nuclei.copy()
        obs.index = pd.Index([f"{i}:{n}" for i, n in zip(obs["image"], obs["id"], strict=True)])
        if self.by in obs.columns:
            obs[self.by] = pd.Categorical(obs[self.by], categories=list(self._names()))
        data = anndata.AnnData(obs=obs)
        if self.patterns:
            at = np.concatenate([p.at for p in self.patterns])
            data.obsm[Keys.SPATIAL] = np.ascontiguousarray(at[:, ::-1])
            self._put_graph(data)
        for key, value in self._squidpy_tables().items():
            data.uns[key] = value
        return data

    def _names(self) -> tuple[str, ...]:
        return self.patterns[0].names if self.patterns else ()

    def _put_graph(self, data: Any) -> None:
        from scipy.sparse import block_diag

        ones = [g.to_csr() for g in self.graphs]
        lengths = [g.to_csr(g.lengths) for g in self.graphs]
        data.obsp[Keys.CONNECTIVITIES] = block_diag(ones, format="csr")
        data.obsp[Keys.DISTANCES] = block_diag(lengths, format="csr")
        data.uns[Keys.NEIGHBORS] = {
            "connectivities_key": Keys.CONNECTIVITIES,
            "distances_key": Keys.DISTANCES,
            "params": {},
        }

    def _square(self, statistic: str, value: str, image: str) -> NDArray[np.float64]:
        frame = self.tables[statistic]
        k = len(self._names())
        values = frame.loc[frame["image"] == image, value].to_numpy(np.float64)
        return values.reshape(k, k, -1)

    def _squidpy_tables(self) -> dict[str, Any]:
        if not self.patterns:
            return {}
        image = self.patterns[0].image
        found: dict[str, Any] = {}
        if "enrichment" in self.tables:
            z, count = (self._square("enrichment", v, image)[..., 0] for v in ("z", "count"))
            found[Keys.of(self.by, "nhood_enrichment")] = {"zscore": z, "count": count}
            found[Keys.of(self.by, "interactions")] = count
        if "co_occurrence" in self.tables:
            frame = self.tables["co_occurrence"]
            radii = np.unique(frame.loc[frame["image"] == image, "r"].to_numpy(np.float64))
            found[Keys.of(self.by, "co_occurrence")] = {
                "occ": self._square("co_occurrence", "observed", image),
                "interval": np.concatenate([[0.0], radii]),
            }
        if "centrality" in self.tables:
            frame = self.tables["centrality"]
            mine = frame[frame["image"] == image].set_index("type")
            names = {"degree": "degree_centrality", "clustering": "average_clustering",
                     "closeness": "closeness_centrality"}  # fmt: skip
            found[Keys.of(self.by, "centrality_scores")] = mine[list(names)].rename(columns=names)
        if "moran" in self.tables:
            frame = self.tables["moran"]
            mine = frame[frame["image"] == image].set_index("feature")
            found[Keys.MORAN] = mine[["i", "p", "sd"]].rename(columns={"i": "I", "p": "pval_norm"})
        return found
