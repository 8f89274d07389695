"""The one call: images apart, units asked for, jobs without effect, tables tidy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.spatial import STATISTICS, Settings, Window, analyse, patterns_of
from nucleoscope.spatial.analysis import prepare

FAST = Settings(reach="30um", n_bins=6, n_simulations=19, n_niches=3)


def table(n: int, seed: int, image: str = "tile", mpp: float | None = 0.5, **more) -> NucleusTable:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"id": np.arange(n), "image": image, "y": rng.random(n) * 400, "x": rng.random(n) * 400}
    )
    frame["type"] = rng.choice(["immune", "stroma", "tumour"], n)
    frame["f_area"] = rng.normal(size=n)
    if mpp is not None:
        frame["y_um"], frame["x_um"] = frame["y"] * mpp, frame["x"] * mpp
    return NucleusTable(frame.assign(**more))


def stack(n: int, seed: int) -> NucleusTable:
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 12, n)
    return table(n, seed, z=z.astype(float), z_um=z * 2.0)


ALL = (*STATISTICS, "niches")


@pytest.mark.parametrize("nuclei", [table(150, 0), stack(150, 0)], ids=["plane", "stack"])
def test_every_statistic_runs_and_jobs_change_nothing(nuclei):
    marks = np.random.default_rng(1).normal(size=(150, 4))
    deep = replace(FAST, flat=False)
    one = analyse(nuclei, statistics=ALL, embedding=marks, settings=deep, seed=5)
    two = analyse(nuclei, statistics=ALL, embedding=marks, settings=deep, seed=5, n_jobs=3)
    assert set(one.tables) == set(ALL)
    for name in ALL:
        assert one.to_frame(name).equals(two.to_frame(name)), name
    assert one.nuclei.equals(two.nuclei)
    assert one.patterns[0].n_dims == (3 if nuclei.frame["z"].notna().all() else 2)


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_p_lies_between_one_over_n_plus_one_and_one(name):
    marks = np.random.default_rng(2).normal(size=(120, 4))
    frame = analyse(table(120, 3), statistics=(name,), embedding=marks, settings=FAST).to_frame(
        name
    )
    columns = [c for c in frame.columns if c == "p" or c.endswith("_p")]
    assert columns
    values = frame[columns].to_numpy(float)
    assert np.isfinite(values).all()
    assert ((values > 0) & (values <= 1)).all()


@pytest.mark.parametrize("name", sorted(STATISTICS))
def test_micrometres_and_pixels_scale_and_change_no_p(name):
    """The same tissue, so the same p with the reach given in the other unit."""
    marks = np.random.default_rng(4).normal(size=(100, 3))
    um = analyse(table(100, 5), statistics=(name,), embedding=marks, settings=FAST)
    px_settings = Settings(reach="60px", n_bins=6, n_simulations=19, n_niches=3)
    px = analyse(table(100, 5), statistics=(name,), embedding=marks, settings=px_settings)
    assert (um.unit, px.unit) == ("um", "px")
    a, b = um.to_frame(name), px.to_frame(name)
    for column in [c for c in a.columns if c == "p" or c.endswith("_p")]:
        assert np.allclose(a[column], b[column], equal_nan=True)
    if "r" in a.columns:
        assert np.allclose(2 * a["r"], b["r"])


def test_images_are_never_joined_and_share_types_and_niches():
    both = analyse(
        [table(80, 6, "a"), table(90, 7, "b")], statistics=(*ALL[:2], "niches"), settings=FAST
    )
    alone = analyse(table(80, 6, "a"), statistics=ALL[:2], settings=FAST)
    frame = both.to_frame("enrichment")
    mine = frame[frame["image"] == "a"].reset_index(drop=True)
    assert mine.equals(alone.to_frame("enrichment"))
    assert both.nuclei["image"].value_counts().to_dict() == {"b": 90, "a": 80}
    assert both.nuclei["niche"].max() <= 3
    assert len(both.graphs) == 2


def test_tissue_as_region_window_or_image_leaves_out_what_lies_outside_and_says_so():
    nuclei = table(200, 8)
    region = Region(([[0, 0], [0, 400], [200, 400], [200, 0]],), "upper half")
    window = Window.from_region(region, mpp=0.5)
    by_region = analyse(nuclei, tissue=region, statistics=("k",), settings=FAST)
    by_window = analyse(nuclei, tissue={"tile": window}, statistics=("k",), settings=FAST)
    inside = int((nuclei.frame["y"] < 200).sum())
    assert len(by_region.nuclei) == len(by_window.nuclei) == inside
    assert by_region.notes == (
        f"tile: {200 - inside} of 200 nuclei lie outside the tissue, left out.",
    )
    assert by_region.to_frame("k").equals(by_window.to_frame("k"))
    glass = np.full((3, 1, 400, 400), 240, np.uint8)
    glass[..., :200, :] = 120
    image = Volume(glass, ("red", "green", "blue"), (1.0, 0.5, 0.5), is_rgb=True, is_2d=True)
    by_image = analyse(nuclei, tissue=image, statistics=("k",), settings=FAST)
    assert abs(len(by_image.nuclei) - inside) <= 3


def test_a_region_becomes_a_slab_for_a_stack():
    region = Region(([[-1, -1], [-1, 400], [400, 400], [400, -1]],))
    deep = replace(FAST, flat=False)
    result = analyse(stack(100, 9), tissue=region, statistics=("k",), settings=deep)
    assert result.patterns[0].window.n_dims == 3
    assert len(result.nuclei) == 100


def test_a_stack_thinner_than_the_reach_is_seen_from_above_and_says_so():
    window = Window.box((-1, -1, -1), (30, 400, 400))
    for tissue in (window, None):
        thin = analyse(stack(100, 9), tissue=tissue, statistics=("k",), settings=FAST)
        assert thin.patterns[0].n_dims == 2
        assert thin.patterns[0].window.n_dims == 2
        assert "22 um deep, less than the reach of" in thin.notes[0]
    deep = analyse(stack(100, 9), statistics=("k",), settings=replace(FAST, reach="20um"))
    assert deep.patterns[0].n_dims == 3
    forced = analyse(
        stack(100, 9), statistics=("k",), settings=replace(FAST, reach="20um", flat=True)
    )
    assert forced.patterns[0].n_dims == 2
    assert "as asked for" in forced.notes[0]
    by_pixel = analyse(stack(50, 9), statistics=("k",), settings=Settings("20px", 4, flat=True))
    assert by_pixel.unit == "px"


@pytest.mark.parametrize("strata", ["density", "region"])
def test_strata_hold_types_in_place(strata):
    frame = table(120, 10, region=np.repeat(["core", "rim"], 60))
    settings = Settings(
        reach="30um", n_bins=4, n_simulations=19, strata=strata, null="labelling within strata"
    )
    result = analyse(frame, statistics=("enrichment", "k"), settings=settings)
    n_groups = len(np.unique(result.patterns[0].strata))
    assert n_groups == (10 if strata == "density" else 2)


def test_an_unknown_scale_is_asked_for_and_never_guessed():
    with pytest.raises(InputError, match="no y_um, so its scale is unknown"):
        analyse(table(10, 0, mpp=None), settings=FAST)
    result = analyse(
        table(50, 0, mpp=None), statistics=("enrichment",), settings=Settings(reach="60px")
    )
    assert result.unit == "px"
    with pytest.raises(InputError, match="a slice is not a pixel"):
        analyse(stack(20, 0), settings=Settings(reach="60px"))


def test_a_region_cannot_be_placed_when_um_are_not_px_times_one_size():
    nuclei = table(30, 0)
    odd = NucleusTable(nuclei.frame.assign(x_um=nuclei.frame["x_um"] + 70))
    region = Region(([[0, 0], [0, 400], [400, 400], [400, 0]],))
    with pytest.raises(InputError, match="not one pixel size"):
        analyse(odd, tissue=region, settings=FAST)


def test_wrong_names_list_the_right_ones():
    with pytest.raises(CallError, match="no statistic 'ripley'; there are enrichment"):
        analyse(table(9, 0), statistics=("ripley",))
    with pytest.raises(CallError, match="no column 'subtype'; it has id"):
        analyse(table(9, 0), by="subtype", settings=FAST)
    with pytest.raises(CallError, match="no graph 'gabriel'"):
        Settings(graph="gabriel")
    with pytest.raises(CallError, match="no column 'zone'"):
        analyse(table(9, 0), settings=Settings(reach="9um", strata="zone"))
    with pytest.raises(CallError, match="need embedding="):
        analyse(table(9, 0), statistics=("coupling",), settings=FAST)
    with pytest.raises(InputError, match="8 embeddings for 9 nuclei"):
        analyse(table(9, 0), embedding=np.zeros((8, 2)), settings=FAST)
    with pytest.raises(CallError, match="no table 'k' in this result; there are none"):
        analyse([], statistics=()).to_frame("k")


def test_nuclei_without_a_type_are_left_out_and_all_without_is_an_error():
    nuclei = table(60, 11)
    some = NucleusTable(
        nuclei.frame.assign(type=np.where(np.arange(60) < 20, "", nuclei.frame["type"]))
    )
    result = analyse(some, statistics=("enrichment",), settings=FAST)
    assert result.nuclei["row"].tolist() == list(range(20, 60))
    with pytest.raises(InputError, match="no nucleus has a type"):
        analyse(NucleusTable(nuclei.frame.assign(type="")), settings=FAST)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_nuclei_are_defined_for_every_statistic(n):
    marks = np.ones((n, 2))
    result = analyse(table(n, 0), statistics=ALL, embedding=marks, settings=FAST)
    assert len(result.nuclei) == n
    for name in ALL:
        frame = result.to_frame(name)
        p = frame["p"].dropna() if "p" in frame else pd.Series(dtype=float)
        assert ((p > 0) & (p <= 1)).all()


@pytest.mark.parametrize("kind", ["one type", "line", "duplicates"])
def test_degenerate_patterns_are_defined_for_every_statistic(kind):
    frame = table(40, 12).frame.copy()
    if kind == "one type":
        frame["type"] = "tumour"
    if kind == "line":
        frame["y"] = frame["y_um"] = 7.0
    if kind == "duplicates":
        frame.loc[20:, ["y", "x", "y_um", "x_um"]] = frame.loc[
            :19, ["y", "x", "y_um", "x_um"]
        ].to_numpy()
    marks = np.random.default_rng(0).normal(size=(40, 2))
    result = analyse(NucleusTable(frame), statistics=ALL, embedding=marks, settings=FAST)
    assert (result.to_frame("enrichment")["p"] > 0).all()


def test_the_table_of_nuclei_says_who_stands_around_whom():
    result = analyse(table(90, 13), statistics=("niches",), settings=FAST)
    near = result.nuclei[[c for c in result.nuclei.columns if c.startswith("near_")]]
    assert list(near.columns) == ["near_immune", "near_stroma", "near_tumour"]
    sums = near.sum(axis=1)
    assert np.allclose(sums[result.nuclei["degree"] > 0], 1)


def test_a_matrix_is_square_and_named():
    result = analyse(table(90, 13), statistics=("enrichment",), settings=FAST)
    matrix = result.matrix("enrichment", "z", "tile")
    assert matrix.shape == (3, 3)
    assert matrix.loc["immune", "tumour"] == pytest.approx(matrix.loc["tumour", "immune"])


def test_anndata_is_asked_for_by_its_extra_or_holds_squidpys_names():
    result = analyse([table(40, 1, "a"), table(30, 2, "b")], statistics=ALL[:7], settings=FAST)
    try:
        import anndata  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"nucleoscope\[spatial\]"):
            result.to_anndata()
        return
    data = result.to_anndata()
    assert data.obsm["spatial"].shape == (70, 2)
    assert data.obsp["spatial_connectivities"].shape == (70, 70)
    assert data.uns["type_nhood_enrichment"]["zscore"].shape == (3, 3)
    assert data.uns["type_co_occurrence"]["occ"].shape == (3, 3, 6)
    assert "type_centrality_scores" in data.uns


def test_real_coordinates_run_through(data):
    frame = pd.read_csv(data / "formats" / "openDVP_quant.csv").head(3000)
    nuclei = pd.DataFrame(
        {"id": frame["CellID"], "y": frame["Y_centroid"], "x": frame["X_centroid"]}
    )
    nuclei["type"] = np.where(frame["ECAD"] > frame["ECAD"].median(), "epithelial", "other")
    nuclei["f_area"] = frame["Area"]
    settings = Settings(reach="60px", n_bins=10, n_simulations=39)
    result = analyse(
        NucleusTable(nuclei), statistics=("enrichment", "k", "moran"), settings=settings
    )
    z = result.matrix("enrichment", "z")
    assert z.loc["epithelial", "epithelial"] > 5
    assert result.to_frame("k")["p"].min() == pytest.approx(1 / 40)


def test_patterns_share_their_types_across_tables():
    first, second = table(5, 0, "a"), table(50, 1, "b")
    patterns = patterns_of([first, second])
    assert patterns[0].names == patterns[1].names == ("immune", "stroma", "tumour")
    assert patterns[1].rows.tolist() == list(range(5, 55))


def test_a_reach_beyond_half_of_the_tissue_is_said():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(60), "y": rng.random(60) * 90, "x": rng.random(60) * 300})
    table = NucleusTable(frame.assign(image="strip", type=["a", "b"] * 30))
    for reach, said in (("100px", True), ("30px", False)):
        result = analyse(table, statistics=("enrichment",), settings=Settings(reach=reach))
        assert any("px across" in note for note in result.notes) == said


def test_settings_that_cannot_be_met_are_refused_at_once():
    with pytest.raises(CallError, match="19 simulations or more; found 5"):
        Settings(n_simulations=5)
    with pytest.raises(CallError, match="0 or more; found -1"):
        Settings(permutations=-1)


def test_progress_names_each_statistic_and_image_and_changes_nothing():
    rng = np.random.default_rng(0)
    tables = [
        NucleusTable(pd.DataFrame({
            "id": range(60), "y": rng.random(60) * 90, "x": rng.random(60) * 90,
            "type": ["a", "b"] * 30, "image": name,
        }))
        for name in ("one", "two")
    ]  # fmt: skip
    how = Settings(reach="40px", n_bins=4, n_simulations=19, permutations=39)
    heard: list[tuple[float, str]] = []
    names = ("enrichment", "k")
    told = prepare(tables, settings=how).compute(names, tell=lambda *x: heard.append(x))
    assert heard == [
        (0, "enrichment one"),
        (0.25, "enrichment two"),
        (0.5, "k one"),
        (0.75, "k two"),
    ]
    silent = analyse(tables, statistics=names, settings=how, n_jobs=2)
    for name in names:
        pd.testing.assert_frame_equal(told.to_frame(name), silent.to_frame(name))
    closed = analyse(tables, statistics=names[:1], settings=replace(how, permutations=0))
    assert not told.to_frame("enrichment")["p"].equals(closed.to_frame("enrichment")["p"])
