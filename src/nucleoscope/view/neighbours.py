"""Spatial statistics from the files of a run to tables and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.progress import bar
from nucleoscope.flow.run import Run, hash_of
from nucleoscope.io import guard
from nucleoscope.io.atlas import TABLE, is_atlas, read_atlas, read_atlas_table
from nucleoscope.io.guard import write_text
from nucleoscope.io.outlines import read_region
from nucleoscope.io.tables import read_table, write_csv
from nucleoscope.spatial import Settings, SpatialResult
from nucleoscope.spatial.analysis import DEFAULT, check_names, prepare
from nucleoscope.view.spatial import curve_plot, enrichment_map, niche_map

__all__ = ["analyse_files"]

#: Curves that are drawn, with their question.
CURVES = {
    "k": "Up to which distance do two types attract (above the grey) or avoid each other (below)?",
    "co_occurrence": "How much likelier is one type within this distance of the other?",
}
#: How a curve is read.
_HOW = (
    "Curves: orange is what was found, grey what chance gives (95 % envelope over all distances at "
    "once, one p per curve), dashed the value without any order. A curve means something where it "
    "leaves the grey."
)
#: Statistics of embeddings.
EMBEDDED = {"mark_correlation", "coupling"}
#: At most this many curves per image and statistic.
MOST_CURVES = 9
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:82rem;margin:2rem auto;padding:0 1rem}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #ddd}h3{margin:1.5rem 0 0;font-size:1em}"
    "section{display:grid;grid-template-columns:repeat(auto-fill,minmax(25rem,1fr));gap:.5rem}"
    "figure{margin:.5rem 0}svg{max-width:100%;height:auto}"
    "figcaption{color:#555;font-size:.9em;max-width:26rem}"
)


def analyse_files(
    results: str | Path,
    output: str | Path,
    *,
    by: str = "type",
    tissue: str | Path | None = None,
    statistics: Sequence[str] = DEFAULT,
    settings: Settings | None = None,
    seed: int = 0,
    jobs: int = 1,
) -> SpatialResult:
    """Analyse who stands next to whom in results of ``detect`` or an atlas; write tables, a page.

    Parameters
    ----------
    results
        ``OUT`` of ``detect``, an ``ATLAS`` folder (then ``by="subtype"`` works too), or one table
        of nuclei.
    output
        A new folder: one CSV per statistic, ``nuclei.csv`` (neighbours and niche of every nucleus),
        ``spatial.html`` and ``run.json``.
    by
        Column that types the nuclei.
    tissue
        GeoJSON or ImageJ outline of the tissue, for all images. Default: each image's own region,
        as ``detect`` recorded it; without one the rectangle of the nuclei stands for it.
    statistics, settings, seed, jobs
        As for ``nucleoscope.spatial.analyse``. ``mark_correlation`` and ``coupling`` take the
        embeddings of an atlas.

    Returns
    -------
    SpatialResult

    Raises
    ------
    CallError
        The folder is not empty, or embeddings are needed and ``results`` is not an atlas.
    InputError
        No table of nuclei there, or nuclei without types.
    """
    folder, source = Path(output), Path(results)
    if folder.exists() and any(folder.iterdir()):
        raise CallError(f"{folder}: it is not empty; give another folder.")
    check_names(statistics)
    tables, regions, files = _read(source)
    embedding = _embedding(source) if set(statistics) & EMBEDDED else None
    window = read_region(tissue) if tissue is not None else (regions or None)
    settings = settings or Settings()
    run = Run("spatial", {
        "by": by, "seed": seed, "tissue": None if tissue is None else str(tissue),
        "statistics": list(statistics), **asdict(settings),
    })  # fmt: skip
    run.inputs = [{"path": str(file), "sha256": hash_of(file)} for file in files]
    ready = prepare(
        tables, by=by, tissue=window, embedding=embedding, settings=settings, seed=seed,
        n_jobs=jobs,
    )  # fmt: skip
    with bar("spatial") as tell:
        result = ready.compute(statistics, tell=tell)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in result.tables.items():
        write_csv(frame, folder / f"{name}.csv")
    write_csv(result.nuclei, folder / "nuclei.csv")
    write_text(folder / "spatial.html", render(result))
    run.finish(folder, notes=list(result.notes), unit=result.unit)
    return result


def _read(source: Path) -> tuple[list[NucleusTable], dict[str, Region], list[Path]]:
    """Tables, the regions recorded for their images, and the files read."""
    if source.is_dir() and is_atlas(source):
        return [read_atlas_table(source)], {}, [source / TABLE]
    found = sorted(source.glob("*/nuclei.parquet")) if source.is_dir() else [source]
    if not found:
        raise InputError(
            f"{source}: no <image>/nuclei.parquet and no atlas in it; run detect first, or embed."
        )
    regions: dict[str, Region] = {}
    manifest = source / "run.json"
    if source.is_dir() and manifest.is_file():
        for entry in guard.read_json(manifest).get("inputs", []):
            roi = entry.get("roi")
            if roi and Path(roi).is_file():
                regions[str(entry["name"])] = read_region(roi)
    if len(regions) < len(found):
        regions = {}
    return [read_table(path) for path in found], regions, found


def _embedding(source: Path) -> NDArray[np.float32]:
    """The vectors of an atlas, row by row with its table."""
    if not (source.is_dir() and is_atlas(source)):
        raise CallError(f"{source}: statistics of embeddings need an ATLAS folder; run embed.")
    return read_atlas(source).embedding.astype(np.float32)


def render(result: SpatialResult) -> str:
    """One page: enrichment and curves per image, and what had to be assumed."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    images = list(dict.fromkeys(str(image) for image in result.nuclei["image"]))
    body = "".join(
        f"<h2>{escape(image)}</h2>{''.join(_sections(result, image))}" for image in images
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<title>Who stands next to whom</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style>'
        f"<h1>Who stands next to whom</h1><p>{len(result.nuclei):,} nuclei in "
        f"{_images(len(images))}, by {escape(result.by)}; "
        f"distances in {result.unit}.</p><ul>{notes}</ul><p>{_HOW}</p>"
        f"{body}</html>\n"
    )


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def _sections(result: SpatialResult, image: str) -> Iterator[str]:
    """Maps and enrichment of an image, then a row of curves per statistic."""
    yield f"<section>{''.join(_overview(result, image))}</section>"
    for statistic, question in CURVES.items():
        if statistic not in result.tables:
            continue
        pairs, n = _clearest(result, statistic, image)
        more = (
            f" The {len(pairs)} clearest of {n}; all are in {statistic}.csv."
            if n > len(pairs)
            else ""
        )
        yield f"<h3>{escape(question)}{more}</h3><section>"
        for a, b in pairs:
            yield _figure(curve_plot(result, statistic, a, b, image=image), "")
        yield "</section>"


def _overview(result: SpatialResult, image: str) -> Iterator[str]:
    maps = {result.by: "Where the nuclei are."}
    maps["niche"] = "Nuclei by what surrounds them; niches.csv says what each niche holds."
    for column, caption in maps.items():
        if column in result.nuclei:
            yield _figure(niche_map(result, image=image, column=column, side=320), caption)
    if "enrichment" in result.tables:
        yield _figure(
            enrichment_map(result, image=image),
            "Do two types touch more often (red) or less often (blue) than chance? log2 of "
            "observed over expected contacts; a dot where q is below 0.05.",
        )


def _clearest(
    result: SpatialResult, statistic: str, image: str
) -> tuple[list[tuple[str, str]], int]:
    """Pairs of types whose curves are drawn, in the order of types, and how many there are.

    The smallest p first; of equal ones the curve that is furthest out of its envelope, in widths.
    """
    frame = result.to_frame(statistic)
    frame = frame[(frame["image"] == image) & (frame["type_a"] <= frame["type_b"])]
    out = np.maximum(frame["observed"] - frame["high"], frame["low"] - frame["observed"])
    width = (frame["high"] - frame["low"]).where(lambda w: w > 0)
    ranked = (
        frame.assign(out=-out / width)
        .groupby(["type_a", "type_b"], sort=True)[["p", "out"]]
        .min()
        .sort_values(["p", "out"], kind="stable")
    )
    kept = sorted((str(a), str(b)) for a, b in ranked.index[:MOST_CURVES])
    return kept, len(ranked)


def _figure(svg: str, caption: str) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>"
