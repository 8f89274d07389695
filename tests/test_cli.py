"""The command line: the whole story with its exit codes, and every failure in one sentence."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import typer

import nucleoscope
from nucleoscope import cli

#: Every verb but those whose name is the folder of their functions.
VERBS = {v.__name__: v for v in cli.VERBS if v.__name__ not in ("spatial", "bench")}


class Answer:
    """What a call printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out.strip().splitlines()[-1])


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        printed = capsys.readouterr()
        code = end.value.code
        return Answer(code if isinstance(code, int) else 0, printed.out, printed.err)

    torch.set_num_threads(1)
    return run


def quietly(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in arguments])
    assert not end.value.code


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "images"
    quietly("simulate", folder, "--n", 2, "--size", 96, "--seed", 5, "--quiet")
    return folder


@pytest.fixture(scope="module")
def stacks(images: Path) -> list[Path]:
    return sorted(images.glob("*.ome.tif"))


@pytest.fixture(scope="module")
def model(stacks: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "model"
    quietly("train", *stacks, "-o", folder, "--recipe", "classical", "--quiet")
    return folder


@pytest.fixture(scope="module")
def results(stacks: list[Path], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "out"
    quietly("detect", *stacks, "-m", model, "-o", folder, "--quiet")
    return folder


def one_sentence(answer: Answer, code: int, *pieces: str) -> None:
    """Ended with the code, said one line on stderr with these pieces, and no traceback."""
    lines = answer.err.strip().splitlines()
    assert answer.code == code, answer.err
    assert len(lines) == 1, answer.err
    assert "Traceback" not in answer.err
    assert all(piece in lines[0] for piece in pieces), lines[0]


# ---------------------------------------------------------------- the story


def test_simulate_says_what_it_made(call: Call, tmp_path: Path) -> None:
    answer = call("simulate", tmp_path / "a", "--n", 1, "--size", 64, "--rho", 0.5, "--json")
    assert answer.code == 0
    assert answer.json == {"output": str(tmp_path / "a"), "images": ["plaque_01"]}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "plaque_01.points.csv").write_text("mine")
    again = call("simulate", tmp_path / "b", "--n", 1, "--size", 64)
    one_sentence(again, 2, "plaque_01")


def test_train_says_how_good_the_model_is(call: Call, stacks: list[Path], tmp_path: Path) -> None:
    answer = call("train", *stacks, "-o", tmp_path / "m", "--recipe", "classical", "--json")
    assert answer.code == 0
    assert answer.json["model"] == str(tmp_path / "m")
    assert 0 < answer.json["detection_f1"] <= 1
    assert "history" not in answer.json


def test_a_network_is_trained_for_as_many_steps_as_told(
    call: Call, stacks: list[Path], tmp_path: Path
) -> None:
    answer = call("train", stacks[0], "-o", tmp_path / "m", "--steps", 1, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["steps"] == 1
    found = call("detect", stacks[0], "-m", tmp_path / "m", "-o", tmp_path / "o", "--json")
    assert found.code == 0, found.err
    assert found.json["failed"] == {}


def test_detect_counts_the_nuclei(
    call: Call, stacks: list[Path], model: Path, tmp_path: Path
) -> None:
    answer = call("detect", stacks[0], "-m", model, "-o", tmp_path / "o", "--json")
    assert answer.code == 0
    assert answer.json["nuclei"]["plaque_01"] > 5
    assert answer.json["failed"] == {}
    said = call("detect", stacks[0], "-m", model, "-o", tmp_path / "p")
    assert f"plaque_01: {answer.json['nuclei']['plaque_01']} nuclei" in said.out
    assert said.err == ""


def test_evaluate_prints_a_table_or_one_line(call: Call, results: Path, images: Path) -> None:
    answer = call("evaluate", results, images, "--json")
    assert answer.code == 0
    assert len(answer.out.strip().splitlines()) == 1
    assert len(answer.json["images"]) == 2
    assert call("evaluate", results, images, "--json", "--seed", 0).json == answer.json
    table = call("evaluate", results, images, "--radius", "4.5um", "--radius-z", 2)
    assert table.code == 0
    assert "F1" in table.out


@pytest.mark.parametrize("method", ["mip", "emip"])
def test_project_writes_a_plane(
    call: Call, stacks: list[Path], results: Path, tmp_path: Path, method: str
) -> None:
    known = ["--nuclei-table", results / "plaque_01"] if method == "emip" else []
    path = tmp_path / "flat.ome.tif"
    answer = call("project", stacks[0], "-o", path, "--method", method, *known, "--json")
    assert answer.code == 0, answer.err
    assert answer.json == {"output": str(path), "method": method, "shape": [2, 96, 96]}
    assert call("info", path, "--json").json["kind"] == "image"


def test_report_prints_its_path(call: Call, results: Path, tmp_path: Path) -> None:
    answer = call("report", results, "-o", tmp_path / "r.html", "--title", "Mine")
    assert answer.code == 0, answer.err
    assert answer.out.strip() == str(tmp_path / "r.html")
    assert "Mine" in (tmp_path / "r.html").read_text()
    again = call("report", results, "-o", tmp_path / "r.html", "--overwrite", "--json")
    assert again.json == {"report": str(tmp_path / "r.html")}


def test_info_and_doctor_give_json(call: Call, model: Path, stacks: list[Path]) -> None:
    assert call("info", model, "--json").json["recipe"] == "classical"
    assert call("info", stacks[0], "--json").json["kind"] == "image"
    assert "kind: model" in call("info", model).out
    answer = call("doctor", "--json")
    assert answer.code == 0
    assert answer.json["nucleoscope"] == nucleoscope.__version__


def test_resume_and_shards(call: Call, stacks: list[Path], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    for k in (1, 2):
        base = ("detect", *stacks, "-m", model, "-o", out, "--json")
        assert call(*base, "--shard", f"{k}/2").code == 0
    assert (out / "run.json").is_file()
    one_sentence(call(*base), 2, "not empty", "--resume")
    answer = call(*base, "--resume")
    assert answer.code == 0
    assert len(answer.json["nuclei"]) == 2


# ---------------------------------------------------------------- help and version


def test_help_lists_every_verb(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    assert all(verb.replace("_", "-") in answer.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(call: Call, verb: str) -> None:
    name = verb.replace("_", "-")
    answer = call(name, "--help")
    assert answer.code == 0
    assert name in answer.out
    assert answer.err == ""


def test_the_version_is_printed(call: Call) -> None:
    assert call("--version").out.strip() == f"nucleoscope {nucleoscope.__version__}"


#: Options of the shell whose argument of the function has another name.
RENAMED = {("detect", "shard"): "shard_of", ("report", "output"): "path"}
#: Options that are about the terminal, or folded into another argument.
SHELL_ONLY = {"as_json", "quiet", "mpp", "rho"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_the_function_of_its_name_with_the_same_defaults(verb: str) -> None:
    shell = inspect.signature(VERBS[verb]).parameters
    function = inspect.signature(getattr(nucleoscope, verb)).parameters
    for name, option in shell.items():
        if name in SHELL_ONLY:
            continue
        other = RENAMED.get((verb, name), name)
        assert other in function, (verb, name)
        here, there = option.default, function[other].default
        if isinstance(there, tuple) and isinstance(here, str):
            there = ",".join(map(str, there))
        if here is inspect.Parameter.empty or there is inspect.Parameter.empty:
            continue
        assert (here or None) == (there or None) or str(here) == str(there), (verb, name)
    named = {RENAMED.get((verb, name), name) for name in shell}
    unreached = set(function) - named - {"settings", "seed", "quiet", "vote"}
    assert unreached == set(), verb


def test_every_option_is_explained() -> None:
    for verb in VERBS:
        assert (VERBS[verb].__doc__ or "").strip().endswith(".")
        for option in inspect.signature(VERBS[verb], eval_str=True).parameters.values():
            settings = [a for a in get_args(option.annotation) if hasattr(a, "param_decls")]
            assert settings or option.annotation in (int,), (verb, option.name)


def test_the_top_level_holds_every_verb_and_type() -> None:
    space: dict[str, Any] = {}
    exec("from nucleoscope import *", space)  # noqa: S102  what a notebook does
    assert set(nucleoscope.__all__) <= set(space)
    assert set(VERBS) <= set(nucleoscope.__all__)
    assert all(space[name] is not None for name in nucleoscope.__all__)
    assert dir(nucleoscope) == sorted(nucleoscope.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nucleoscope.nonsense  # noqa: B018


def test_every_home_of_a_public_name_exists() -> None:
    for name, home in nucleoscope._HOMES.items():
        assert hasattr(importlib.import_module(home), name), name


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["trian"], ["trian"]),
        (["train"], ["Missing"]),
        (["detect", "a.tif", "-m", "m"], ["--output"]),
        (["train", "a.tif", "-o", "m", "--minutes", "long"], ["--minutes"]),
        (["train", "a.tif", "-o", "m", "--nonsense"], ["--nonsense"]),
        (
            ["train", "a.tif", "-o", "m", "--recipe", "magic"],
            ["magic", "lecl, lecl-contrast, classical"],
        ),
        (["train", "a.tif", "-o", "m", "--spacing", "1,2"], ["--spacing", "1,2"]),
        (["train", "a.tif", "-o", "m", "--spacing", "a,b,c"], ["--spacing"]),
        (["train", "a.tif", "b/a.tif", "-o", "m"], ["two images are called a"]),
        (["simulate", "o", "--kind", "fish"], ["fish", "plaque, histology"]),
        (["simulate", "o", "--n", "0"], ["n=0"]),
        (["simulate", "o", "--size", "5"], ["size"]),
        (["evaluate", "a", "b", "--radius", "far"], ["a"]),
    ],
)
def test_a_wrong_call_ends_with_two_in_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str],
    pieces: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    answer = call(*arguments)
    code = 3 if arguments[0] == "evaluate" else 2
    one_sentence(answer, code, *pieces)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mine(images: Path, tmp_path: Path) -> Path:
    """A copy of an image with its points."""
    for suffix in ("ome.tif", "points.csv"):
        shutil.copy(images / f"plaque_01.{suffix}", tmp_path / f"mine.{suffix}")
    return tmp_path / "mine.ome.tif"


def rewrite(image: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the rows of the points file; the header stays."""
    path = image.with_name("mine.points.csv")
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *change(rows)]) + "\n")


def swapped(image: Path) -> None:
    path = image.with_name("mine.points.csv")
    head, *rows = path.read_text().splitlines()
    at = {name.strip('"'): i for i, name in enumerate(head.split(","))}
    cells = [row.split(",") for row in rows]
    for row in cells:
        row[at["y"]], row[at["x"]] = row[at["x"]], "95.2"
    cells[0][at["y"]], cells[0][at["x"]] = "95.2", "200"
    path.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")


def far_region(image: Path) -> None:
    ring = [[500, 500], [600, 500], [600, 600], [500, 500]]
    image.with_name("mine.roi.geojson").write_text(
        json.dumps({"type": "Polygon", "coordinates": [ring]})
    )


def half(image: Path) -> None:
    data = image.read_bytes()
    image.write_bytes(data[: len(data) // 2])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no points file": (lambda p: p.with_name("mine.points.csv").unlink(), "mine: no points"),
    "no points in it": (lambda p: rewrite(p, lambda rows: []), "point"),
    "outside": (lambda p: rewrite(p, lambda rows: [*rows, "99,1,5000,5,negative"]), "mine.points"),
    "not a number": (lambda p: rewrite(p, lambda rows: [*rows, "99,1,far,5,negative"]), "far"),
    "swapped": (swapped, "outside the image"),
    "unknown type": (lambda p: rewrite(p, lambda rows: [*rows, "99,1,5,5,odd"]), "'odd'"),
    "half a stack": (half, "mine.ome.tif"),
    "no image": (lambda p: p.unlink(), "mine.ome.tif"),
    "text": (lambda p: p.write_text("hello"), "mine.ome.tif"),
    "region of another image": (far_region, "another image"),
    "damaged region": (lambda p: p.with_name("mine.roi.geojson").write_text("{"), "mine.roi"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_to_train_ends_with_three_and_leaves_nothing(
    call: Call, mine: Path, case: str
) -> None:
    damage, piece = BAD[case]
    damage(mine)
    before = sorted(p.name for p in mine.parent.iterdir())
    answer = call("train", mine, "-o", mine.parent / "m", "--recipe", "classical")
    one_sentence(answer, 3, piece)
    assert answer.out == ""
    assert sorted(p.name for p in mine.parent.iterdir()) == before


@pytest.mark.parametrize("case", ["half a stack", "no image", "text", "region of another image"])
def test_bad_input_to_detect_ends_with_three(
    call: Call, mine: Path, model: Path, case: str
) -> None:
    damage, piece = BAD[case]
    damage(mine)
    answer = call("detect", mine, "-m", model, "-o", mine.parent / "o")
    one_sentence(answer, 3, piece)
    assert not (mine.parent / "o" / "mine").exists()


def test_some_failed_ends_with_one(
    call: Call, mine: Path, stacks: list[Path], model: Path, tmp_path: Path
) -> None:
    half(mine)
    answer = call("detect", mine, stacks[1], "-m", model, "-o", tmp_path / "o", "--json")
    one_sentence(answer, 1, "mine")
    assert list(answer.json["failed"]) == ["mine"]
    assert list(answer.json["nuclei"]) == ["plaque_02"]


def test_a_wrong_channel_is_a_wrong_call(call: Call, stacks: list[Path], tmp_path: Path) -> None:
    answer = call("train", stacks[0], "-o", tmp_path / "m", "--nuclei", "CD31")
    one_sentence(answer, 2, "CD31", "0 LT, 1 DAPI")
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_for_a_model_is_refused_for_safety(
    call: Call, stacks: list[Path], tmp_path: Path
) -> None:
    import pickle

    quietly("train", stacks[0], "-o", tmp_path / "m", "--steps", 1, "--quiet")
    (tmp_path / "m" / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))
    answer = call("detect", stacks[0], "-m", tmp_path / "m", "-o", tmp_path / "o")
    one_sentence(answer, 4, "pickle")
    assert not (tmp_path / "o").exists()


def test_output_that_is_not_empty_is_refused(
    call: Call, stacks: list[Path], model: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for verb in (["train", "--recipe", "classical"], ["detect", "-m", model]):
        one_sentence(call(*verb, stacks[0], "-o", tmp_path), 2, "not empty")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def save(path: Path, channels: tuple[str, ...], data: np.ndarray, **more: Any) -> Path:
    from nucleoscope.data.volume import Volume
    from nucleoscope.io.tiff import write_ome_tiff

    write_ome_tiff(path, Volume(data, channels, name="x", **more))
    return path


def test_an_unknown_scale_works_and_counts_in_pixels(
    call: Call, stacks: list[Path], model: Path, tmp_path: Path
) -> None:
    from nucleoscope.io.images import read_volume

    bare = save(tmp_path / "bare.ome.tif", ("LT", "DAPI"), read_volume(stacks[0]).data)
    assert call("detect", bare, "-m", model, "-o", tmp_path / "o").code == 0
    head = (tmp_path / "o" / "bare" / "nuclei.csv").read_text().splitlines()[0]
    assert "volume_px" in head
    assert "_um" not in head
    told = call("detect", bare, "-m", model, "-o", tmp_path / "p", "--spacing", "2,0.5,0.5")
    assert told.code == 0
    assert "volume_um3" in (tmp_path / "p" / "bare" / "nuclei.csv").read_text()


@pytest.mark.parametrize("n_slices", [1, 3])
def test_an_image_without_nuclei_is_no_failure(
    call: Call, model: Path, tmp_path: Path, n_slices: int
) -> None:
    data = np.full((2, n_slices, 48, 48), 9, np.uint8)
    image = save(tmp_path / "dark.ome.tif", ("LT", "DAPI"), data)
    answer = call("detect", image, "-m", model, "-o", tmp_path / "o", "--json")
    assert answer.code == 0
    assert answer.json["nuclei"] == {"dark": 0}
    assert call("report", tmp_path / "o").code == 0


def test_one_slice_is_trained_on_and_detected_in(
    call: Call, stacks: list[Path], tmp_path: Path
) -> None:
    from nucleoscope.io.images import read_volume
    from nucleoscope.io.points import read_points

    volume = read_volume(stacks[0])
    points = read_points(str(stacks[0]).replace(".ome.tif", ".points.csv"))
    image = save(tmp_path / "flat.ome.tif", ("LT", "DAPI"), volume.data.max(axis=1)[:, None])
    rows = [f"{y},{x},0,{t}" for y, x, t in zip(points.y, points.x, points.types, strict=True)]
    (tmp_path / "flat.points.csv").write_text("\n".join(["y,x,z,type", *rows]) + "\n")
    trained = call("train", image, "-o", tmp_path / "m", "--recipe", "classical")
    assert trained.code == 0, trained.err
    found = call("detect", image, "-m", tmp_path / "m", "-o", tmp_path / "o", "--json")
    assert found.code == 0, found.err
    assert found.json["nuclei"]["flat"] > 3


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUCLEOSCOPE_DEBUG", raising=False)
    for place in (0, 2):
        arguments = ["info", str(tmp_path / "absent.tif")]
        arguments.insert(place, "--debug")
        with pytest.raises(nucleoscope.NucleoscopeError):
            cli.main(arguments)


@pytest.mark.parametrize(
    ("error", "code", "piece"),
    [
        (MemoryError(), 5, "out of memory"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, ""),
        (ZeroDivisionError("odd"), 1, "--debug"),
    ],
)
def test_what_nobody_foresaw_is_one_line_too(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, piece: str
) -> None:
    from nucleoscope.flow import about

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(about, "doctor", fail)
    answer = call("doctor")
    assert answer.code == code
    assert len(answer.err.strip().splitlines()) == bool(piece)
    assert piece in answer.err


# ---------------------------------------------------------------- from nuclei to an atlas


def test_nuclei_of_a_section_become_an_atlas_that_is_asked(call: Call, tmp_path: Path) -> None:
    """Simulated H&E, its instance maps, a short training: every verb of part B, files to files."""
    import imagecodecs

    from nucleoscope.io.tiff import write_ome_tiff
    from nucleoscope.simulator import simulate as make

    images, maps, rows = [], [], []
    for i, scene in enumerate(make(kind="histology", n=3, size=192, seed=1)):
        image, labels = tmp_path / f"t{i}.png", tmp_path / f"t{i}.labels.ome.tif"
        rgb = scene.volume.data[:, 0].transpose(1, 2, 0).copy()
        image.write_bytes(imagecodecs.png_encode(rgb))
        write_ome_tiff(labels, scene.labels)
        images.append(image)
        maps += ["--nuclei", labels]
        rows += [f"t{i},{p},{kind}" for p, kind in zip(scene.points.ids, scene.points.types,
                                                       strict=True)]  # fmt: skip
    (tmp_path / "types.csv").write_text("image,id,type\n" + "\n".join(rows) + "\n")
    model, atlas = tmp_path / "encoder", tmp_path / "ATLAS"
    trained = call(
        "train-encoder", *images, "-o", model, *maps, "--mpp", 0.5, "--steps", 3, "--quiet"
    )
    assert trained.code == 0, trained.err
    made = call("embed", *images, "-m", model, "-o", atlas, *maps, "--mpp", 0.5, "--json")
    assert made.code == 0, made.err
    n = json.loads(made.out.splitlines()[-1])["nuclei"]
    assert n > 30
    grouped = call("subtypes", atlas, "--levels", "3,6", "--method", "pca", "--n-replicates", 2)
    assert grouped.code == 0, grouped.err
    assert "level 3" in grouped.out
    passed = call("transfer", atlas, "--reference", tmp_path / "types.csv", "--json")
    assert passed.code == 0, passed.err
    assert sum(json.loads(passed.out.splitlines()[-1])["types"].values()) == n
    near = call("search", atlas, "--nucleus", "t0:1", "-k", 5, "--json")
    assert near.code == 0, near.err
    assert len(json.loads(near.out.splitlines()[-1])["nuclei"]) == 5
    judged = call(
        "certify", atlas, "--types", tmp_path / "types.csv", "-m", model, "-o",
        tmp_path / "c.html", "--seeds", "0", "--labels", "20",
    )  # fmt: skip
    assert judged.code == 0, judged.err
    assert (tmp_path / "c.html").is_file()
    table = call("convert", atlas, tmp_path / "points.csv", "--image", "t0")
    assert table.code == 0, table.err


def test_the_module_can_be_run_like_the_command() -> None:
    command = [sys.executable, "-m", "nucleoscope", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "detect" in told
