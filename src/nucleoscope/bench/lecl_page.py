"""The page of ``bench lecl``: tables, pictures, claims, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from nucleoscope.bench import lecl_read as read
from nucleoscope.bench import trials
from nucleoscope.bench.frame import Budget, Records, Run, is_outdated, provenance
from nucleoscope.bench.lecl_claims import ORDERED, aji_share, claims
from nucleoscope.bench.lecl_read import Results, figure_text, interval_text
from nucleoscope.metrics.spread import Spread, spread_of_values
from nucleoscope.view.curves import Dot, Series, curves_svg, dots_svg
from nucleoscope.view.page import Block, Code, Page, Picture, Section, Table

#: Rows of Table 1: part, variant, label.
ROWS = (
    ("plaque", "mip", "mip"),
    ("plaque", "emip", "emip"), ("plaque", "emip+united", "emip, united as published"),
    ("plaque", "qu", "qu"), ("plaque", "qu+united", "qu, united as published"),
    ("plaque", "lecl-paper", "lecl-paper"),
    ("plaque", "lecl-paper+united", "lecl-paper, united as published"),
    ("plaque", "full", "full"), ("plaque", "classical", "classical"), ("plaque", "lecl", "lecl"),
    ("default", "lecl", "lecl, default minutes"),
)  # fmt: skip
#: Moradinasab et al. 2023, Table 1: NP and NC, precision, recall, F1 on their D1, then D2.
PUBLISHED = (
    ("HoVer-Net (MIP)", "NP", ".8898", ".8894", ".8883", ".9233", ".8455", ".8816"),
    ("HoVer-Net (MIP)", "NC", ".6608", ".8511", ".7424", ".7150", ".6663", ".6703"),
    ("HoVer-Net (EMIP)", "NP", ".8551", ".9353", ".8880", ".9064", ".8743", ".8894"),
    ("HoVer-Net (EMIP)", "NC", ".7694", ".7800", ".7718", ".8114", ".7718", ".7760"),
    ("Qu et al. (EMIP)", "NP", ".7774", ".8489", ".8084", ".6525", ".877", ".7431"),
    ("Qu et al. (EMIP)", "NC", ".8548", ".6048", ".6881", ".8140", ".5749", ".6577"),
    ("LECL", "NP", ".8764", ".9154", ".8942", ".9215", ".877", ".8978"),
    ("LECL", "NC", ".8277", ".7668", ".7890", ".8392", ".7840", ".7953"),
)
FIGURES = ("precision", "recall", "f1")
BRANCHES = (("NP", ""), ("NC", "positive"))
UNIT = (0.0, 1.0)


def render(budget: Budget, runs: Sequence[Run], records: Records, left: Mapping[str, str]) -> Page:
    """The page that the finished runs allow; what they do not is named at its end."""
    results = Results(runs, records)
    lead = (
        f"{len(records)} of {len(runs)} runs are finished. Every network is the same (light) and "
        f"is trained for {_budget_text(budget)}; figures are means over seeds with their standard "
        "deviation."
    )
    sections = (
        _how(budget, records),
        Section("What it is held to", (claims(results),)),
        Section("Table 1: recipes on the plaque stacks", tuple(_table_1(results))),
        Section("Calibration and z", tuple(_calibration(results))),
        Section("What the default's choices are worth", tuple(_ablation(results))),
        Section("Number of points", tuple(_points(results))),
        Section("Markers at other z", tuple(_rates(results))),
        Section("Harder stacks", tuple(_harder(results))),
        Section("Table 2: H&E with and without contrast", tuple(_table_2(results))),
        Section("Outlines from points", tuple(_outlines(results))),
        Section("Cost", tuple(_cost(results))),
        _missing(runs, records, left),
    )
    return Page("Results: recipes, points and contrast", lead, sections)


def _budget_text(budget: Budget) -> str:
    """The budget in words."""
    return f"{budget.minutes:g} minutes" if budget.steps is None else f"{budget.steps} steps"


def _how(budget: Budget, records: Records) -> Section:
    """The command, and how the figures were made."""
    limit = (
        f" --steps {budget.steps}"
        if budget.steps is not None
        else (f" --minutes {budget.minutes:g}" if budget.minutes != Budget().minutes else "")
    )
    seeds = (
        ""
        if budget.seeds == Budget().seeds
        else " --seeds " + ",".join(str(seed) for seed in budget.seeds)
    )
    return Section(
        "How it is made",
        (
            Code(f"nucleoscope bench lecl --data DIR --docs docs{limit}{seeds}"),
            "A training begins from a random network and sees d1_train (or the other images "
            "named) only; working point, marker rule and calibration come from these too. "
            "NP is the detection of all nuclei, NC that of the positive ones, matched within 15 "
            "px, one to one, most pairs first, inside the outlined region. Intervals are 95 % "
            "percentile bootstrap, seeds and images drawn anew together; with two or four images "
            "they are too narrow. Minutes are those of the training loop on the machine named, so "
            "another machine gives other numbers of steps.",
            provenance(records),
        ),
    )  # fmt: skip


def _table_1(results: Results) -> Iterator[Block]:
    """Both cohorts, both ways of matching, a picture, the published figures."""
    for group in trials.COHORTS:
        yield Table(
            (f"{group}", "branch", "precision", "recall", "F1", "interval of F1", "seeds"),
            tuple(_rows_1(results, group)),
        )
    dots = [
        Dot(label, spread.mean, spread.low, spread.high)
        for part, what, label in ROWS
        if (spread := read.scored(results.groups(part, what, "d2_dev"), "positive")).n
    ]
    if dots:
        title = "Positive nuclei on the shifted cohort (d2_dev)"
        svg = dots_svg(title, dots, x_label="F1 of the positive class, 95 % interval")
        yield Picture("recipes", svg, title)
    yield (
        "The same as the paper counts it: greedy matching in raster order, the mean of each "
        "image's figure. The mean of F1 over images is not the F1 of the mean precision and recall."
    )
    for group in trials.COHORTS:
        yield Table(
            (f"{group}, greedy, mean of images", "branch", "precision", "recall", "F1", "seeds"),
            tuple(_rows_greedy(results, group)),
        )
    yield "Published, on the authors' own images, which are not public: not comparable to ours."
    columns = ("published", "branch", *(f"{d} {f}" for d in ("D1", "D2") for f in ("P", "R", "F1")))
    yield Table(columns, PUBLISHED)


def _rows_1(results: Results, group: str) -> Iterator[tuple[str, ...]]:
    """Optimal matching, pooled over images."""
    for part, what, label in ROWS:
        groups = results.groups(part, what, group)
        for branch, kind in BRANCHES:
            spreads = [read.scored(groups, kind, figure) for figure in FIGURES]
            yield (
                label, branch, *(figure_text(s) for s in spreads), interval_text(spreads[2]),
                str(len(groups)),
            )  # fmt: skip


def _rows_greedy(results: Results, group: str) -> Iterator[tuple[str, ...]]:
    """Greedy matching, mean over images."""
    for part, what, label in ROWS:
        groups = results.groups(part, what, group)
        for branch, kind in BRANCHES:
            spreads = [
                read.scored(groups, kind, figure, rule="greedy", over="images")
                for figure in FIGURES
            ]
            yield (label, branch, *(figure_text(s) for s in spreads), str(len(groups)))


def _calibration(results: Results) -> Iterator[Block]:
    """Calibration error, z, and the reliability curve."""
    rows = []
    for part, what, label in ROWS:
        for group in trials.COHORTS:
            groups = results.groups(part, what, group)
            z = [_mean_z(one) for one in groups]
            rows.append(
                (
                    label, group,
                    figure_text(read.single([g["calibration_error"] for g in groups])),
                    figure_text(read.single([g["z_within_one_slice"] for g in groups])),
                    figure_text(read.single(z)),
                )
            )  # fmt: skip
    columns = ("recipe", "cohort", "calibration error", "within one slice", "z error, slices")
    note = "Calibration error: expected, ten bins, of the type's probability on matched nuclei."
    yield Table(columns, tuple(rows), note)
    series = []
    for part, what, label in ROWS:
        groups = results.groups(part, what, "d2_dev")
        if groups and any(sum(g["reliability"]["n"]) for g in groups):
            confidence, accuracy, _ = read.reliability_of(groups)
            series.append(Series(label, tuple(confidence.tolist()), tuple(accuracy.tolist())))
    if series:
        caption = "Reliability of type probabilities on d2_dev: on the dashed line they come true."
        svg = curves_svg(
            "Reliability, d2_dev", series, x_label="probability given to the type",
            y_label="share that was right", x_range=UNIT, y_range=UNIT, diagonal=True,
        )  # fmt: skip
        yield Picture("reliability", svg, caption)


def _mean_z(group: Mapping[str, object]) -> float | None:
    """Mean over images of the distance in z between a nucleus found and its point, slices."""
    images = group["images"]
    assert isinstance(images, list)  # noqa: S101  of a record
    known = [image["z_error"] for image in images if image["z_error"] is not None]
    return float(np.mean(known)) if known else None


#: Rows of the ablation: variant, the row it is compared with, and what it is.
ABLATED = (
    ("lecl", "", "lecl"),
    ("contrast", "lecl", "with the pixel contrast"),
    ("one-slice", "contrast", "with it, without the neighbouring slices"),
    ("any-slice", "contrast", "with it, positive where any slice is, instead of pooled"),
    ("emip", "contrast", "with it, taught on the EMIP, one plane, instead of the stack"),
    ("paper-labels", "contrast", "with it, published pseudo labels"),
)


def _ablation(results: Results) -> Iterator[Block]:
    """The default, the same with contrast, and that without one of its parts."""
    rows = []
    for what, base, label in ABLATED:
        key = ("ablation", what)
        cells: list[str] = []
        for kind in ("", "positive"):
            found = [results.groups(*key, group) for group in trials.COHORTS]
            cells += [figure_text(read.scored(one, kind)) for one in found]
            cells.append(_change(results, what, base, kind) if base else "-")
        steps = [str(record["figures"]["train"]["steps"]) for record in results.of(*key)]
        rows.append((label, *cells, ", ".join(steps) or "-", str(len(steps))))
    branches = [f"{b} {c}" for b, _ in BRANCHES for c in (*trials.COHORTS, "change")]
    yield Table(
        ("recipe", *branches, "steps", "seeds"),
        tuple(rows),
        "F1. The change is on d2_dev with the same seeds: of contrast against the default, of the "
        "rows below it against contrast. All were trained in one sitting, so the default is not "
        "that of table 1. Steps are one number per seed.",
    )


def _change(results: Results, what: str, base: str, kind: str) -> str:
    """F1 of one row of the ablation less that of another, over the seeds both have finished."""
    one, other = (
        {record["parameters"]["seed"]: record["figures"]["d2_dev"] for record in records}
        for records in (results.of("ablation", what), results.of("ablation", base))
    )
    both = sorted(set(one) & set(other))
    if not both:
        return "-"
    means = [read.scored([figures[seed] for seed in both], kind).mean for figures in (one, other)]
    return f"{means[0] - means[1]:+.3f}"


def _points(results: Results) -> Iterator[Block]:
    """F1 of the default against the number of points, on d2_dev."""
    rows: list[tuple[str, ...]] = []
    curves: dict[str, list[tuple[float, Spread]]] = {"nuclei": [], "positive": []}
    for part, what in (("points", "10"), ("points", "30"), ("points", "100"), ("points", "300"),
                       ("points", "10%"), ("points", "30%"), ("plaque", "lecl")):  # fmt: skip
        records = results.of(part, what)
        groups = results.groups(part, what, "d2_dev")
        spreads = {name: read.scored(groups, kind) for name, kind in
                   (("nuclei", ""), ("positive", "positive"))}  # fmt: skip
        n = read.single([record["figures"]["train"].get("points") for record in records]).mean
        label = "all" if part == "plaque" else what
        count = f"{n:.0f}" if math.isfinite(n) else "-"
        rows.append(
            (label, count, figure_text(spreads["nuclei"]), interval_text(spreads["nuclei"]),
             figure_text(spreads["positive"]), interval_text(spreads["positive"]),
             str(len(groups)))
        )  # fmt: skip
        if groups and n > 0:
            for name, spread in spreads.items():
                curves[name].append((n, spread))
    columns = ("points", "taught", "NP F1", "interval", "NC F1", "interval", "seeds")
    note = (
        "lecl, judged on d2_dev. A share is drawn from every stack; a number from all stacks "
        "together, and a stack without a point left is not trained on."
    )
    yield Table(columns, tuple(rows), note)
    series = [_against(name, rows) for name, rows in curves.items() if rows]
    if series:
        svg = curves_svg(
            "F1 against the number of points, d2_dev", series, x_label="points taught",
            y_label="F1", is_log=True,
        )  # fmt: skip
        yield Picture("points", svg, "F1 of lecl on d2_dev against the number of annotated points.")


def _against(name: str, rows: Sequence[tuple[float, Spread]]) -> Series:
    """A curve with its interval, in the order of x."""
    ordered = sorted(rows, key=lambda row: row[0])
    return Series(
        name,
        tuple(x for x, _ in ordered),
        tuple(s.mean for _, s in ordered),
        tuple(s.low for _, s in ordered),
        tuple(s.high for _, s in ordered),
    )


def _condition_table(results: Results, names: Sequence[str], kind: str, head: str) -> Table:
    """F1 of every recipe under simulated conditions."""
    recipes = [what for part, what, _ in ROWS if part == "plaque" and "+" not in what]
    rows = []
    for recipe in recipes:
        groups = {name: results.groups("simulator", recipe, name) for name in names}
        cells = [figure_text(read.scored(groups[name], kind)) for name in names]
        rows.append((recipe, *cells, str(len(groups[names[0]]))))
    return Table((head, *names, "seeds"), tuple(rows))


def _rates(results: Results) -> Iterator[Block]:
    """F1 of the positive class against the rate of markers at other z."""
    names = [f"rho {rate:g}" for rate in trials.RATES]
    yield (
        "Trained on six simulated stacks (a third of the negative nuclei crossed by another cell's "
        "marker in other slices), judged on three others at each rate; the nuclei stay the same "
        "from rate to rate."
    )
    yield _condition_table(results, names, "positive", "NC F1")
    series = []
    for recipe in ORDERED:
        rows = [
            (rate, read.scored(results.groups("simulator", recipe, name), "positive"))
            for rate, name in zip(trials.RATES, names, strict=True)
            if results.of("simulator", recipe)
        ]
        if rows:
            series.append(_against(recipe, rows))
    if series:
        title = "Positive nuclei against markers at other z"
        svg = curves_svg(
            title, series, x_label="share of negatives crossed by foreign marker",
            y_label="F1 of the positive class",
        )  # fmt: skip
        yield Picture("markers", svg, f"{title}, simulated.")


def _harder(results: Results) -> Iterator[Block]:
    """The same models on harder stacks."""
    told = "; ".join(
        f"{name}: " + ", ".join(f"{k} {v:g}" for k, v in settings.items())
        for name, settings in trials.HARDER.items()
    )
    yield (
        f"The same models on harder stacks ({told}; usually density 0.08, signal over noise 8, "
        "rho 0.3)."
    )
    names = list(trials.HARDER)
    yield _condition_table(results, names, "positive", "NC F1")
    yield _condition_table(results, names, "", "NP F1")


#: Rows of Table 2: part, variant, layout and what it is called.
TABLE_2 = (
    ("histology", "lecl", "interleaved", "default minutes, interleaved folds"),
    ("histology", "lecl", "blocks", "default minutes, contiguous folds"),
    ("contrast", "without", "interleaved", "short, without contrast"),
    ("contrast", "with", "interleaved", "short, with contrast"),
)


def _table_2(results: Results) -> Iterator[Block]:
    """HoVer-Net's figures and SC-CNN's, both ways to fold."""
    every = [results.folds(*row[:3]) for row in TABLE_2]
    kinds = read.types_in([one for folds in every for one in read.images_in(folds, "12px")])
    rows, typed = [], []
    for (*_, label), folds in zip(TABLE_2, every, strict=True):
        wide, near = (read.images_in(folds, radius) for radius in ("12px", "6px"))
        rows.append(
            (
                label, figure_text(read.detected(near)), figure_text(read.detected(wide)),
                *(figure_text(read.f_type(wide, kind)) for kind in kinds), str(len(folds)),
            )
        )  # fmt: skip
        known = [fold["at_true_nuclei"] for fold in folds]
        typed.append(
            (
                label,
                *(
                    figure_text(read.single([one[name] for one in known]))
                    for name in ("weighted_f1", "macro_f1", "accuracy", "calibration_error")
                ),
                *(figure_text(read.single([one["f1"][kind] for one in known])) for kind in kinds),
            )
        )
    yield Table(
        ("H&E", "F1 at 6 px", "F_d", *(f"F_c {kind}" for kind in kinds), "folds"), tuple(rows),
        "CRCHistoPhenotypes (CoNSeP cannot be had here), four folds, each with a seed of its own, "
        "points only. F_d and F_c as HoVer-Net defines them, pairs within 12 px. Published, other "
        "folds: SC-CNN 0.802 at 6 px.",
    )  # fmt: skip
    yield Table(
        ("types at the true nuclei", "weighted F1", "macro F1", "accuracy", "calibration error",
         *(f"F1 {kind}" for kind in kinds)), tuple(typed),
        "The model is told where the nuclei are. Published, other folds: SC-CNN weighted F1 0.784.",
    )  # fmt: skip


def _outlines(results: Results) -> Iterator[Block]:
    """AJI and PQ from points and from instance maps."""
    rows = []
    for what, label in (("lecl", "points only"), ("full", "instance maps")):
        records = results.of("dsb2018", what)
        spreads = [
            spread_of_values(
                [[np.nan if i[name] is None else i[name] for i in r["figures"]["images"]]
                 for r in records]
            ) if records else read.UNKNOWN
            for name in ("aji", "pq", "dice")
        ]  # fmt: skip
        rows.append((label, *(figure_text(s) for s in spreads), interval_text(spreads[0]),
                     str(len(records))))  # fmt: skip
    share = aji_share(results)
    rows.append(
        ("ratio of AJI", f"{share:.3f}" if math.isfinite(share) else "-", "-", "-", "-", "-")
    )
    yield Table(
        ("DSB 2018 fluorescence", "AJI", "PQ", "Dice", "interval of AJI", "seeds"), tuple(rows),
        "Trained on four of five images, judged on every fifth, mean over images.",
    )  # fmt: skip


def _cost(results: Results) -> Iterator[Block]:
    """What a training took."""
    rows = []
    for part, what, label in ROWS:
        if "+" in what:
            continue  # the network of the row before
        records = results.of(part, what)
        trained = [record["figures"]["train"] for record in records]
        speed = [record["figures"]["d2_dev"]["seconds_per_image"] for record in records]
        rows.append(
            (
                label,
                ", ".join(str(t.get("steps", "-")) for t in trained) or "-",
                ", ".join(f"{t['minutes']:.1f}" for t in trained) or "-",
                ", ".join(f"{s:.1f}" for s in speed) or "-",
                str(sum(record["is_resumed"] for record in records)) if records else "-",
            )
        )
    yield Table(
        ("recipe", "steps", "minutes of training", "seconds per stack", "interrupted"),
        tuple(rows),
        "One number per seed. Minutes include reading and pseudo labels; those of an interrupted "
        "training are of its last part.",
    )


def _missing(runs: Sequence[Run], records: Records, left: Mapping[str, str]) -> Section:
    """Runs that are not there, and those made with other settings than today's."""
    blocks: list[Block] = []
    todo = [run for run in runs if run.name not in records]
    rows = []
    for (part, what, why), group in groupby(
        sorted(
            todo,
            key=lambda run: (
                *_key(run),
                left.get(run.name, "not done yet"),
                run.parameters["seed"],
            ),
        ),
        key=lambda run: (*_key(run), left.get(run.name, "not done yet")),
    ):
        seeds = ", ".join(str(run.parameters["seed"]) for run in group)
        rows.append((f"{part} {what}", seeds, why))
    if rows:
        blocks.append(Table(("run", "seeds", "why"), tuple(rows)))
    old = [run.name for run in runs if run.name in records and is_outdated(records[run.name], run)]
    if old:
        blocks.append(
            "Made with other settings of the recipe than today's; remove the record to do the run "
            f"again: {', '.join(old)}."
        )
    return Section("What is missing", tuple(blocks) or ("Nothing.",))


def _key(run: Run) -> tuple[str, str]:
    """Part and variant."""
    return str(run.parameters["part"]), str(run.parameters["what"])
