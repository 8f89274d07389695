"""Recipes by name; impossible ones are refused by name too."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest

from nucleoscope.errors import CallError
from nucleoscope.learn.contrast import ContrastSettings
from nucleoscope.learn.nets import NETWORKS, build_network
from nucleoscope.learn.recipes import PUBLISHED, RECIPES, WARM_UP, Phase, Recipe, cosine, recipe


def test_the_default_is_a_stack_a_light_network_and_whole_nuclei() -> None:
    chosen = recipe("lecl")
    assert chosen == Recipe("lecl")
    assert (chosen.network, chosen.projection, chosen.objective) == ("light", None, "nucleus")
    assert chosen.typing == "nucleus"


def test_the_instant_recipe_trains_nothing() -> None:
    assert recipe("classical").network is None
    assert recipe("classical").steps == 0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_carries_its_name_and_possible_numbers(name: str) -> None:
    chosen = recipe(name)
    assert chosen.name == name
    assert chosen.batch >= 1
    assert chosen.crop % 16 == 0
    assert chosen.context >= 0
    assert chosen.contrast >= 0
    assert 0 < chosen.learning_rate < 0.1
    assert chosen.network is None or chosen.steps > 0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipes_network_can_be_built(name: str) -> None:
    chosen = recipe(name)
    if chosen.network == "light":
        network = build_network(chosen.network, 2, 2, 1, chosen.context)
        assert chosen.crop % network.stride == 0
        assert network.context == chosen.context


def test_a_projection_is_one_plane_without_neighbours() -> None:
    assert all(r.context == 0 for r in RECIPES.values() if r.projection is not None)


def test_recipes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        recipe("lecl").steps = 3  # type: ignore[misc]


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(CallError, match=r"no recipe 'lelc'; there are .*lecl.*classical"):
        recipe("lelc")


def test_an_unknown_network_names_those_there_are() -> None:
    with pytest.raises(CallError, match="no network 'unet'; there are light and hovernet, resunet"):
        recipe("lecl", network="unet")


def test_a_recipe_of_ones_own_stays_as_it_is() -> None:
    own = Recipe("own", context=1, crop=96)
    assert recipe(own) is own
    paper = replace(recipe("lecl-paper", network="hovernet"), crop=64)
    assert recipe(paper) is paper


@pytest.mark.parametrize(
    ("own", "network", "match"),
    [
        (Recipe("own"), "light", "recipe own says its network itself"),
        (Recipe("own", network="hovernet"), None, "recipe own finds 3D centres, which hovernet"),
        (Recipe("own", network="unet"), None, "no network 'unet'"),  # type: ignore[arg-type]
    ],
)
def test_a_recipe_of_ones_own_is_checked(own: Recipe, network: str | None, match: str) -> None:
    with pytest.raises(CallError, match=match):
        recipe(own, network=network)


def test_the_light_network_can_be_asked_for_by_name() -> None:
    assert recipe("lecl", network="light") == recipe("lecl")


def test_a_recipe_without_a_network_takes_none() -> None:
    assert recipe("classical", network="light") == recipe("classical")


def test_hovernet_is_refused_where_centres_are_taught() -> None:
    with pytest.raises(CallError, match="lecl finds 3D centres"):
        recipe("lecl", network="hovernet")


def test_every_network_of_the_table_says_what_it_is() -> None:
    assert "light" in NETWORKS
    network = build_network("light", 2, 2, 1, 1)
    assert network.stride >= 1
    assert network.margin >= 0
    assert network.reach > 0
    assert network.head_dim > 0


def test_an_unknown_network_cannot_be_built() -> None:
    with pytest.raises(CallError, match="no network 'unet'"):
        build_network("unet", 2, 2)


# ---------------------------------------------------------------- published constants


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mip", ("mip", "paper", "pixel", "paper", "any_slice", "linked", 0.0)),
        ("emip", ("emip", "paper", "pixel", "paper", "any_slice", "linked", 0.0)),
        ("lecl-paper", ("emip", "paper", "pixel", "paper", "any_slice", "linked", 1.0)),
        ("qu", ("emip", "paper", "qu", "paper", "any_slice", "components", 0.0)),
        ("full", (None, "labels", "pixel", "hovernet", "nucleus", "linked", 0.0)),
        ("lecl", (None, "default", "nucleus", "default", "nucleus", "peaks", 0.0)),
        ("lecl-contrast", (None, "default", "nucleus", "default", "nucleus", "peaks", 0.1)),
    ],
)
def test_what_a_recipe_is_does_not_hang_on_its_network(
    name: str, expected: tuple[object, ...]
) -> None:
    fields = ("projection", "supervision", "objective", "losses", "typing", "decode", "contrast")
    for network in (None, "light", "hovernet", "resunet"):
        try:
            chosen = recipe(name, network=network)
        except CallError:
            continue
        assert tuple(getattr(chosen, field) for field in fields) == expected


@pytest.mark.parametrize("name", ["mip", "emip", "lecl-paper", "full"])
def test_hovernet_is_trained_as_published(name: str) -> None:
    chosen = recipe(name, network="hovernet")
    assert (chosen.crop, chosen.batch, chosen.learning_rate) == (256, 8, 1e-4)
    assert (chosen.betas, chosen.weight_decay, chosen.decoupled) == ((0.9, 0.999), 0.0, False)
    first, second = chosen.phases
    assert first.frozen
    assert not second.frozen
    assert second.batch == 3
    # Equal epochs: as many crops in either phase.
    assert first.share * 8 == pytest.approx(second.share * 3)
    # A tenth after every quarter of a phase, anew in the second.
    quarters = [chosen.rate(0, first.share * q) for q in (0.1, 0.3, 0.6, 0.9)]
    assert quarters == pytest.approx([1e-4, 1e-5, 1e-6, 1e-7])
    assert chosen.rate(0, first.share + 0.01) == pytest.approx(1e-4)


def test_qu_is_trained_as_published() -> None:
    chosen = recipe("qu", network="resunet")
    assert (chosen.crop, chosen.batch, chosen.learning_rate) == (224, 8, 1e-4)
    assert (chosen.betas, chosen.weight_decay, chosen.decoupled) == ((0.9, 0.99), 1e-4, False)
    epochs, fine = chosen.phases
    assert (epochs.share * 70, fine.share * 70) == (pytest.approx(60), pytest.approx(10))
    assert (epochs.crf, fine.crf) == (0.0, 5e-4)
    assert chosen.rate(0, 0.5) == 1e-4
    assert chosen.rate(0, 0.99) == pytest.approx(1e-5)


def test_qu_takes_every_network_and_resunet_only_qu() -> None:
    assert recipe("qu").network == "light"
    assert recipe("qu").phases[1].crf == 5e-4
    assert recipe("qu", network="hovernet").crop == 256
    assert recipe("qu", network="hovernet").phases == recipe("qu", network="resunet").phases
    for name in ("mip", "emip", "lecl-paper", "full"):
        with pytest.raises(CallError, match="teaches offsets"):
            recipe(name, network="resunet")


def test_the_published_contrast_has_the_published_constants() -> None:
    paper = ContrastSettings.paper()
    assert (paper.temperature, paper.views, paper.max_anchors) == (0.07, 2, 1024)
    assert (paper.bank_size, paper.pixels) == (5000, 10)
    assert (paper.ramp_start, paper.ramp_end, paper.weight) == (0.3, 0.3, 1.0)
    assert not paper.background
    assert not paper.per_nucleus
    assert recipe("lecl-paper").contrast_setting == "paper"


# ---------------------------------------------------------------- phases and rates


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_phases_make_up_the_training(name: str) -> None:
    assert sum(phase.share for phase in recipe(name).phases) == pytest.approx(1.0)


def test_a_phase_lasts_its_share() -> None:
    one, two = Phase(0.25, frozen=True), Phase(0.75)
    chosen = Recipe("x", phases=(one, two))
    assert chosen.phase(0.0) == (one, 0.0)
    assert chosen.phase(0.125) == (one, 0.5)
    assert chosen.phase(0.25) == (two, 0.0)
    assert chosen.phase(1.0) == (two, 1.0)
    assert chosen.phase(3.0) == (two, 1.0)


def test_the_rate_rises_falls_and_never_ends_before_its_time() -> None:
    rates = [cosine(step, step / 200, 1.0) for step in range(200)]
    assert rates[0] == pytest.approx(1 / WARM_UP, rel=0.01)
    top = rates.index(max(rates))
    assert top == WARM_UP - 1
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert 0.009 < cosine(199, 1.0, 1.0) < 0.011
    assert cosine(10**6, 7.0, 1.0) == pytest.approx(0.01)
    assert recipe("lecl").rate(199, 1.0) == cosine(199, 1.0, recipe("lecl").learning_rate)


def test_every_published_network_can_be_built() -> None:
    assert set(PUBLISHED) <= set(NETWORKS)
