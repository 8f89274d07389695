"""A model's answer: the same however it is tiled, typed, numbered, and on the image's pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.maps import StackMaps
from nucleoscope.data.region import Region
from nucleoscope.data.table import REQUIRED
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.learn import infer
from nucleoscope.learn.infer import (
    Detection,
    channels_for,
    detect,
    fused,
    maps_of,
    network_logits,
    nuclei_from,
    predict,
    resampled,
    scale_factors,
    typed,
)
from nucleoscope.learn.lecl import train_model
from nucleoscope.learn.model import MarkerSpec, Model, ModelConfig, NetworkSpec
from nucleoscope.learn.nets import build_network
from nucleoscope.learn.train import TrainSettings
from nucleoscope.nuclei.markers import FEATURES
from nucleoscope.nuclei.peaks import Peaks, find_peaks
from nucleoscope.simulator import (
    HistologySettings,
    PlaqueSettings,
    simulate,
    simulate_histology,
    simulate_plaque,
)


@pytest.fixture(params=["light", "classical"])
def either(request: pytest.FixtureRequest, model: Model, instant: Model) -> Model:
    return model if request.param == "light" else instant


@pytest.fixture(scope="module")
def found(instant: Model) -> Detection:
    scene = simulate_plaque(PlaqueSettings(size=96, n_slices=4, roi=False, density=0.15), 2)
    return detect(instant, scene.volume)


def same_maps(one: StackMaps, other: StackMaps, tolerance: float) -> None:
    for name in ("foreground", "centre", "offsets", "types"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= tolerance, name


# ---------------------------------------------------------------- windows


@pytest.fixture(scope="module")
def wide() -> Volume:
    """Larger than the reach on every side, and no multiple of anything."""
    return simulate_plaque(PlaqueSettings(size=389, n_slices=2, roi=False), 4).volume


@pytest.mark.parametrize("core", [64, 176])
def test_tiled_equals_untiled(model: Model, wide: Volume, core: int) -> None:
    narrow = replace(wide, data=wide.data[:, :, :, :230])
    config = model.config
    whole = maps_of(model, narrow)
    tiled = maps_of(model, narrow, core=core)
    same_maps(whole, tiled, 2e-4)
    maps = []
    for one in (whole, tiled):
        peaks = find_peaks(one.centre, config.peak_settings(one.stride))
        maps.append(nuclei_from(one, peaks, config, narrow.shape))
    assert len(np.unique(maps[0])) > 10
    assert np.array_equal(maps[0], maps[1])


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (100, 47), (64, 200)])
@pytest.mark.parametrize("core", [16, 48, 2048])
def test_windows_keep_every_pixel_once_and_bring_the_surround(
    size: tuple[int, int], core: int
) -> None:
    kept = np.zeros(size, int)
    for window in infer._windows(*size, core, 30, 2):
        y0, x0, y1, x1 = window.inner
        kept[y0:y1, x0:x1] += 1
        assert max(y1 - y0, x1 - x0) <= core
        assert window.outer[0] % 16 == window.outer[1] % 16 == 0
        assert window.outer[0] in (0, y0 - 32)
        assert window.outer[2] in (size[0], y1 + 32)
        assert window.outer[3] in (size[1], x1 + 32)
    assert (kept == 1).all()


@given(length=st.integers(1, 5000), core=st.integers(16, 2000))
def test_windows_are_as_few_as_can_be_and_about_equal(length: int, core: int) -> None:
    sizes = [w.inner[2] - w.inner[0] for w in infer._windows(length, 1, core, 0, 2)]
    assert sum(sizes) == length
    assert max(sizes) <= core
    assert len(sizes) <= -(-length // (core - core % 16))
    assert len(set(sizes[:-1])) <= 1
    assert all(size % 16 == 0 for size in sizes[:-1])
    assert max(sizes) - sizes[-1] <= 16 * len(sizes)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 17, 33), (1, 16, 16), (3, 31, 5)])
def test_any_size_of_image_gets_maps_that_cover_it(model: Model, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(0, 255, (2, *shape)).astype(np.uint8), ("LT", "DAPI"))
    maps = maps_of(model, volume)
    z, y, x = shape
    assert maps.foreground.shape == (z, -(-y // 2), -(-x // 2))
    assert all(np.isfinite(getattr(maps, n)).all() for n in ("foreground", "centre", "offsets"))


def test_maps_are_the_networks_answer_in_the_units_of_the_contract(
    model: Model, stack: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer, "has_amx", lambda: False)  # compare in single precision
    from nucleoscope.learn.feed import SLICES_PER_UNIT
    from nucleoscope.learn.nets import with_neighbours
    from nucleoscope.learn.normalise import levels, normalise

    network = model.network
    assert network is not None
    rows = with_neighbours(torch.from_numpy(normalise(stack.data, levels(stack))), network.context)
    with torch.no_grad():
        out = fused(network)(rows)
    maps = predict(network, stack, radius=8.0)
    assert np.allclose(maps.foreground, out["np"].softmax(1)[:, 1].numpy(), atol=1e-4)
    assert np.allclose(maps.centre, out["centre"].sigmoid()[:, 0].numpy(), atol=1e-4)
    hv = out["hv"].numpy()
    assert np.allclose(maps.offsets[0], hv[:, 2] * SLICES_PER_UNIT, atol=1e-3)
    assert np.allclose(maps.offsets[1], hv[:, 1] * 4.0, atol=1e-3)
    assert np.allclose(maps.offsets[2], hv[:, 0] * 4.0, atol=1e-3)
    assert np.allclose(maps.types, out["nc"].numpy().transpose(1, 0, 2, 3), atol=1e-3)


def test_progress_counts_every_slice_of_every_window(model: Model, stack: Volume) -> None:
    told: list[tuple[int, int]] = []
    assert model.network is not None
    predict(model.network, stack, radius=8.0, core=48, progress=lambda d, n: told.append((d, n)))
    n = stack.shape[0] * 4
    assert told == [(i + 1, n) for i in range(n)]


# ---------------------------------------------------------------- the table


def well_typed(found: Detection, volume: Volume) -> None:
    """What holds of every answer."""
    frame = found.table.frame
    assert found.labels.shape == volume.shape
    assert found.labels.data.dtype == np.int32
    assert found.labels.spacing == volume.spacing
    assert frame["id"].tolist() == list(range(1, len(frame) + 1))
    assert found.labels.ids().tolist() == frame["id"].tolist()
    for column, dtype in REQUIRED.items():
        assert str(frame[column].dtype) == ("object" if dtype == "str" else dtype), column


def test_numbers_run_from_one_and_are_those_of_the_map(either: Model, stack: Volume) -> None:
    found = detect(either, stack)
    assert len(found.table) > 5
    well_typed(found, stack)
    frame = found.table.frame
    for row in frame.head(5).itertuples():
        voxels = np.argwhere(found.labels.data == row.id)
        assert voxels.mean(axis=0) == pytest.approx([row.z, row.y, row.x], abs=1e-3)
    assert frame["score"].between(0, 1).all()
    assert set(frame["image"]) == {stack.name}


def test_types_are_those_of_the_marker(either: Model, stack: Volume) -> None:
    frame = detect(either, stack).table.frame
    assert set(frame["type"]) <= {"positive", "negative"}
    assert (frame["LT_positive"] == (frame["LT_prob"] >= 0.5)).all()
    assert ((frame["type"] == "positive") == frame["LT_positive"]).all()
    sure = np.where(frame["LT_positive"], frame["LT_prob"], 1 - frame["LT_prob"])
    assert frame["type_prob"].to_numpy() == pytest.approx(sure)


def test_the_same_image_gives_the_same_answer(either: Model, stack: Volume) -> None:
    one, other = detect(either, stack), detect(either, stack)
    assert np.array_equal(one.labels.data, other.labels.data)
    pd.testing.assert_frame_equal(one.table.frame, other.table.frame)


def test_the_order_of_channels_does_not_matter(either: Model, stack: Volume) -> None:
    turned = Volume(stack.data[::-1].copy(), stack.channels[::-1], stack.spacing, stack.name)
    one, other = detect(either, stack), detect(either, turned)
    assert np.array_equal(one.labels.data, other.labels.data)
    pd.testing.assert_frame_equal(one.table.frame, other.table.frame)


BLANKS: dict[str, Callable[[tuple[int, ...]], NDArray[np.uint8]]] = {
    "black": lambda s: np.zeros(s, np.uint8),
    "constant": lambda s: np.full(s, 77, np.uint8),
    "saturated": lambda s: np.full(s, 255, np.uint8),
}


@pytest.mark.parametrize("case", sorted(BLANKS))
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 64, 64), (1, 1, 1)])
def test_an_image_without_nuclei_gives_an_empty_well_typed_answer(
    instant: Model, case: str, shape: tuple[int, ...]
) -> None:
    volume = Volume(BLANKS[case]((2, *shape)), ("LT", "DAPI"), (2.0, 0.5, 0.5))
    found = detect(instant, volume)
    well_typed(found, volume)
    assert len(found.table) == 0
    assert {"LT_prob", "LT_positive", "type", "type_prob"} <= set(found.table.frame.columns)


@pytest.mark.parametrize("case", sorted(BLANKS))
def test_a_network_that_knows_little_still_answers_well_typed(model: Model, case: str) -> None:
    volume = Volume(BLANKS[case]((2, 2, 48, 48)), ("LT", "DAPI"))
    sure = replace(model, config=model.config.model_copy(update={"threshold": 1.0}))
    found = detect(sure, volume)
    well_typed(found, volume)
    assert len(found.table) == 0


def test_an_unknown_scale_leaves_micrometres_out(instant: Model, stack: Volume) -> None:
    frame = detect(instant, replace(stack, spacing=None)).table.frame
    assert len(frame) > 5
    assert not [c for c in frame.columns if c.endswith(("_um", "_um2", "_um3"))]
    assert "volume_px" in frame.columns


def test_only_nuclei_inside_the_region_are_reported(either: Model, stack: Volume) -> None:
    every = detect(either, stack)
    half = Region(([[-1, -1], [-1, 48], [200, 48], [200, -1]],))
    some = detect(either, stack, region=half)
    well_typed(some, stack)
    frame = every.table.frame
    inside = frame[frame["x"] < 48]
    assert 0 < len(inside) < len(frame)
    for column in ("y", "x", "z", "score", "type_prob"):
        assert some.table.frame[column].tolist() == pytest.approx(inside[column].tolist())
    assert set(np.unique(every.labels.data[some.labels.data > 0])) == set(inside["id"])


def test_a_region_without_nuclei_gives_an_empty_answer(instant: Model, stack: Volume) -> None:
    corner = Region(([[-1, -1], [-1, 0.5], [0.5, 0.5], [0.5, -1]],))
    found = detect(instant, stack, region=corner)
    assert len(found.table) == 0
    well_typed(found, stack)


# ---------------------------------------------------------------- channels


def test_nuclei_only_reads_no_marker_and_leaves_types_empty(either: Model, stack: Volume) -> None:
    alone = Volume(stack.channel("DAPI")[None].copy(), ("whatever",), stack.spacing, stack.name)
    one = detect(either, stack, nuclei_only=True)
    other = detect(either, alone, nuclei_only=True)
    assert np.array_equal(one.labels.data, other.labels.data)
    well_typed(one, stack)
    assert set(one.table.frame["type"]) <= {""}
    assert "LT_prob" not in one.table.frame.columns


def test_a_missing_channel_is_one_sentence(either: Model, stack: Volume) -> None:
    alone = Volume(stack.channel("DAPI")[None].copy(), ("DAPI",), None, "lonely")
    with pytest.raises(CallError, match=r"lonely: the model needs channel LT; .*DAPI.*nuclei-only"):
        detect(either, alone)


def test_a_missing_nuclear_channel_is_one_sentence(model: Model) -> None:
    volume = Volume(np.zeros((2, 1, 32, 32), np.uint8), ("LT", "CD31"))
    with pytest.raises(CallError, match="CD31"):
        detect(model, volume, nuclei_only=True)


def test_channels_are_found_whatever_their_case(model: Model, stack: Volume) -> None:
    shouted = replace(stack, channels=("lt", "dapi"))
    assert channels_for(model.config, shouted, nuclei_only=False).shape == stack.shape
    assert len(detect(model, shouted).table) == len(detect(model, stack).table)


# ---------------------------------------------------------------- scale


def test_scales_that_are_close_are_left_alone(model: Model, stack: Volume) -> None:
    config = model.config
    assert config.spacing == (2.0, 0.5, 0.5)
    for spacing in ((2.0, 0.5, 0.5), (3.0, 0.54, 0.46), (1.4, 0.5, 0.5)):
        assert scale_factors(replace(stack, spacing=spacing), config) == (1.0, 1.0, 1.0)
    assert scale_factors(replace(stack, spacing=None), config) == (1.0, 1.0, 1.0)


def test_scales_that_differ_are_the_ratio(model: Model, stack: Volume) -> None:
    factors = scale_factors(replace(stack, spacing=(4.0, 0.25, 1.0)), model.config)
    assert factors == pytest.approx((2.0, 0.5, 2.0))
    flat = replace(stack, data=stack.data[:, :1], spacing=(9.0, 0.25, 0.25))
    assert scale_factors(flat, model.config) == pytest.approx((1.0, 0.5, 0.5))


def test_a_nucleus_radius_makes_the_image_look_smaller(model: Model, stack: Volume) -> None:
    taught = model.config.radius_px * 0.5
    factors = scale_factors(stack, model.config, 2 * taught)
    assert factors[1:] == pytest.approx((0.5, 0.5))


def test_a_radius_without_a_scale_is_refused(model: Model, stack: Volume) -> None:
    with pytest.raises(CallError, match="needs the voxel size"):
        scale_factors(replace(stack, spacing=None), model.config, 5.0)


@pytest.mark.parametrize("factor", [0.5, 2.0, 1.7])
def test_resampling_keeps_the_field_of_view(factor: float) -> None:
    y, x = np.mgrid[:60, :80]
    data = np.exp(-((y - 21.5) ** 2 + (x - 51.5) ** 2) / 60)[None, None].astype(np.float32)
    small = resampled(Volume(data, ("DAPI",)), (1.0, factor, factor))
    assert small.shape == (1, round(60 * factor), round(80 * factor))
    light = small.data[0, 0]
    v, u = np.indices(light.shape)
    back = [((w * light).sum() / light.sum() + 0.5) / factor - 0.5 for w in (v, u)]
    assert back == pytest.approx([21.5, 51.5], abs=0.3)


def enlarged(volume: Volume, factor: int) -> Volume:
    """Every pixel repeated, the voxel size told accordingly."""
    data = np.repeat(np.repeat(volume.data, factor, 2), factor, 3)
    spacing = volume.spacing
    assert spacing is not None
    return replace(
        volume, data=data, spacing=(spacing[0], spacing[1] / factor, spacing[2] / factor)
    )


@pytest.mark.parametrize("by", ["spacing", "radius"])
def test_centroids_come_back_to_the_images_own_pixels(
    instant: Model, stack: Volume, by: str
) -> None:
    plain = detect(instant, stack).table.frame
    large = enlarged(stack, 2)
    radius = None
    if by == "radius":  # the scale claims the same voxel, but the nuclei are twice as wide
        large = replace(large, spacing=stack.spacing)
        spacing = stack.spacing
        assert spacing is not None
        large = replace(large, data=np.repeat(large.data, 2, 1))
        radius = 2 * instant.config.radius_px * spacing[1]
    found = detect(instant, large, nucleus_radius_um=radius)
    well_typed(found, large)
    frame = found.table.frame
    mapped = (frame[["y", "x"]].to_numpy() + 0.5) / 2 - 0.5
    away = np.linalg.norm(mapped[:, None] - plain[["y", "x"]].to_numpy()[None], axis=2)
    assert abs(len(frame) - len(plain)) <= 0.15 * len(plain)
    assert np.quantile(away.min(axis=1), 0.8) < 1.0


def test_labels_go_back_by_the_nearest_voxel() -> None:
    labels = np.arange(1, 13, dtype=np.int32).reshape(1, 3, 4)
    back = infer._on_pixels(labels, (2, 6, 8))
    assert np.array_equal(back, np.repeat(np.repeat(np.repeat(labels, 2, 0), 2, 1), 2, 2))
    assert infer._on_pixels(labels, (1, 3, 4)) is labels


# ---------------------------------------------------------------- types


def plain_config(**more: object) -> ModelConfig:
    base = {"recipe": "x", "radius_px": 5.0, "threshold": 0.3, "valley": 0.9, "slice_px": 3.0}
    return ModelConfig(**base, **more)  # type: ignore[arg-type]


def test_types_of_a_colour_model_are_its_classes() -> None:
    config = plain_config(is_rgb=True, types=("a", "b", "c"))
    logits = np.array([[[0.0, 3.0, 0.0]], [[5.0, 0.0, 0.0]]])
    table = detect_table(2)
    frame = typed(table, labels_of(2), rgb(), logits, config).frame
    assert frame["type"].tolist() == ["b", "a"]
    expected = [np.exp(3) / (np.exp(3) + 2), np.exp(5) / (np.exp(5) + 2)]
    assert frame["type_prob"].tolist() == pytest.approx(expected)


def rgb() -> Volume:
    return Volume(np.zeros((3, 1, 16, 16), np.uint8), ("red", "green", "blue"), is_rgb=True)


def labels_of(n: int) -> Labels:
    data = np.zeros((1, 16, 16), np.int32)
    for i in range(n):
        data[0, 4 * i : 4 * i + 3, 2:8] = i + 1
    return Labels(data)


def detect_table(n: int):
    from nucleoscope.nuclei.measure import measure

    return measure(labels_of(n))


def test_several_markers_are_joined_and_none_is_negative() -> None:
    weights = [0.0] * len(FEATURES)
    weights[FEATURES.index("mean")] = 40.0
    spec = MarkerSpec(weights=tuple(weights), bias=-20.0, network_share=0.0)
    config = plain_config(
        nuclei="DAPI", markers=("A", "B"), types=("negative", "positive"), marker_rules=(spec, spec)
    )
    found = labels_of(4)
    data = np.zeros((3, 1, 16, 16), np.uint8)
    for channel, marked in ((0, (1, 2)), (1, (2, 3))):
        for i in marked:
            data[channel][found.data == i] = 200
    volume = Volume(data, ("A", "B", "DAPI"))
    frame = typed(detect_table(4), found, volume, np.zeros((4, 2, 2)), config).frame
    assert frame["type"].tolist() == ["A", "A+B", "B", "negative"]
    assert frame["A_positive"].tolist() == [True, True, False, False]
    assert (frame["type_prob"] > 0.9).all()


def test_calibration_is_applied_after_the_mix() -> None:
    weights = (0.0,) * len(FEATURES)
    spec = MarkerSpec(weights=weights, bias=2.0, network_share=0.25, slope=0.5, offset=-1.0)
    config = plain_config(
        nuclei="DAPI", markers=("A",), types=("negative", "positive"), marker_rules=(spec,)
    )
    volume = Volume(np.zeros((2, 1, 16, 16), np.uint8), ("A", "DAPI"))
    logits = np.array([[[0.0, 6.0]], [[0.0, 100.0]]])
    frame = typed(detect_table(2), labels_of(2), volume, logits, config).frame
    odds = [0.5 * (0.25 * v + 0.75 * 2.0) - 1.0 for v in (6.0, 8.0)]
    assert frame["A_prob"].tolist() == pytest.approx([1 / (1 + np.exp(-o)) for o in odds])


def test_without_types_there_are_no_type_columns() -> None:
    frame = typed(detect_table(2), labels_of(2), rgb(), np.zeros((2, 1, 0)), plain_config()).frame
    assert frame["type"].tolist() == ["", ""]


def test_a_networks_logits_are_pooled_over_the_nucleus_on_the_maps_grid() -> None:
    config = plain_config(nuclei="DAPI", markers=("A",), types=("negative", "positive"))
    maps = StackMaps.blank((2, 8, 8), 2, n_types=3)
    maps.types[2, :, :4] = 3.0
    labels = np.zeros((2, 15, 16), np.int32)
    labels[:, :6], labels[:, 9:] = 1, 3
    logits = network_logits(maps, labels, 3, config)
    odds = logits[:, 0, 1] - logits[:, 0, 0]
    assert odds[[0, 2]] == pytest.approx([3.0, 0.0], abs=1e-4)
    assert logits.shape == (3, 1, 2)


def test_logits_without_a_network_are_nought(instant: Model) -> None:
    maps = StackMaps.blank((1, 8, 8), 1, n_types=0)
    assert not network_logits(maps, np.zeros((1, 8, 8), np.int32), 4, instant.config).any()


def test_nuclei_are_cut_to_the_image_not_to_the_padded_map() -> None:
    maps = StackMaps.blank((1, 8, 8), 2, n_types=0)
    maps.foreground[:] = 1.0
    peaks = Peaks(np.array([[0.0, 4.0, 4.0]]), np.array([1.0]))
    labels = nuclei_from(maps, peaks, plain_config(), (1, 15, 13))
    assert labels.shape == (1, 15, 13)
    assert labels.max() == 1


# ---------------------------------------------------------------- colour


def test_the_instant_recipe_finds_dark_nuclei_in_a_brightfield_image() -> None:
    from nucleoscope.flow.inputs import Example
    from nucleoscope.flow.lessons import prepare
    from nucleoscope.learn.recipes import recipe
    from nucleoscope.metrics.detection import match_points

    scene = simulate_histology(HistologySettings(size=128), 3)
    chosen = recipe("classical")
    config, lessons = prepare([Example(scene.volume, scene.points, None, {})], chosen)
    model = train_model(lessons, config, chosen, TrainSettings())
    frame = detect(model, scene.volume).table.frame
    truth = scene.points.zyx()[:, 1:]
    hits = match_points(frame[["y", "x"]].to_numpy(), truth, radius=2 * config.radius_px)
    f1 = 2 * len(hits.predicted_index) / (len(frame) + len(truth))
    assert f1 > 0.6


def test_a_colour_model_with_a_network_answers_with_its_classes() -> None:
    config = plain_config(
        is_rgb=True, types=("a", "b", "c"),
        network=NetworkSpec(name="light", n_channels=3, n_types=3, n_groups=1, context=0),
    )  # fmt: skip
    network = build_network("light", 3, 3, 1, 0).eval()
    scene = simulate(kind="histology", n=1, size=64)[0]
    found = detect(Model(config, network), scene.volume)
    assert set(found.table.frame["type"]) <= {"a", "b", "c"}
    well_typed(found, scene.volume)
    assert found.table.frame["z"].isna().all()
