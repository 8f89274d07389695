"""Recipes by name; impossible ones are refused by name too."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from nucleoscope.errors import CallError
from nucleoscope.learn.nets import NETWORKS, build_network
from nucleoscope.learn.recipes import RECIPES, Recipe, recipe


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
    with pytest.raises(CallError, match="no network 'unet'; there are light and hovernet"):
        recipe("lecl", network="unet")


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
