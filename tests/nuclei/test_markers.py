"""Marker evidence against a slow loop; rules against their contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei import markers
from nucleoscope.nuclei.markers import (
    FEATURES,
    GLOW_NUCLEI,
    MIN_SECTION,
    RULES,
    AnySlice,
    CoreAgainstShell,
    Evidence,
    Learned,
    MarkerRule,
    NucleusFraction,
    fit_learned,
    marker_evidence,
    marker_rule,
    marker_scale,
    rule_named,
    sigmoid,
)
from nucleoscope.testing import RuleContract

SHELL = 2


def scene(
    seed: int, shape: tuple[int, int, int] = (4, 14, 16), n: int = 4
) -> tuple[Labels, NDArray[np.uint8], NDArray[np.uint8]]:
    """Balls with gaps in their numbers, a rough marker and a rough stain."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    data = np.zeros(shape, np.int32)
    for i in range(n):
        c = rng.uniform([0, 0, 0], shape)
        ball = ((z - c[0]) * 2) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 < rng.uniform(2, 4) ** 2
        data[ball & (data == 0)] = 3 * i + 2
    marker = rng.gamma(2.0, 20.0, shape).clip(0, 255).astype(np.uint8)
    stain = (rng.gamma(2.0, 10.0, shape) + 60 * (data > 0)).clip(0, 255).astype(np.uint8)
    return Labels(data), marker, stain


def slow_scale(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    sample = np.sort(image[:, ::2, ::2].ravel().astype(float))
    low, middle, high = np.percentile(sample, [16, 50, 99.8])
    span = max(high - middle, 1e-6)
    scaled = np.array([max(v - middle, 0) / span for v in image.ravel().astype(float)]) ** 0.5
    noise = (4 * max(middle - low, 0) / span) ** 0.5
    return scaled.reshape(image.shape), float(min(max(noise, 0.15), 0.6))


def slow_shell(labels: NDArray[np.int32], z: int, y: int, x: int) -> int:
    """The nucleus nearest to a voxel of none, in its slice, within reach; 0 for none."""
    owner, nearest = 0, SHELL * SHELL + 1
    for v in range(labels.shape[1]):
        for u in range(labels.shape[2]):
            d = (v - y) ** 2 + (u - x) ** 2
            if labels[z, v, u] and max(abs(v - y), abs(u - x)) <= SHELL and d < nearest:
                owner, nearest = int(labels[z, v, u]), d
    return owner


def slow_evidence(
    labels: NDArray[np.int32], marker: NDArray[np.uint8], stain: NDArray[np.uint8], nucleus: int
) -> dict[str, float]:
    """Every feature of one nucleus, voxel by voxel."""
    light, threshold = slow_scale(marker)
    nuclear, _ = slow_scale(stain)
    n_z = labels.shape[0]
    voxels = np.argwhere(labels == nucleus)
    area = np.array([(voxels[:, 0] == z).sum() for z in range(n_z)])
    inside: dict[int, list[float]] = {z: [] for z in range(n_z)}
    shell: dict[int, list[float]] = {z: [] for z in range(n_z)}
    caps: list[float] = []
    for z, y, x in voxels.tolist():
        inside[z].append(light[z, y, x])
        caps += [
            light[w, y, x] for w in (z - 1, z + 1) if 0 <= w < n_z and labels[w, y, x] != nucleus
        ]
    for z, y, x in np.argwhere(labels == 0).tolist():
        if slow_shell(labels, z, y, x) == nucleus:
            shell[z].append(light[z, y, x])
    everything = [v for z in range(n_z) for v in inside[z]]
    around = [v for z in range(n_z) for v in shell[z]]
    looked = [z for z in range(n_z) if area[z] >= max(MIN_SECTION * area.max(), 1)]
    means = {z: float(np.mean(inside[z])) for z in looked}
    on = {z: float(np.mean(np.array(inside[z]) > threshold)) for z in looked}
    shells = {z: float(np.mean(shell[z])) if shell[z] else means[z] for z in looked}
    mean = float(np.mean(everything))
    shell_mean = float(np.mean(around)) if around else mean
    cap = float(np.mean(caps)) if caps else mean
    sums = np.array([sum(inside[z]) for z in range(n_z)])
    a, m = area - area.mean(), sums - sums.mean()
    scale = float(np.sqrt((a**2).sum() * (m**2).sum()))
    return {
        "mean": mean,
        "best_slice": max(means.values()),
        "weakest_slice": min(means.values()),
        "middle_slice": means[int(area.argmax())],
        "on_fraction": float(np.mean(np.array(everything) > threshold)),
        "best_overlap": max(on.values()),
        "weakest_overlap": min(on.values()),
        "shell": shell_mean,
        "best_shell": max(shells.values()),
        "core_minus_shell": mean - shell_mean,
        "caps": cap,
        "core_minus_caps": mean - cap,
        "profile": float((a * m).sum() / max(scale, 1e-9)),
        "nuclear_stain": float(np.mean([nuclear[tuple(v)] for v in voxels])),
        "log_volume": float(np.log(len(voxels))),
    }


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_evidence_equals_a_slow_loop(seed: int) -> None:
    labels, marker, stain = scene(seed)
    found = marker_evidence(labels, marker, stain)
    assert found.ids.tolist() == labels.ids().tolist()
    for row, nucleus in enumerate(found.ids.tolist()):
        expected = slow_evidence(labels.data, marker, stain, nucleus)
        assert list(expected) == list(FEATURES)
        got = dict(zip(FEATURES, found.values[row].tolist(), strict=True))
        assert got == pytest.approx(expected, abs=2e-5)


def test_overlap_is_the_share_of_each_section_and_nan_without_one() -> None:
    labels, marker, stain = scene(5)
    found = marker_evidence(labels, marker, stain)
    light, threshold = marker_scale(marker)
    for row, nucleus in enumerate(found.ids):
        for z in range(labels.shape[0]):
            section = labels.data[z] == nucleus
            expected = (light[z][section] > threshold).mean() if section.any() else np.nan
            assert found.overlap[row, z] == pytest.approx(expected, nan_ok=True)


def pillar(marked: slice) -> tuple[Labels, NDArray[np.uint8], NDArray[np.uint8]]:
    """One nucleus in slices 3 to 5 of nine, a marker over it in some slices, dark elsewhere."""
    data = np.zeros((9, 40, 40), np.int32)
    data[3:6, 16:24, 16:24] = 1
    marker = np.full(data.shape, 5, np.uint8)
    marker[marked, 14:26, 14:26] = 200
    marker[:, :6, :6] = 200  # the brightest of the stack is the same in every case
    return Labels(data), marker, np.where(data > 0, 180, 5).astype(np.uint8)


def test_a_marker_above_or_below_leaves_the_inside_as_it_was() -> None:
    dark = marker_evidence(*pillar(slice(0, 0)))
    above = marker_evidence(*pillar(slice(0, 3)))
    below = marker_evidence(*pillar(slice(6, 9)))
    within = marker_evidence(*pillar(slice(3, 6)))
    for other in (above, below):
        for name in ("mean", "best_slice", "on_fraction", "best_overlap", "shell", "best_shell"):
            assert other.column(name) == pytest.approx(dark.column(name)), name
        assert other.column("caps") > dark.column("caps") + 0.1
        assert other.column("core_minus_caps") < -0.1
    assert within.column("mean") > 0.9
    assert within.column("core_minus_caps") > 0.9


@pytest.mark.parametrize("rule", [AnySlice(), NucleusFraction(), CoreAgainstShell()])
def test_the_rules_tell_a_marked_nucleus_from_one_under_a_marker(rule: MarkerRule) -> None:
    assert rule(marker_evidence(*pillar(slice(3, 6))))[0] >= 0.5
    assert rule(marker_evidence(*pillar(slice(0, 3))))[0] < 0.5
    assert rule(marker_evidence(*pillar(slice(0, 0))))[0] < 0.5


def test_one_marked_slice_makes_any_slice_positive_and_nucleus_fraction_not() -> None:
    evidence = marker_evidence(*pillar(slice(5, 6)))
    assert AnySlice(0.5)(evidence)[0] >= 0.5
    assert NucleusFraction(0.5)(evidence)[0] < 0.5
    assert evidence.column("weakest_overlap")[0] == 0


def glowing(glow: int, n: int = 16) -> Evidence:
    """A quarter of the nuclei carry marker, on tissue that glows; a bright spot sets the scale."""
    data = np.zeros((3, 80, 120), np.int32)
    marker = np.zeros(data.shape, np.uint8)
    marker[:, 4:64, 4:64] = glow
    for i in range(n):
        y, x = 6 + 15 * (i // 4), 6 + 15 * (i % 4)
        data[:, y : y + 6, x : x + 6] = i + 1
        if i % 4 == 0:
            marker[:, y : y + 6, x : x + 6] = 120
    marker[1, 68:72, 4:30] = 200
    return marker_evidence(Labels(data), marker, marker)


def test_autofluorescence_is_taken_off_the_levels() -> None:
    bright = glowing(5)
    negative = np.arange(16) % 4 != 0
    assert np.abs(bright.column("mean")[negative]).max() < 0.02
    assert bright.column("mean")[~negative].min() > 0.4
    assert np.allclose(bright.column("shell")[negative], 0.0, atol=0.02)


def test_few_nuclei_and_much_light_are_no_autofluorescence() -> None:
    few = glowing(5, n=GLOW_NUCLEI - 1)
    assert few.column("mean")[1] > 0.1
    everywhere = glowing(90)
    assert everywhere.column("shell").min() > 0.3


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_renumbering_nuclei_changes_no_evidence(seed: int) -> None:
    labels, marker, stain = scene(seed)
    ids = labels.ids()
    rng = np.random.default_rng(seed)
    table = np.zeros(int(ids.max(initial=0)) + 1, np.int32)
    table[ids] = rng.permutation(len(ids)) + 10
    one = marker_evidence(labels, marker, stain)
    other = marker_evidence(Labels(table[labels.data]), marker, stain)
    order = np.searchsorted(other.ids, table[one.ids])
    assert np.allclose(other.values[order], one.values)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.sampled_from([2, 5, 257]), offset=st.integers(0, 500))
def test_gain_and_offset_of_the_camera_change_no_evidence(
    seed: int, gain: int, offset: int
) -> None:
    labels, marker, stain = scene(seed)
    brighter = (marker.astype(np.uint16) // 2 * gain + offset).clip(0, 65535).astype(np.uint16)
    halved = (marker // 2).astype(np.uint8)
    one = marker_evidence(labels, halved, stain)
    other = marker_evidence(labels, brighter, stain)
    assert np.allclose(one.values, other.values, atol=1e-3)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_marker_is_finite_and_off(value: int, dtype: type) -> None:
    labels, _, stain = scene(1)
    found = marker_evidence(labels, np.full(labels.shape, value, dtype), stain)
    assert np.isfinite(found.values).all()
    assert (found.column("on_fraction") == 0).all()


def test_nuclei_packed_wall_to_wall_have_finite_evidence() -> None:
    data = np.ones((3, 8, 8), np.int32)
    data[:, :, 4:] = 2
    marker = np.random.default_rng(0).integers(0, 255, data.shape).astype(np.uint8)
    found = marker_evidence(Labels(data), marker, marker)
    assert np.isfinite(found.values).all()
    assert found.column("core_minus_shell") == pytest.approx([0, 0])


def test_one_voxel_in_one_slice_has_finite_evidence() -> None:
    data = np.zeros((1, 3, 3), np.int32)
    data[0, 1, 1] = 4
    found = marker_evidence(Labels(data), np.eye(3, dtype=np.uint8)[None], data)
    assert found.ids.tolist() == [4]
    assert np.isfinite(found.values).all()


def test_no_nucleus_gives_empty_evidence() -> None:
    labels = Labels(np.zeros((2, 5, 5), np.int32))
    found = marker_evidence(labels, np.zeros((2, 5, 5)), np.zeros((2, 5, 5)))
    assert found.values.shape == (0, len(FEATURES))
    assert found.overlap.shape == (0, 2)
    assert all(len(make()(found)) == 0 for make in RULES.values())


def test_shapes_that_differ_are_refused() -> None:
    labels = Labels(np.zeros((2, 5, 5), np.int32))
    with pytest.raises(InputError, match="differ in shape"):
        marker_evidence(labels, np.zeros((2, 5, 4)), np.zeros((2, 5, 5)))
    with pytest.raises(InputError, match="differ in shape"):
        marker_evidence(labels, np.zeros((2, 5, 5)), np.zeros((1, 5, 5)))


# ---------------------------------------------------------------- scale


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), top=st.integers(2, 255))
def test_the_scale_equals_a_slow_loop(seed: int, top: int) -> None:
    image = np.random.default_rng(seed).integers(0, top, (2, 9, 10)).astype(np.uint8)
    scaled, threshold = marker_scale(image)
    expected, expected_threshold = slow_scale(image)
    assert np.allclose(scaled, expected, atol=1e-5)
    assert threshold == pytest.approx(expected_threshold, abs=1e-6)


def test_a_marker_that_is_only_noise_makes_no_nucleus_positive() -> None:
    noise = np.random.default_rng(0).poisson(20, (4, 64, 64)).astype(np.uint8)
    data = np.zeros(noise.shape, np.int32)
    for i, (y, x) in enumerate(np.ndindex(4, 4)):
        data[1:3, 16 * y + 4 : 16 * y + 12, 16 * x + 4 : 16 * x + 12] = i + 1
    evidence = marker_evidence(Labels(data), noise, noise)
    for make in RULES.values():
        assert (make()(evidence) < 0.5).all()


# ---------------------------------------------------------------- rules


def rows(n: int, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    return Evidence(np.arange(n), rng.random((n, len(FEATURES))), rng.random((n, 3)))


class TestAnySlice(RuleContract):
    rule = AnySlice()


class TestNucleusFraction(RuleContract):
    rule = NucleusFraction()


class TestCoreAgainstShell(RuleContract):
    rule = CoreAgainstShell()


class TestLearned(RuleContract):
    rule = Learned(tuple(0.1 * i for i in range(len(FEATURES))), -0.5)


@dataclass(frozen=True)
class WeakestSlice:
    """What a stranger writes: positive when even the darkest section is marked."""

    level: float = 0.25

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        value = evidence.column("weakest_slice")
        return np.clip(0.5 + (value - self.level), 0.0, 1.0)


class TestAStrangersRule(RuleContract):
    rule = WeakestSlice()


def test_a_strangers_rule_is_one_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(markers.RULES, "weakest_slice", WeakestSlice)
    rule = marker_rule("weakest_slice", level=0.6)
    assert rule == WeakestSlice(0.6)
    assert rule(marker_evidence(*pillar(slice(3, 6))))[0] > 0.5
    assert rule(marker_evidence(*pillar(slice(5, 6))))[0] < 0.5


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda e: e.column("mean")[:1], "one probability per nucleus"),
        (lambda e: e.column("log_volume") + 2, "between 0 and 1"),
        (lambda e: np.full(len(e.ids), np.nan), "between 0 and 1"),
        (lambda e: np.linspace(0, 1, len(e.ids)), "depend"),
        (lambda e: e.column("mean") > 0.5, "float"),
        (lambda e: e.values.__imul__(0.5)[:, 0], "changed the evidence"),
    ],
    ids=["short", "beyond one", "nan", "by position", "bool", "in place"],
)
def test_the_contract_catches_a_wrong_rule(
    wrong: Callable[[Evidence], NDArray[np.float64]], what: str
) -> None:
    class Case(RuleContract):
        rule = staticmethod(wrong)

    case = Case()
    checks = [getattr(case, name) for name in dir(case) if name.startswith("test_")]
    sentences = []
    for check in checks:
        try:
            check()
        except (AssertionError, ValueError) as error:
            sentences.append(str(error))
    assert any(what in sentence for sentence in sentences), sentences


@pytest.mark.parametrize("name", sorted(RULES))
def test_rules_by_name_pass_the_contract(name: str) -> None:
    class Case(RuleContract):
        rule = marker_rule(name)

    case = Case()
    for check in (getattr(case, n) for n in dir(case) if n.startswith("test_")):
        check()


def test_an_unknown_rule_names_those_there_are() -> None:
    with pytest.raises(CallError, match="any_slice, fraction, ring"):
        marker_rule("nonsense")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("any_slice", AnySlice()),
        ("any_slice:0.5", AnySlice(0.5)),
        ("fraction:0.25", NucleusFraction(0.25)),
        ("ring:0.4", CoreAgainstShell(0.4)),
    ],
)
def test_a_rule_can_be_asked_for_in_one_word(text: str, rule: MarkerRule) -> None:
    assert rule_named(text) == rule


@pytest.mark.parametrize("text", ["ring:", "ring:much", "ring:0", "ring:1.5", "ring:nan"])
def test_a_threshold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CallError, match="between 0 and 1"):
        rule_named(text)


@pytest.mark.parametrize("text", ["halo", "halo:0.3", ""])
def test_an_unknown_word_names_the_rules(text: str) -> None:
    with pytest.raises(CallError, match="any_slice, fraction, ring"):
        rule_named(text)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_the_threshold_is_where_the_probability_is_a_half(threshold: float) -> None:
    evidence = rows(1)
    for rule, name in ((AnySlice(threshold), "best_overlap"),
                       (NucleusFraction(threshold), "on_fraction")):  # fmt: skip
        evidence.values[0, FEATURES.index(name)] = threshold
        assert rule(evidence)[0] == pytest.approx(0.5)


def test_the_learned_rule_finds_the_feature_that_tells() -> None:
    evidence = rows(200)
    truth = evidence.column("core_minus_shell") > 0.5
    rule = fit_learned(evidence, truth)
    assert ((rule(evidence) >= 0.5) == truth).mean() > 0.97
    spread = np.array(rule.weights) * evidence.values.std(axis=0)
    assert int(np.abs(spread).argmax()) == FEATURES.index("core_minus_shell")


def test_the_learned_rule_does_not_care_for_units() -> None:
    evidence, truth = rows(100), rows(100).column("mean") > 0.4
    scaled = Evidence(evidence.ids, evidence.values * 1000 + 5, evidence.overlap)
    assert np.allclose(
        fit_learned(evidence, truth)(evidence), fit_learned(scaled, truth)(scaled), atol=1e-4
    )


def test_a_constant_feature_does_no_harm() -> None:
    evidence = rows(40)
    evidence.values[:, 3] = 0.25
    rule = fit_learned(evidence, evidence.column("mean") > 0.5)
    assert np.isfinite(rule.weights).all()
    assert np.isfinite(rule.logit(evidence)).all()


def test_more_strength_bends_more() -> None:
    evidence, truth = rows(100), rows(100).column("mean") > 0.4
    weak = np.abs(fit_learned(evidence, truth, strength=0.01).weights).sum()
    strong = np.abs(fit_learned(evidence, truth, strength=10.0).weights).sum()
    assert strong > 3 * weak


@pytest.mark.parametrize("value", [True, False])
def test_one_type_alone_teaches_nothing(value: bool) -> None:
    with pytest.raises(InputError, match="of one type"):
        fit_learned(rows(9), np.full(9, value))


def test_a_learned_rule_with_too_few_weights_is_refused() -> None:
    with pytest.raises(InputError, match=f"{len(FEATURES)} weights; found 2"):
        Learned((1.0, 2.0), 0.0)


def test_the_logistic_function_is_exact_at_both_ends_and_odd() -> None:
    values = np.array([-1e4, -700.0, -3.0, 0.0, 3.0, 700.0, 1e4])
    p = sigmoid(values)
    assert p[[0, 3, -1]].tolist() == [0.0, 0.5, 1.0]
    assert p + p[::-1] == pytest.approx(np.ones(7))
    assert p[4] == pytest.approx(1 / (1 + np.exp(-3)))
