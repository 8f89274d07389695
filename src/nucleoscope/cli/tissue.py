"""Verbs from nuclei to tissue: encoders, atlases, neighbours."""

from __future__ import annotations

from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

from nucleoscope.cli.flags import Images, Json, Mpp, Overwrite, Quiet, numbers_of, say
from nucleoscope.errors import CallError

Atlas = Annotated[Path, typer.Argument(metavar="ATLAS", help="Folder of embed.")]
NucleiFiles = Annotated[
    list[Path], typer.Option("--nuclei", help="Outlines, instance map or centres per image.")
]


def train_encoder(
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder.")],
    nuclei: NucleiFiles,
    recipe: Annotated[str, typer.Option(help="nuc2vec or nuc2vec-paper.")] = "nuc2vec",
    encoder: Annotated[str | None, typer.Option(help="Encoder by name, or timm:NAME.")] = None,
    loss: Annotated[str | None, typer.Option(help="Loss instead of the recipe's.")] = None,
    minutes: Annotated[float, typer.Option(help="Longest training time.")] = 30.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    most: Annotated[int, typer.Option(min=2, help="Nuclei held in memory.")] = 60_000,
    mpp: Mpp = None,
    seed: Annotated[int, typer.Option(help="Of weights and draws.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder of nuclei without labels."""
    from nucleoscope.flow.nuc2vec import train_encoder as run

    model = run(
        images, output, nuclei=nuclei, recipe=recipe, encoder=encoder, loss=loss, minutes=minutes,
        steps=steps, most=most, mpp=mpp, seed=seed, resume=resume, overwrite=overwrite,
        quiet=quiet or as_json,
    )  # fmt: skip
    figures = {k: v for k, v in model.config.training.items() if k != "history"}
    say(f"encoder in {output}", {"model": str(output)} | figures, as_json=as_json, quiet=quiet)


def embed(
    images: Images,
    model: Annotated[
        Path, typer.Option("-m", "--model", help="Encoder's folder, or nuc2vec-small.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="ATLAS folder.")],
    nuclei: NucleiFiles,
    mpp: Mpp = None,
    features: Annotated[
        bool, typer.Option("--features/--no-features", help="Measure features too.")
    ] = True,
    batch: Annotated[int, typer.Option(min=1, help="Crops at a time.")] = 256,
    fast: Annotated[
        bool, typer.Option("--fast", help="In bfloat16, where that is faster.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give every nucleus its vector, and make an atlas of them."""
    from nucleoscope.flow.nuc2vec import embed as run

    atlas = run(
        images, model, output, nuclei=nuclei, mpp=mpp, features=features, batch=batch,
        fast=fast, overwrite=overwrite, quiet=quiet or as_json,
    )  # fmt: skip
    facts = {"output": str(output), "nuclei": len(atlas), "dimensions": atlas.embedding.shape[1]}
    say(f"{len(atlas)} nuclei in {output}", facts, as_json=as_json, quiet=quiet)


def subtypes(
    atlas: Atlas,
    levels: Annotated[str, typer.Option(help="About so many subtypes, coarse to fine.")] = (
        "8,25,80"
    ),
    seed: Annotated[int, typer.Option(help="Same seed, same subtypes and map.")] = 0,
    reference: Annotated[
        Path | None, typer.Option(help="ATLAS whose subtypes are passed on.")
    ] = None,
    method: Annotated[str, typer.Option(help="2D map: auto, umap, pca or none.")] = "auto",
    n_landmarks: Annotated[int, typer.Option(help="Nuclei the map is fitted on.")] = 100_000,
    n_replicates: Annotated[int, typer.Option(help="Bootstrap of the stability.")] = 10,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Group nuclei into subtypes and describe them in plain words."""
    from nucleoscope.flow.atlas import subtypes as run

    if method not in ("auto", "umap", "pca", "none"):
        raise CallError(f"--method is auto, umap, pca or none; found {method!r}.")
    result = run(
        atlas, levels=numbers_of(levels, "--levels"), seed=seed, reference=reference,
        method=method, n_landmarks=n_landmarks, n_replicates=n_replicates,  # type: ignore[arg-type]
    )  # fmt: skip
    levels_found = result.report["levels"]
    lines = [f"level {level['level']}: {level['found']} subtypes" for level in levels_found]
    for level in levels_found[:1]:
        lines += [f"  {card['name']}: {card['text']}" for card in level["subtypes"]]
    say("\n".join(lines), {"atlas": str(atlas), "levels": levels_found},
        as_json=as_json, quiet=quiet)  # fmt: skip


def transfer(
    atlas: Atlas,
    reference: Annotated[
        Path, typer.Option(metavar="ATLAS|TABLE", help="Typed atlas, or types of some nuclei.")
    ],
    seed: Annotated[int, typer.Option(help="Of the sample that says what is novel.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give nuclei the types of those that look alike, or none."""
    from nucleoscope.flow.atlas import transfer as run

    frame = run(atlas, reference=reference, seed=seed).table.frame
    counts = frame["type"].replace("", "(none)").value_counts().to_dict()
    text = "\n".join(f"{name}: {n}" for name, n in counts.items())
    say(text, {"atlas": str(atlas), "types": counts}, as_json=as_json, quiet=quiet)


def search(
    atlas: Atlas,
    nucleus: Annotated[str, typer.Option(help="Its id, or IMAGE:ID.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 24,
    image: Annotated[str | None, typer.Option(help="Image of the nucleus.")] = None,
    only_image: Annotated[str | None, typer.Option(help="Look in this image only.")] = None,
    only_type: Annotated[str | None, typer.Option(help="Look at this type only.")] = None,
    seed: Annotated[int, typer.Option(help="Of the index, where it is made.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the nuclei that look most like one."""
    from nucleoscope.flow.atlas import search as run

    found = run(
        atlas, nucleus=nucleus, k=k, image=image, only_image=only_image, only_type=only_type,
        seed=seed,
    )  # fmt: skip
    say(found.to_string(index=False), {"nuclei": found.to_dict("records")},
        as_json=as_json, quiet=quiet)  # fmt: skip


def certify(
    atlas: Atlas,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="HTML file.")] = None,
    types: Annotated[Path | None, typer.Option(help="Table of types, where it has none.")] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Another embedding, as Parquet; repeatable."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="Encoder, to see what it notices.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="A test slide; repeatable.")] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2.")] = "0,1,2",
    labels: Annotated[str, typer.Option(help="Such as 100,1000.")] = "100,1000",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge the embedding of an atlas between slides."""
    from nucleoscope.view.certificate import certify as run

    pairs = [text.partition("=") for text in embedding or []]
    if any(not name or not file for name, _, file in pairs):
        raise CallError("--embedding is NAME=FILE, such as UNI=uni.parquet.")
    found = run(
        atlas, output, types=types, embedding={name: Path(file) for name, _, file in pairs},
        model=model, test=test, seeds=numbers_of(seeds, "--seeds"),
        labels=numbers_of(labels, "--labels"), overwrite=overwrite,
    )  # fmt: skip
    summary = found.summary().set_index("embedding")
    lines = [
        f"{name}: kNN {row['knn_f1']:.3f}, linear {row['linear_f1']:.3f}"
        for name, row in summary.iterrows()
    ]
    facts = {"output": str(output) if output else None, "figures": summary.to_dict("index")}
    say("\n".join(lines + ([f"page in {output}"] if output else [])), facts,
        as_json=as_json, quiet=quiet)  # fmt: skip


def spatial(
    results: Annotated[
        Path, typer.Argument(metavar="OUT|ATLAS|TABLE", help="OUT of detect, ATLAS or table.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    by: Annotated[str, typer.Option(help="Column that types the nuclei.")] = "type",
    tissue: Annotated[Path | None, typer.Option(help="Outline of the tissue.")] = None,
    reach: Annotated[str, typer.Option(help="Longest distance, 100um or 200px.")] = "100um",
    statistics: Annotated[
        str | None,
        typer.Option(
            help="Some of enrichment, centrality, k, pcf, g, co_occurrence, moran, niches; of "
            "an ATLAS also mark_correlation, coupling. Default: all but pcf, g and those."
        ),
    ] = None,
    null: Annotated[
        str,
        typer.Option(
            help="What chance means for curves: labelling, labelling-exact, "
            "'labelling within strata', csr, shift."
        ),
    ] = "labelling",
    strata: Annotated[
        str | None,
        typer.Option(help="Deal types out within this column of the tables only, or 'density'."),
    ] = None,
    simulations: Annotated[int, typer.Option(min=19, help="Simulations per curve.")] = 199,
    permutations: Annotated[
        int, typer.Option(min=0, help="Check the enrichment with so many; 0: closed form.")
    ] = 0,
    flat: Annotated[
        bool | None,
        typer.Option(
            "--flat/--deep", help="Stacks from above, or in 3D. Default: thin ones from above."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same p.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Threads; they change no figure.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure who stands next to whom."""
    from nucleoscope.spatial import Settings
    from nucleoscope.spatial.analysis import DEFAULT
    from nucleoscope.view.neighbours import analyse_files as run

    settings = Settings(
        reach=reach, null=_null_of(null, strata), strata=strata, n_simulations=simulations,
        permutations=permutations, flat=flat,
    )  # fmt: skip
    named = tuple(name.strip() for name in statistics.split(",")) if statistics else DEFAULT
    # The bar is drawn on a terminal only; a quiet call has none.
    with redirect_stderr(StringIO()) if quiet or as_json else nullcontext():
        result = run(
            results, output, by=by, tissue=tissue, statistics=named, settings=settings, seed=seed,
            jobs=jobs,
        )  # fmt: skip
    facts = {"output": str(output), "nuclei": len(result.nuclei), "notes": list(result.notes)}
    text = "\n".join([*result.notes, f"tables and spatial.html in {output}"])
    say(text, facts, as_json=as_json, quiet=quiet)


def _null_of(null: str, strata: str | None) -> str:
    """With strata, labels are dealt out within them for curves as well."""
    return "labelling within strata" if strata and null == "labelling" else null
