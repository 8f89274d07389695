"""Decoding against the literal algorithm, types against loops, targets against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.segmentation import watershed

from nucleoscope.data.maps import HoverMaps
from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.hover import (
    DERIVE,
    LECL,
    PUBLISHED,
    SMOOTH,
    DecodeSettings,
    decode,
    hover_targets,
    instance_types,
    slopes,
)


def tissue(side, seed, density=900):
    """Touching ellipses: instance map."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), dtype=np.int32)
    nearest = np.full((side, side), np.inf)
    y, x = np.mgrid[:side, :side]
    for number in range(1, int(density * side * side / 1e6) + 1):
        cy, cx = rng.uniform(0, side, 2)
        a, b, turn = rng.uniform(8, 14), rng.uniform(7, 12), rng.uniform(0, np.pi)
        along = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn)
        beside = (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        distance = (along / a) ** 2 + (beside / b) ** 2
        wins = (distance < 1) & (distance < nearest)
        labels[wins], nearest[wins] = number, distance[wins]
    return labels


def maps_of(labels, seed=0, noise=0.03, n_types=0):
    """What a good network would answer for an instance map."""
    rng = np.random.default_rng(seed)
    hv = hover_targets(labels) + rng.normal(0, noise, (2, *labels.shape))
    foreground = np.clip((labels > 0) * 0.9 + 0.05 + rng.normal(0, noise, labels.shape), 0, 1)
    types = rng.dirichlet(np.ones(n_types), labels.shape).transpose(2, 0, 1) if n_types else None
    return HoverMaps(
        ndimage.gaussian_filter(foreground, 1).astype(np.float32),
        hv.astype(np.float32),
        None if types is None else types.astype(np.float32),
    )


def literal_decode(maps, opening=5):
    """Graham et al. 2019 section 3.2, step by step, in float64 and on full frames."""

    def without_small(labels, n=10):
        labels = labels.copy()
        labels[(np.bincount(labels.ravel()) < n)[labels]] = 0
        return labels

    def normalised(a):
        span = a.max() - a.min()
        return (a - a.min()) * (1 / span if span > 0 else 0)

    def derivative(plane, axis):
        even, odd = np.ones(1), np.array([-1.0, 1.0])
        for _ in range(20):
            even = np.convolve(even, [1, 1])
        for _ in range(19):
            odd = np.convolve(odd, [1, 1])
        found = normalised(plane.astype(np.float64))
        found = ndimage.correlate1d(found, odd, axis=axis, mode="mirror")
        return 1 - normalised(ndimage.correlate1d(found, even, axis=1 - axis, mode="mirror"))

    nucleus = without_small(ndimage.label(maps.foreground >= 0.5)[0]) > 0
    edge = np.maximum(derivative(maps.hv[0], 1), derivative(maps.hv[1], 0))
    edge = np.maximum(edge - (1 - nucleus), 0)
    energy = (1 - edge) * nucleus
    for axis in (0, 1):
        energy = ndimage.correlate1d(energy, [0.25, 0.5, 0.25], axis=axis, mode="mirror")
    marker = ndimage.binary_fill_holes(nucleus & ~(edge >= 0.4))
    element = np.ones((opening, opening), dtype=bool)
    element[0] = element[-1] = False
    element[0, opening // 2] = element[-1, opening // 2] = True
    marker = ndimage.binary_erosion(marker, element, border_value=1)
    marker = ndimage.binary_dilation(marker, element)
    marker = without_small(ndimage.label(marker)[0])
    return watershed(-energy, markers=marker, mask=nucleus)


def quality(a, b):
    """DQ and SQ (Kirillov et al. 2019) of two instance maps."""
    pairs, shared = np.unique(
        np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    both = (pairs > 0).all(axis=0)
    (i, j), shared = pairs[:, both], shared[both]
    area_a, area_b = np.bincount(a.ravel()), np.bincount(b.ravel())
    iou = shared / (area_a[i] + area_b[j] - shared)
    n = (area_a[1:] > 0).sum() + (area_b[1:] > 0).sum()
    matched = iou > 0.5
    return (2 * matched.sum() / n, iou[matched].mean()) if n else (1.0, 1.0)


@pytest.mark.parametrize("setting", [PUBLISHED, LECL])
@pytest.mark.parametrize(("seed", "noise", "density"), [(0, 0.03, 900), (1, 0.1, 2500)])
def test_decode_gives_the_instances_of_the_literal_algorithm(setting, seed, noise, density):
    maps = maps_of(tissue(320, seed, density), seed, noise)
    ours, literal = decode(maps, settings=setting), literal_decode(maps, setting.opening)
    assert literal.max() > 40
    dq, sq = quality(ours, literal)
    assert dq >= 0.999
    assert sq >= 0.999
    assert ((ours > 0) == (literal > 0)).mean() > 0.9999


def test_crowded_foreground_is_flooded_in_the_order_of_scikit_image():
    labels = tissue(256, 3, density=6000)
    assert (labels > 0).mean() > 0.7
    maps = maps_of(labels, 3)
    dq, sq = quality(decode(maps), literal_decode(maps))
    assert min(dq, sq) >= 0.999


def test_decode_finds_the_nuclei_it_was_given():
    labels = tissue(320, 5, density=500)
    dq, sq = quality(decode(maps_of(labels, 5)), labels)
    assert dq > 0.9
    assert sq > 0.85


def test_a_ring_and_what_it_encloses_are_treated_as_published():
    y, x = np.mgrid[:64, :64] - 32
    r = np.hypot(y, x)
    foreground = ((r < 6) | ((r > 12) & (r < 24))).astype(np.float32)
    hv = np.stack([x, y]).astype(np.float32) / 32
    maps = HoverMaps(foreground, hv)
    assert quality(decode(maps), literal_decode(maps)) == (1.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 30)),
               elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    st.integers(0, 2**31),
)  # fmt: skip
def test_any_map_gives_consecutive_ids_within_the_foreground(foreground, seed):
    rng = np.random.default_rng(seed)
    hv = ndimage.gaussian_filter(rng.normal(size=(2, *foreground.shape)), (0, 2, 2))
    maps = HoverMaps(foreground, hv.astype(np.float32))
    found = decode(maps)
    assert found.dtype == np.int32
    assert not found[foreground < 0.5].any()
    assert np.unique(found[found > 0]).tolist() == list(range(1, found.max() + 1))
    assert quality(found, literal_decode(maps))[0] == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3), (0, 5), (5, 0), (33, 57)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_maps_of_any_shape_hold_no_instance(shape, level):
    constant = np.full(shape, level, dtype=np.float32)
    found = decode(HoverMaps(constant, np.full((2, *shape), 0.3, dtype=np.float32)))
    assert found.shape == shape
    assert not found.any()


def test_foreground_everywhere_decodes_like_the_literal_algorithm():
    labels = tissue(128, 8, density=1500)
    maps = HoverMaps(np.ones((128, 128), np.float32), maps_of(labels, 8).hv)
    dq, sq = quality(decode(maps), literal_decode(maps))
    assert min(dq, sq) >= 0.999


def test_decode_reads_maps_of_any_memory_order():
    maps = maps_of(tissue(96, 2), 2)
    turned = HoverMaps(np.asfortranarray(maps.foreground), np.asfortranarray(maps.hv))
    np.testing.assert_array_equal(decode(turned), decode(maps))


def test_scaling_the_offsets_changes_nothing():
    maps = maps_of(tissue(128, 4), 4)
    scaled = HoverMaps(maps.foreground, maps.hv * np.float32(4))
    np.testing.assert_array_equal(decode(scaled), decode(maps))


def test_slopes_of_the_whole_image_make_a_part_decode_as_in_the_whole():
    labels = tissue(256, 6, density=600)
    maps = maps_of(labels, 6)
    setting = DecodeSettings(slopes=slopes(maps))
    whole = decode(maps, settings=setting)
    np.testing.assert_array_equal(whole, decode(maps))
    part = decode(HoverMaps(maps.foreground[:160], maps.hv[:, :160]), settings=setting)
    inner = np.unique(whole[:100])[1:]
    inner = [i for i in inner if not (whole[130:] == i).any()]
    assert len(inner) > 5
    for number in inner:
        other = np.unique(part[whole[:160] == number])
        assert other.size == 1
        assert (part == other[0]).sum() == (whole == number).sum()


def test_taps_are_the_21_tap_sobel_pair():
    assert np.abs(SMOOTH[1:]).sum() * 2 + SMOOTH[0] == pytest.approx(1)
    assert DERIVE[0] == 0
    assert SMOOTH[1] / SMOOTH[0] == pytest.approx(167960 / 184756)  # binomials of 20


@pytest.mark.parametrize("where", ["foreground", "hv"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(where, value):
    maps = maps_of(tissue(64, 0), 0)
    getattr(maps, where)[..., 20, 20] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        decode(maps)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"edge": 0.0}, {"opening": 4}, {"min_area": 0}]
)
def test_impossible_constants_are_refused(wrong):
    with pytest.raises(CallError):
        DecodeSettings(**wrong)


@pytest.mark.parametrize("vote", ["mean", "majority"])
def test_types_equal_a_loop_over_instances(vote):
    labels = tissue(96, 1) * 3
    maps = maps_of(labels, 1, n_types=4)
    found = instance_types(labels, maps, vote=vote)
    for n, number in enumerate(found.ids):
        inside = labels == number
        mean = maps.types[:, inside].mean(axis=1)
        assert found.score[n] == pytest.approx(maps.foreground[inside].mean(), abs=1e-6)
        np.testing.assert_allclose(found.probabilities[n], mean, atol=1e-6)
        share = np.bincount(maps.types[:, inside].argmax(axis=0), minlength=4) / inside.sum()
        weights = mean if vote == "mean" else share
        best = 1 + int(np.argmax(weights[1:]))
        assert found.type_index[n] == best
        total = weights[1:].sum() if vote == "mean" else 1
        assert found.type_prob[n] == pytest.approx(weights[best] / total, abs=1e-6)


def test_a_nucleus_without_support_for_any_type_is_unclassified():
    labels = np.array([[1, 1, 2, 2, 2]], dtype=np.int32)
    types = np.zeros((3, 1, 5), dtype=np.float32)
    types[0], types[:, 0, 3] = 1.0, [0, 0, 1]
    maps = HoverMaps(np.ones((1, 5), np.float32), np.zeros((2, 1, 5), np.float32), types)
    for vote in ("mean", "majority"):
        found = instance_types(labels, maps, vote=vote)
        assert found.names(["a", "b"]) == ["unclassified", "b"]
        assert np.isnan(found.type_prob[0])
    bare = instance_types(labels, HoverMaps(maps.foreground, maps.hv))
    assert bare.names([]) == ["unclassified"] * 2
    assert bare.score.tolist() == [1.0, 1.0]


def test_types_of_an_empty_map_are_empty():
    empty = np.zeros((4, 4), dtype=np.int32)
    found = instance_types(empty, maps_of(empty, n_types=3))
    assert found.ids.size == found.type_prob.size == 0
    assert found.probabilities.shape == (0, 3)


def test_types_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(4, 4\)"):
        instance_types(np.zeros((4, 4), np.int32), maps_of(np.zeros((5, 4), np.int32)))


def literal_targets(labels):
    target = np.zeros((2, *labels.shape))
    for number in np.unique(labels[labels > 0]):
        y, x = np.nonzero(labels == number)
        for axis, at in ((0, x), (1, y)):
            offset = at - np.floor(at.mean() + 0.5)
            low, high = -offset.min(), offset.max()
            offset[offset < 0] /= low if low > 0 else 1
            offset[offset > 0] /= high if high > 0 else 1
            target[axis, y, x] = offset
    return target


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)),
                  elements=st.sampled_from([0, 0, 1, 2, 900])))  # fmt: skip
def test_targets_equal_a_loop_over_instances(labels):
    found = hover_targets(labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, literal_targets(labels), atol=1e-6)


def test_targets_of_a_stack_are_those_of_its_slices():
    stack = np.stack([tissue(48, 0), 0 * tissue(48, 0), tissue(48, 1)])
    found = hover_targets(stack)
    assert found.shape == (3, 2, 48, 48)
    for z in range(3):
        np.testing.assert_array_equal(found[z], hover_targets(stack[z]))
    assert hover_targets(np.zeros((0, 4, 5), np.int32)).shape == (0, 2, 4, 5)


def test_targets_span_minus_one_to_one_in_each_nucleus():
    labels = tissue(128, 9)
    target = hover_targets(labels)
    for number in np.unique(labels[labels > 0]):
        inside = target[:, labels == number]
        if min(np.ptp(np.nonzero(labels == number), axis=1)) >= 2:
            assert inside.min() == -1.0
            assert inside.max() == 1.0
