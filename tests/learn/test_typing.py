"""Typing of nuclei in stained sections: two rounds, the mix, and the model's files."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError
from nucleoscope.learn.fit import f1_at, fit_sieve
from nucleoscope.learn.model import TYPING, Model, ModelConfig, load_model, save_model
from nucleoscope.learn.typing import (
    STRENGTH,
    Scene,
    Softmax,
    Typer,
    evidence,
    fit_mix,
    fit_softmax,
    fit_typer,
    n_features,
    softmax,
)


def blobs(n=400, n_types=3, width=6, seed=0, apart=1.0):
    rng = np.random.default_rng(seed)
    types = rng.integers(0, n_types, n)
    centres = np.random.default_rng(99).normal(size=(n_types, width)) * apart
    return (centres[types] + rng.normal(size=(n, width))).astype(np.float32), types


def test_regression_agrees_with_scikit_learn():
    x, y = blobs()
    ours = softmax(fit_softmax(x, y, 3).logits(x))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = LogisticRegression(C=1 / (len(y) * STRENGTH), max_iter=2000).fit(z, y)
    assert np.abs(ours - theirs.predict_proba(np.clip(z, -4, 4))).max() < 0.02


def test_the_unit_of_a_feature_does_not_matter():
    x, y = blobs()
    scaled = x * np.array([1, 10, 100, 0.1, 1, 1], np.float32) + 7
    one, other = fit_softmax(x, y, 3).logits(x), fit_softmax(scaled, y, 3).logits(scaled)
    assert np.allclose(one, other, atol=0.05)


def test_a_missing_feature_counts_as_the_mean():
    x, y = blobs()
    model = fit_softmax(x, y, 3)
    holed, filled = x[:5].copy(), x[:5].copy()
    holed[:, 2], filled[:, 2] = np.nan, model.centre[2]
    assert np.allclose(model.logits(holed), model.logits(filled))
    x[::7, 1] = np.nan
    assert np.isfinite(fit_softmax(x, y, 3).logits(x)).all()


def test_a_feature_that_never_changes_does_no_harm():
    x, y = blobs()
    x[:, 0] = 3
    assert np.isfinite(fit_softmax(x, y, 3).logits(x)).all()


def scenes(n_scenes=8, n=120, seed=0, network=None, judges=None):
    """Two types, each on its own half; looks tell them apart only a little."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n_scenes):
        yx = rng.uniform(0, 200, size=(n, 2))
        types = (yx[:, 1] > 100).astype(np.int64)
        looks = (types[:, None] * 0.8 + rng.normal(size=(n, 4))).astype(np.float32)
        right = np.eye(2)[types] * 4
        given = right if network == "right" else rng.normal(size=(n, 2)) * 4
        out.append(Scene(looks, yx, given, types, judges is None or i in judges))
    return out


def accuracy(typer: Typer, some: list[Scene]) -> float:
    hits = [
        (typer.probabilities(s.evidence, s.yx, s.network).argmax(axis=1) == s.types) for s in some
    ]
    return float(np.concatenate(hits).mean())


def test_neighbours_help_the_second_round():
    typer = fit_typer(scenes(), 2)
    assert typer is not None
    new = scenes(seed=1)
    alone = np.concatenate([typer.alone.logits(s.evidence).argmax(axis=1) == s.types for s in new])
    assert accuracy(typer, new) > alone.mean() + 0.05


def test_a_network_that_knows_is_believed_and_one_that_guesses_is_not():
    knows, guesses = fit_typer(scenes(network="right"), 2), fit_typer(scenes(), 2)
    assert knows is not None
    assert guesses is not None
    assert accuracy(knows, scenes(seed=1, network="right")) > 0.99
    assert abs(guesses.mix[0]) < 0.1 < knows.mix[0]


def test_only_images_that_judge_say_how_far_the_network_is_believed():
    by_heart = scenes(network="right", judges=())
    honest = scenes(n_scenes=3, seed=2, judges=(0, 1, 2))
    typer = fit_typer(by_heart + honest, 2)
    assert typer is not None
    assert typer.mix[0] < 0.15


def test_probabilities_are_calibrated_where_the_network_exaggerates():
    typer = fit_typer(scenes(n_scenes=16), 2)
    assert typer is not None
    new = scenes(n_scenes=16, seed=3)
    sure = np.concatenate([typer.probabilities(s.evidence, s.yx, s.network) for s in new]).max(1)
    assert abs(sure.mean() - accuracy(typer, new)) < 0.05


def test_untyped_nuclei_are_company_but_teach_no_type():
    some = scenes()
    unknown = [
        Scene(s.evidence, s.yx, s.network, np.where(s.yx[:, 0] < 20, -1, s.types), s.judges)
        for s in some
    ]
    typer = fit_typer(unknown, 2)
    assert typer is not None
    known = [s.types >= 0 for s in unknown]
    x = np.concatenate([s.evidence[k] for s, k in zip(some, known, strict=True)])
    y = np.concatenate([s.types[k] for s, k in zip(some, known, strict=True)])
    assert np.allclose(typer.alone.weight, fit_softmax(x, y, 2).weight)
    assert accuracy(typer, scenes(seed=1)) > 0.8


def test_one_type_or_no_image_gives_no_typer():
    some = [Scene(s.evidence, s.yx, s.network, s.types * 0, True) for s in scenes(2)]
    assert fit_typer(some, 2) is None
    assert fit_typer([], 2) is None


def test_few_nuclei_hardly_move_the_mix():
    start = fit_mix(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int))
    assert np.allclose(start, [0.3, 0.7])
    rng = np.random.default_rng(0)
    moved = fit_mix(rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), np.array([0, 1]))
    assert np.abs(moved - start).max() < 0.3


def any_typer(n_types=3) -> Typer:
    rng = np.random.default_rng(0)

    def one(width: int) -> Softmax:
        return Softmax(
            rng.normal(size=width).astype(np.float32), np.ones(width, np.float32),
            rng.normal(size=(width, n_types)).astype(np.float32), np.zeros(n_types, np.float32),
        )  # fmt: skip

    return Typer(one(n_features()), one(n_features() + 4 * n_types), np.ones(2, np.float32))


def config(**more) -> ModelConfig:
    return ModelConfig(
        recipe="classical", is_rgb=True, types=("a", "b", "c"), radius_px=6, threshold=0.3,
        valley=0.9, slice_px=11, **more,
    )  # fmt: skip


def test_a_model_keeps_its_typer(tmp_path):
    typer = any_typer()
    save_model(Model(config(has_typer=True), None, typer), tmp_path)
    back = load_model(tmp_path).typer
    assert back is not None
    for name, array in typer.arrays().items():
        assert np.array_equal(back.arrays()[name], array)


def test_a_model_without_its_typing_file_is_refused(tmp_path):
    save_model(Model(config(has_typer=True), None, any_typer()), tmp_path)
    (tmp_path / TYPING).unlink()
    with pytest.raises(InputError, match=r"typing\.safetensors is missing"):
        load_model(tmp_path)


def test_arrays_of_another_version_are_refused():
    arrays = any_typer().arrays()
    with pytest.raises(InputError, match=r"alone\.weight of shape \(5, 3\)"):
        Typer.from_arrays(arrays | {"alone.weight": np.zeros((5, 3), np.float32)}, 3)
    with pytest.raises(InputError, match="has mix of shape None"):
        Typer.from_arrays({k: v for k, v in arrays.items() if k != "mix"}, 3)


def test_evidence_has_a_row_for_every_nucleus_even_one_without_pixels():
    rng = np.random.default_rng(0)
    image = rng.integers(50, 250, size=(3, 1, 96, 96)).astype(np.uint8)
    labels = np.zeros((96, 96), np.int32)
    labels[20:30, 20:30], labels[60:70, 50:64] = 1, 3
    yx = np.array([[24.5, 24.5], [40.0, 40.0], [64.5, 56.5]])
    volume = Volume(image, ("red", "green", "blue"), is_rgb=True)
    found = evidence(volume, labels, yx, radius=6.0, mpp=None)
    assert found.shape == (3, n_features())
    assert np.isnan(found[1, 0])
    assert not np.isnan(found[[0, 2], 0]).any()


def test_depth_of_the_pixels_does_not_matter():
    rng = np.random.default_rng(0)
    image = rng.integers(50, 250, size=(3, 1, 64, 64)).astype(np.uint8)
    image[:, 0, 0, 0] = 255
    labels = np.zeros((64, 64), np.int32)
    labels[20:30, 20:30] = 1
    names, yx = ("red", "green", "blue"), np.array([[24.5, 24.5]])
    shallow = evidence(Volume(image, names, is_rgb=True), labels, yx, radius=6.0, mpp=0.5)
    deep = Volume(image.astype(np.uint16) * 257, names, is_rgb=True)
    assert np.allclose(
        evidence(deep, labels, yx, radius=6.0, mpp=0.5), shallow, atol=1e-4, equal_nan=True
    )


def peaks_of_sections(n_scenes=8, seed=0):
    """Peaks of which half are nuclei; looks tell which, their height hardly does."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n_scenes):
        types = rng.integers(0, 2, 150)
        looks = (types[:, None] * 2.0 + rng.normal(size=(150, 4))).astype(np.float32)
        height = types * 0.5 + rng.normal(size=150)
        network = np.stack([np.zeros(150), height], axis=1)
        out.append(Scene(looks, rng.uniform(0, 300, (150, 2)), network, types, i >= 4))
    return out


def test_the_sieve_tells_nuclei_from_other_peaks_better_than_their_height():
    scenes = peaks_of_sections()
    n_nuclei = sum(int((s.types == 1).sum()) for s in scenes if s.judges)
    sieve, threshold = fit_sieve(scenes, n_nuclei)
    assert sieve is not None
    new = peaks_of_sections(seed=1)
    right = np.concatenate([s.types == 1 for s in new])
    height = np.concatenate([s.network[:, 1] for s in new])
    chance = np.concatenate([sieve.probabilities(s.evidence, s.yx, s.network)[:, 1] for s in new])
    by_height = max(f1_at(height > t, right, right.sum()) for t in np.linspace(-2, 2, 41))
    assert f1_at(chance > threshold, right, right.sum()) > by_height + 0.1


def test_without_anything_to_tell_apart_there_is_no_sieve():
    scenes = [
        Scene(s.evidence, s.yx, s.network, s.types * 0 + 1, True) for s in peaks_of_sections()
    ]
    assert fit_sieve(scenes, 10) == (None, None)


def test_nuclei_that_were_never_proposed_lower_the_f1():
    kept, right = np.array([True, True, False]), np.array([True, False, True])
    assert f1_at(kept, right, 2) == 0.5
    assert f1_at(kept, right, 6) == 0.25
    assert f1_at(kept[:0], right[:0], 0) == 1.0


def test_a_model_keeps_its_sieve(tmp_path):
    sieve = any_typer(2)
    save_model(Model(config(sieve_threshold=0.4), None, None, sieve), tmp_path)
    back = load_model(tmp_path)
    assert back.typer is None
    assert back.sieve is not None
    assert np.array_equal(back.sieve.mix, sieve.mix)
    assert back.config.sieve_threshold == 0.4
