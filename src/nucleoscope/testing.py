"""Contracts for whoever adds to nucleoscope: subclass one in a test module and pytest runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.data.volume import Volume
from nucleoscope.errors import NucleoscopeError
from nucleoscope.io.guard import write_bytes
from nucleoscope.nuclei.markers import FEATURES, Evidence, MarkerRule

__all__ = ["ReaderContract", "RuleContract", "refusal"]


def refusal(action: Callable[[], Any]) -> NucleoscopeError | None:
    """The error of ours that ``action`` raised, or None when it returned.

    Raises
    ------
    AssertionError
        Another class of error came out, or the message is more than one line.

    Examples
    --------
    >>> from nucleoscope.io.images import read_volume
    >>> type(refusal(lambda: read_volume("nowhere.tif"))).__name__
    'InputError'
    """
    try:
        action()
    except NucleoscopeError as error:
        _demand("\n" not in str(error).strip(), f"an error takes one line, not {error}")
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} came out: {error}") from error
    return None


def _demand(holds: bool, otherwise: str) -> None:
    """Fail with a sentence."""
    if not holds:
        raise AssertionError(otherwise)


def _overwrite(path: Path, data: bytes) -> None:
    """Damage a file of this test."""
    write_bytes(path, data, overwrite=True)


class ReaderContract:
    """What every image format must pass; subclass it, give ``read`` and ``write``.

    Attributes
    ----------
    suffix
        Of a file of the format, such as ``".ome.tif"``.
    keeps_scale, keeps_names
        Whether the format stores them.
    volume
        What is written and must come back.

    Examples
    --------
    >>> class TestMyFormat(ReaderContract):
    ...     suffix = ".mine"
    """

    suffix = ".tif"
    keeps_scale = True
    keeps_names = True

    @property
    def volume(self) -> Volume:
        """A small stack in which every plane and every corner is distinct."""
        data = np.arange(2 * 3 * 24 * 20, dtype=np.uint16).reshape(2, 3, 24, 20)
        return Volume(data, ("LT", "DAPI"), (1.5, 0.4, 0.5), "example")

    def read(self, path: Path) -> Volume:
        """Read a file of the format."""
        raise NotImplementedError

    def write(self, path: Path, volume: Volume) -> None:
        """Write one."""
        raise NotImplementedError

    def example(self, folder: Path) -> Path:
        """A file of the format in ``folder``."""
        path = folder / f"example{self.suffix}"
        self.write(path, self.volume)
        return path

    def test_a_round_trip_keeps_every_pixel(self, tmp_path: Path) -> None:
        """Pixels, type and axes come back."""
        volume = self.read(self.example(tmp_path))
        _demand(volume.data.dtype == self.volume.data.dtype, f"dtype {volume.data.dtype}")
        _demand(np.array_equal(volume.data, self.volume.data), "pixels or axes changed")
        _demand(volume.name == "example", f"name {volume.name!r} is not the stem")

    def test_a_round_trip_keeps_names_and_scale(self, tmp_path: Path) -> None:
        """Channel names and spacing come back, or are unknown, never invented."""
        volume = self.read(self.example(tmp_path))
        if self.keeps_names:
            _demand(volume.channels == self.volume.channels, f"channels {volume.channels}")
        if self.keeps_scale:
            same = volume.spacing is not None and np.allclose(
                volume.spacing, self.volume.spacing or ()
            )
            _demand(same, f"spacing {volume.spacing}")
        else:
            _demand(volume.spacing is None, f"a spacing was invented: {volume.spacing}")

    def test_a_missing_file_is_one_sentence(self, tmp_path: Path) -> None:
        """Absent files are named."""
        path = tmp_path / f"absent{self.suffix}"
        error = refusal(lambda: self.read(path))
        _demand(error is not None and "absent" in str(error), f"{error}")

    def test_a_file_cut_short_is_refused_or_whole(self, tmp_path: Path) -> None:
        """Every file of the format, cut at every tenth: refused, or nothing is lost."""
        example = self.example(tmp_path)
        files = [p for p in example.rglob("*") if p.is_file()] if example.is_dir() else [example]
        for file in files:
            whole = file.read_bytes()
            for tenth in range(10):
                _overwrite(file, whole[: len(whole) * tenth // 10])
                self._refused_or_whole(example, f"{file.name} cut at {tenth}0 %")
            _overwrite(file, whole)

    def _refused_or_whole(self, path: Path, what: str) -> None:
        """Accept our errors and the right answer, nothing else."""
        found: list[Volume] = []
        refusal(lambda: found.append(self.read(path)))
        for volume in found:
            _demand(np.array_equal(volume.data, self.volume.data), f"{what}: another image came")

    def test_reading_changes_nothing_on_disk(self, tmp_path: Path) -> None:
        """The folder is the same before and after."""
        example = self.example(tmp_path)

        def snapshot() -> dict[Path, tuple[int, int]]:
            return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}

        before = snapshot()
        self.read(example)
        _demand(snapshot() == before, "reading changed the folder")


class RuleContract:
    """What every marker rule must pass; subclass it and give ``rule``.

    Attributes
    ----------
    rule
        The rule, ready to be called.

    Examples
    --------
    >>> from nucleoscope.nuclei.markers import AnySlice
    >>> class TestMyRule(RuleContract):
    ...     rule = AnySlice(overlap=0.4)
    >>> TestMyRule().test_a_probability_for_every_nucleus()
    """

    rule: MarkerRule

    @property
    def evidence(self) -> Evidence:
        """Forty nuclei, from without any marker to all over it."""
        rng = np.random.default_rng(0)
        values = rng.random((40, len(FEATURES)))
        values[0], values[1] = 0.0, 1.0
        return Evidence(np.arange(1, 41), values, rng.random((40, 5)))

    def _rows(self, rows: Any) -> Evidence:
        """Some of the nuclei."""
        whole = self.evidence
        return Evidence(whole.ids[rows], whole.values[rows], whole.overlap[rows])

    def test_a_probability_for_every_nucleus(self) -> None:
        """Floats between 0 and 1, in the order of the nuclei."""
        p = self.rule(self.evidence)
        _demand(
            np.shape(p) == (40,), f"a rule gives one probability per nucleus, not {np.shape(p)}"
        )
        _demand(p.dtype.kind == "f", f"probabilities are float, not {p.dtype}")
        _demand(bool(((p >= 0) & (p <= 1)).all()), "probabilities lie between 0 and 1")

    def test_no_nucleus_gives_no_probability(self) -> None:
        """An empty image is no special case."""
        p = self.rule(self._rows(slice(0, 0)))
        _demand(np.shape(p) == (0,), f"no nucleus gives an empty answer, not {np.shape(p)}")

    def test_a_nucleus_is_judged_by_its_own_evidence(self) -> None:
        """Neither the order of the nuclei nor the others matter."""
        order = np.random.default_rng(1).permutation(40)
        p, turned = self.rule(self.evidence), self.rule(self._rows(order))
        _demand(len(p) == len(order), "a rule gives one probability per nucleus")
        _demand(np.allclose(p[order], turned), "probabilities depend on the order of the nuclei")
        alone = self.rule(self._rows(slice(7, 8)))
        _demand(np.allclose(p[7:8], alone), "a probability depends on the other nuclei")

    def test_the_evidence_is_left_as_it_was(self) -> None:
        """A rule reads and does not write, and answers the same twice."""
        given = self.evidence
        first = np.array(self.rule(given), copy=True)
        _demand(np.array_equal(given.values, self.evidence.values), "the rule changed the evidence")
        _demand(np.array_equal(first, self.rule(given)), "the rule answers differently twice")
