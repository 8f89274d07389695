"""Training from files: what is found beside images, what is refused, and an exact second start."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.inputs import Example
from nucleoscope.flow.lecl import CHECKPOINT, train
from nucleoscope.flow.lessons import prepare
from nucleoscope.io.images import read_volume
from nucleoscope.io.outlines import write_region
from nucleoscope.io.points import read_points
from nucleoscope.learn import train as training
from nucleoscope.learn.model import load_model
from nucleoscope.learn.recipes import Recipe, recipe
from nucleoscope.simulator import simulate

Own = Callable[..., Path]


def instant(images: object, output: Path, **options: object):
    return train(images, output, recipe="classical", quiet=True, **options)  # type: ignore[arg-type]


def test_the_model_is_in_the_folder_and_given_back(instant: Path, stacks: list[Path]) -> None:
    config = load_model(instant).config
    assert config.recipe == "classical"
    assert config.channels == ("LT", "DAPI")
    assert config.types == ("negative", "positive")
    assert config.spacing == pytest.approx((2.0, 0.5, 0.5))
    assert sorted(p.name for p in instant.iterdir()) == ["README.md", "model.json", "run.json"]


def test_the_manifest_names_images_points_hashes_and_figures(
    instant: Path, stacks: list[Path]
) -> None:
    run = json.loads((instant / "run.json").read_text())
    assert run["verb"] == "train"
    assert [e["path"] for e in run["inputs"]] == [str(p) for p in stacks[:2]]
    for entry in run["inputs"]:
        assert entry["points"].endswith(".points.csv")
        assert set(entry["sha256"]) == {"path", "points", "roi"}
        assert all(len(h) == 64 for h in entry["sha256"].values())
    assert run["figures"]["images"] == 2
    assert run["seed"] == 0


def test_a_network_leaves_weights_and_a_history_and_no_checkpoint(light: Path) -> None:
    names = sorted(p.name for p in light.iterdir())
    assert names == ["README.md", "model.json", "run.json", "weights.safetensors"]
    run = json.loads((light / "run.json").read_text())
    assert run["history"][-1]["step"] == 2
    assert "minutes" not in run  # without end: JSON has no infinity


def test_files_and_arrays_teach_the_same(stacks: list[Path], instant: Path, tmp_path: Path) -> None:
    volumes = [read_volume(p) for p in stacks[:2]]
    points = [read_points(str(p).replace(".ome.tif", ".points.csv")) for p in stacks[:2]]
    model = train(volumes, tmp_path / "m", points=points, recipe="classical", quiet=True)
    assert model.config == load_model(instant).config


def test_the_order_of_images_changes_nothing_but_rounding(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    model = train(stacks[1::-1], tmp_path / "m", recipe="classical", quiet=True)
    one, other = model.config, load_model(instant).config
    assert one.radius_px == other.radius_px
    assert (one.threshold, one.valley) == (other.threshold, other.valley)
    assert one.marker_rules[0].weights == pytest.approx(other.marker_rules[0].weights, abs=1e-3)


def test_the_same_call_gives_the_same_bytes(
    stacks: list[Path], light: Path, tmp_path: Path
) -> None:
    train(stacks[:1], tmp_path / "m", steps=2, minutes=math.inf, quiet=True)
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / "m" / name).read_bytes() == (light / name).read_bytes()


def test_a_killed_training_resumes_to_the_same_bytes(
    stacks: list[Path], light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training._save

    def once(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    folder = tmp_path / "m"
    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", once)
        with pytest.raises(KeyboardInterrupt):
            train(stacks[:1], folder, steps=2, minutes=math.inf, quiet=True)
    assert [p.name for p in folder.iterdir()] == [CHECKPOINT]
    with pytest.raises(InputError, match="another recipe"):
        train(stacks[:1], folder, steps=2, minutes=math.inf, seed=1, resume=True, quiet=True)
    with pytest.raises(CallError, match="not empty"):
        train(stacks[:1], folder, steps=2, minutes=math.inf, quiet=True)
    train(stacks[:1], folder, steps=2, minutes=math.inf, resume=True, quiet=True)
    for name in ("model.json", "weights.safetensors"):
        assert (folder / name).read_bytes() == (light / name).read_bytes()
    assert not (folder / CHECKPOINT).exists()


# ---------------------------------------------------------------- refused before a byte is written


def refused(call: Callable[[], object], folder: Path, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_missing_points_are_named(own: Own, tmp_path: Path) -> None:
    image, out = own(points=False), tmp_path / "m"
    refused(lambda: instant(image, out), out, InputError, r"mine: no points; put mine\.points\.csv")


def rewrite(image: Path, change: Callable[[Points], Points]) -> None:
    from nucleoscope.io.points import write_points

    path = Path(str(image).replace(".ome.tif", ".points.csv"))
    write_points(path, change(read_points(path)), overwrite=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: replace(p, y=p.y + 500), "lie outside the image"),
        (lambda p: replace(p, z=p.z + 4), "z starts at 0"),
        (lambda p: replace(p, x=-1 - p.x), "lie outside"),
        (lambda p: p.where(np.zeros(len(p), bool)), "nothing to learn from|no point"),
        (lambda p: replace(p, type=np.where(p.ids == p.ids[0], "odd", "negative")), "type 'odd'"),
    ],
    ids=["outside", "z from 1", "mirrored", "none", "unknown type"],
)
def test_points_that_cannot_be_are_one_sentence(
    own: Own, tmp_path: Path, change: Callable[[Points], Points], match: str
) -> None:
    image, out = own(), tmp_path / "m"
    rewrite(image, change)
    refused(lambda: instant(image, out), out, InputError, match)


def test_swapped_columns_are_recognised(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 1, 40, 90), np.uint8), ("DAPI",), None, "wide")
    points = Points([0, 0], [80, 30], [10, 20])
    refused(
        lambda: instant(volume, tmp_path / "m", points=points),
        tmp_path / "m",
        InputError,
        "swapped",
    )


@pytest.mark.parametrize("option", [{"nuclei": "CD31"}, {"marker": ["CD31"]}, {"nuclei": 7}])
def test_a_channel_that_is_not_there_is_refused(
    stacks: list[Path], tmp_path: Path, option: dict[str, object]
) -> None:
    out = tmp_path / "m"
    refused(lambda: instant(stacks[0], out, **option), out, CallError, "it has 0 LT, 1 DAPI")


def test_the_nuclear_channel_is_no_marker(stacks: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "m"
    refused(lambda: instant(stacks[0], out, marker=["DAPI"]), out, CallError, "cannot be both")


def test_a_region_of_another_image_is_refused(own: Own, tmp_path: Path) -> None:
    image, out = own(), tmp_path / "m"
    write_region(
        tmp_path / "mine.roi.geojson", Region(([[500, 500], [500, 600], [600, 600], [600, 500]],))
    )
    refused(lambda: instant(image, out), out, InputError, "may belong to another image")


def test_a_region_without_points_is_one_sentence(own: Own, tmp_path: Path) -> None:
    image, out = own(), tmp_path / "m"
    rewrite(image, lambda p: p.where(p.x > 20))
    write_region(tmp_path / "mine.roi.geojson", Region(([[0, 0], [0, 15], [90, 15], [90, 0]],)))
    refused(lambda: instant(image, out), out, InputError, "none of .* points lies inside")


def test_half_a_stack_is_refused(own: Own, tmp_path: Path) -> None:
    image, out = own(), tmp_path / "m"
    data = image.read_bytes()
    image.write_bytes(data[: len(data) // 2])
    refused(lambda: instant(image, out), out, InputError, "mine")


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"recipe": "magic"}, "no recipe 'magic'"),
        ({"network": "unet"}, "no network 'unet'"),
        ({"recipe": Recipe("own"), "network": "light"}, "own says its network itself"),
        ({"minutes": 0.0}, "more than 0 minutes"),
        ({"minutes": -1.0}, "more than 0 minutes"),
        ({"points": []}, "0 points files for 1 images"),
        ({"roi": ["a.roi", "b.roi"]}, "2 roi files for 1 images"),
    ],
)
def test_an_impossible_call_is_refused(
    stacks: list[Path], tmp_path: Path, option: dict[str, object], match: str
) -> None:
    out = tmp_path / "m"
    refused(lambda: train(stacks[0], out, quiet=True, **option), out, CallError, match)  # type: ignore[arg-type]


def test_no_image_is_refused(tmp_path: Path) -> None:
    refused(lambda: instant([], tmp_path / "m"), tmp_path / "m", CallError, "no image")


def test_a_folder_of_others_is_never_written_to(stacks: list[Path], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    for resume in (False, True):
        with pytest.raises(CallError):
            instant(stacks[0], tmp_path, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_finished_model_is_not_trained_over_by_resume(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(instant, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(CallError, match="no checkpoint to go on from"):
        train(stacks[:1], folder, recipe="classical", resume=True, quiet=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    train(stacks[:1], folder, recipe="classical", overwrite=True, quiet=True)
    assert load_model(folder).config.training["images"] == 1


# ---------------------------------------------------------------- prepare


def example(stack: Path, **changes: object) -> Example:
    volume = read_volume(stack)
    points = read_points(str(stack).replace(".ome.tif", ".points.csv"))
    return replace(Example(volume, points, None, {}), **changes)  # type: ignore[arg-type]


def test_only_points_inside_the_region_are_taught(stacks: list[Path]) -> None:
    half = Region(([[-1, -1], [-1, 48], [99, 48], [99, -1]],))
    one = example(stacks[0], region=half)
    _, (lesson,) = prepare([one], recipe("classical"))
    assert lesson.is_taught.tolist() == (one.points.x < 48).tolist()
    assert (lesson.foreground[:, :, 60:] == 255).all()


def test_an_unknown_scale_takes_the_published_slice_step(stacks: list[Path]) -> None:
    bare = replace(example(stacks[0]), volume=replace(read_volume(stacks[0]), spacing=None))
    config, _ = prepare([bare], recipe("classical"))
    assert config.spacing is None
    assert config.slice_px == 11.0


def test_untyped_points_teach_detection_only(stacks: list[Path]) -> None:
    one = example(stacks[0])
    plain = replace(one, points=replace(one.points, type=np.full(len(one.points), "")))
    config, (lesson,) = prepare([plain], recipe("classical"))
    assert (config.markers, config.types) == ((), ())
    assert config.channels == ("DAPI",)
    assert (lesson.types == -1).all()


def test_a_named_marker_is_taken_even_without_types(stacks: list[Path]) -> None:
    one = example(stacks[0])
    plain = replace(one, points=replace(one.points, type=np.full(len(one.points), "")))
    config, _ = prepare([plain], recipe("classical"), marker=["lt"])
    assert config.markers == ("LT",)


def test_classes_of_a_colour_image_are_the_types_of_its_points() -> None:
    scene = simulate(kind="histology", n=1, size=96)[0]
    config, (lesson,) = prepare(
        [Example(scene.volume, scene.points, None, {})], recipe("classical")
    )
    assert config.is_rgb
    assert config.types == tuple(sorted(set(scene.points.types) - {""}))
    named = [config.types[t] for t in lesson.types[:, 0]]
    assert named == scene.points.types.tolist()


def test_a_colour_image_is_learnt_from_file_to_model(tmp_path: Path) -> None:
    simulate(tmp_path / "he", kind="histology", n=1, size=96)
    model = train(sorted((tmp_path / "he").glob("*.ome.tif")), tmp_path / "m", steps=1,
                  minutes=math.inf, quiet=True)  # fmt: skip
    assert model.config.channels == ("red", "green", "blue")
    assert load_model(tmp_path / "m").config == model.config


def test_a_recipe_of_ones_own_is_taken_as_it_is_and_recorded(tmp_path: Path) -> None:
    simulate(tmp_path / "he", kind="histology", n=1, size=96)
    own = Recipe("own", crop=48, context=1, steps=1)
    model = train(sorted((tmp_path / "he").glob("*.ome.tif")), tmp_path / "m", recipe=own,
                  minutes=math.inf, quiet=True)  # fmt: skip
    assert model.config.recipe == "own"
    run = json.loads((tmp_path / "m" / "run.json").read_text())
    assert run["recipe"] == "own"
    assert run["settings"] == json.loads(json.dumps(asdict(own)))


def test_images_of_other_channels_are_one_sentence(stacks: list[Path]) -> None:
    one, two = example(stacks[0]), example(stacks[1])
    other = replace(two, volume=replace(two.volume, channels=("CD31", "DAPI"), name="odd"))
    with pytest.raises(CallError, match="odd: no channel 'LT'"):
        prepare([one, other], recipe("classical"))
