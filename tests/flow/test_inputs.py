"""From what a user names to volumes, points and regions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.inputs import (
    NUCLEAR_STAINS,
    Reading,
    as_images,
    marker_channels,
    name_of,
    nuclear_channel,
    one_per_image,
    open_example,
    open_image,
    region_for,
)
from nucleoscope.io.outlines import write_region

Own = Callable[..., Path]


def volume(*channels: str, is_2d: bool = False) -> Volume:
    data = np.zeros((len(channels), 1 if is_2d else 3, 20, 30), np.uint8)
    return Volume(data, channels, None, "v", is_2d=is_2d)


def test_nothing_given_is_nothing_for_each() -> None:
    assert one_per_image(None, [volume("A")] * 3, "points") == [None] * 3


def test_one_thing_is_for_one_image() -> None:
    points = Points([0], [1], [2])
    for thing in ("a.csv", Path("a.csv"), points):
        assert one_per_image(thing, [volume("A")], "points") == [thing]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_another_number_of_files_than_images_is_refused(n: int) -> None:
    with pytest.raises(CallError, match=f"{n} points files for 2 images"):
        one_per_image(["a.csv"] * n, [volume("A")] * 2, "points")


def test_images_are_named_by_their_stem() -> None:
    assert name_of("x/plaque.ome.tif") == "plaque"
    assert name_of(Path("x/slide.svs")) == "slide"
    assert name_of(volume("A")) == "v"


def test_two_images_of_one_stem_are_refused() -> None:
    with pytest.raises(CallError, match="two images are called a"):
        as_images(["x/a.tif", "y/a.ome.tif"])
    with pytest.raises(CallError, match="no image"):
        as_images([])
    assert as_images("a.tif") == ["a.tif"]


@pytest.mark.parametrize("stain", NUCLEAR_STAINS)
def test_usual_stains_are_known_in_any_case(stain: str) -> None:
    assert nuclear_channel(volume("LT", stain.upper()), None) == stain.upper()


def test_the_only_channel_is_the_nuclear_one() -> None:
    assert nuclear_channel(volume("x"), None) == "x"


def test_a_channel_is_asked_for_by_name_or_number() -> None:
    for asked in ("b", "B", 1, "1"):
        assert nuclear_channel(volume("A", "B"), asked) == "B"


@pytest.mark.parametrize("channels", [("A", "B"), ("DAPI", "Hoechst")])
def test_a_doubtful_nuclear_channel_is_asked_for(channels: tuple[str, ...]) -> None:
    with pytest.raises(CallError, match=f"0 {channels[0]}, 1 {channels[1]}; say --nuclei"):
        nuclear_channel(volume(*channels), None)


def test_markers_are_named_or_the_only_other_channel() -> None:
    three, typed = volume("A", "B", "DAPI"), ["positive", "negative"]
    assert marker_channels(three, "DAPI", ["b", 0], typed) == ("B", "A")
    assert marker_channels(volume("A", "DAPI"), "DAPI", [], typed) == ("A",)
    assert marker_channels(volume("A", "DAPI"), "DAPI", [], []) == ()
    assert marker_channels(volume("DAPI"), "DAPI", [], typed) == ()
    assert marker_channels(three, "DAPI", [], []) == ()
    with pytest.raises(CallError, match="which channel is the marker"):
        marker_channels(three, "DAPI", [], typed)


def test_markers_that_types_name_need_not_be_named() -> None:
    four = volume("A", "B", "C", "DAPI")
    assert marker_channels(four, "DAPI", [], ["negative", "b", "A+B"]) == ("A", "B")
    assert marker_channels(four, "DAPI", [], ["1", "2"]) == ()


def test_a_volume_is_taken_as_it_is_unless_a_scale_is_given() -> None:
    one = volume("A")
    assert open_image(one, Reading()) is one
    assert open_image(one, Reading(spacing=(1.0, 0.5, 0.5))).spacing == (1.0, 0.5, 0.5)


def test_an_example_is_found_by_name(own: Own, tmp_path: Path) -> None:
    found = open_example(own(), None, None, Reading())
    assert found.region is None
    assert found.files == {
        "path": str(tmp_path / "mine.ome.tif"), "points": str(tmp_path / "mine.points.csv"),
    }  # fmt: skip
    write_region(tmp_path / "mine.roi.geojson", Region(([[0, 0], [0, 9], [9, 9], [9, 0]],)))
    found = open_example(tmp_path / "mine.ome.tif", None, None, Reading())
    assert found.region is not None
    assert found.files["roi"] == str(tmp_path / "mine.roi.geojson")


def test_what_is_given_goes_before_what_lies_beside(own: Own, tmp_path: Path) -> None:
    image = own()
    points = Points([0], [1], [2])
    assert len(open_example(image, points, None, Reading()).points) == 1
    assert "points" not in open_example(image, points, None, Reading()).files


def test_the_slice_of_a_click_on_a_flat_image_is_nought() -> None:
    flat = volume("DAPI", is_2d=True)
    found = open_example(flat, Points([3.0], [1], [2]), None, Reading())
    assert found.points.z.tolist() == [0.0]


def test_a_volume_has_nothing_beside_it() -> None:
    with pytest.raises(InputError, match="v: no points"):
        open_example(volume("DAPI"), None, None, Reading())
    assert region_for(volume("DAPI"), None, volume("DAPI")) == (None, "")


def test_a_region_that_misses_the_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "far.roi.geojson"
    write_region(path, Region(([[50, 0], [50, 9], [60, 9]],)))
    with pytest.raises(InputError, match=r"far\.roi.*no pixel of v \(20 x 30\)"):
        region_for(volume("DAPI"), path, volume("DAPI"))
