"""Contracts for whoever adds to nucleoscope: subclass one in a test module and pytest runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nucleoscope.data.volume import Volume
from nucleoscope.errors import NucleoscopeError
from nucleoscope.io.guard import write_bytes

__all__ = ["ReaderContract", "refusal"]


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
