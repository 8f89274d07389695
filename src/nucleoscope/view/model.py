"""What a report is made of: the run and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nucleoscope.data.labels import Labels
from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError

__all__ = ["ReportImage", "ReportRun"]


@dataclass(frozen=True, eq=False)
class ReportImage:
    """One image and what was found in it.

    Parameters
    ----------
    name
        What the page calls it.
    volume, labels
        The image and its instance map, of the same ``(Z, Y, X)``.
    table
        Its nuclei; ``id`` is the value in ``labels``.
    truth
        An annotator's clicks, or None.
    region
        Where nuclei were looked for, or None for the whole image.
    scores
        Figures against the truth: ``{"detection": {"precision": ..., "recall": ..., "f1": ...},
        "types": {"positive": {...}}}``, named tuples as well, further groups and single figures
        allowed. None computes these two from ``truth`` (``truth_scores``).
    nuclei
        Name of the nuclear stain; None looks for a usual one.
    notices
        Sentences the reader of the page must see.

    Raises
    ------
    InputError
        The instance map does not have the image's shape.
    """

    name: str
    volume: Volume
    labels: Labels
    table: NucleusTable
    truth: Points | None = None
    region: Region | None = None
    scores: Mapping[str, Any] | None = None
    nuclei: str | None = None
    notices: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.labels.shape != self.volume.shape:
            raise InputError(
                f"{self.name}: the instance map is {self.labels.shape} "
                f"but the image is {self.volume.shape} (Z, Y, X)."
            )


@dataclass(frozen=True, eq=False)
class ReportRun:
    """What made the results.

    Parameters
    ----------
    title
        Heading of the page.
    facts
        Name and value of what a reader may want to know or cite: recipe, model, versions, seed,
        timings. Shown in this order.
    history
        Training figures, one mapping per logged step: ``step``, losses (keys with ``loss``) and
        validation figures (keys with ``f1``); or None.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, object]] | None = None
