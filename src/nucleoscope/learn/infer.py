"""A model's answer for a stack: maps window by window, then nuclei, types and the table.

Maps of neighbouring windows agree because every window brings as much surround as the network
can see, and nuclei are made from the joined maps, so no nucleus is cut at a seam and none is
found twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nucleoscope.data.labels import Labels
from nucleoscope.data.maps import StackMaps
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError
from nucleoscope.learn.feed import SLICES_PER_UNIT
from nucleoscope.learn.mirrored import mirrored_maps
from nucleoscope.learn.model import Model, ModelConfig
from nucleoscope.learn.nets import Network, channels_last
from nucleoscope.learn.normalise import levels, normalise
from nucleoscope.learn.objective import pool_types
from nucleoscope.learn.placement import placed
from nucleoscope.learn.typing import evidence, softmax
from nucleoscope.nuclei.classical import classical_maps
from nucleoscope.nuclei.markers import (
    LEARNED,
    MarkerRule,
    marker_evidence,
    rule_named,
    sigmoid,
)
from nucleoscope.nuclei.measure import measure
from nucleoscope.nuclei.peaks import Peaks, find_peaks, grow
from nucleoscope.nuclei.slices import nuclei_by_slice
from nucleoscope.supervision.pseudo import nuclei_channel

#: Longest side of the part of a window that is kept, in pixels. Every window also reads the
#: network's reach around it, which larger ones waste less on and smaller ones need less memory for.
CORE = 1024
#: Images whose voxels differ from the model's by more than these factors (z, y, x) are resampled.
#: Stacks are coarse in z and differ there by nature, so little is done about it.
SCALE_TOLERANCE = (1.6, 1.15, 1.15)

#: An image is not blown up to more than this many times its voxels.
MOST_VOXELS = 12.0

Progress = Callable[[int, int], None]


def has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware, about 4 times faster then."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())


def accelerators() -> dict[str, bool]:
    """What can make the network faster here."""
    return {"cuda": torch.cuda.is_available(), "bfloat16 in hardware": has_amx()}


def fused(network: Network) -> Network:
    """A copy for inference: every batch normalisation folded into its convolution."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            first, second = module[i], module[i + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[i] = fuse_conv_bn_eval(first, second)
                module[i + 1] = nn.Identity()
    return channels_last(network)


def predict(
    network: Network,
    volume: Volume,
    *,
    radius: float,
    hover: bool = False,
    device: str = "cpu",
    core: int = CORE,
    progress: Progress | None = None,
) -> StackMaps:
    """Maps of a whole stack.

    Parameters
    ----------
    network
        Of ``build_network``.
    volume
        The channels the network expects, in order, at the model's scale.
    radius
        Nucleus radius in pixels, the unit of the offsets.
    hover
        The offsets are HoVer-Net's HV maps and are kept as they are.
    core
        Longest side of the windows, in pixels, at least 16; the answer does not depend on it (to
        float rounding).

    Returns
    -------
    StackMaps
    """
    network = fused(network).to(device)
    level = levels(volume)
    stride, context = network.stride, network.context
    n_z, n_y, n_x = volume.shape
    h, w = -(-n_y // stride), -(-n_x // stride)
    maps: StackMaps | None = None
    windows = list(_windows(n_y, n_x, core, network.reach, stride))
    done = 0
    for window in windows:
        for z, out in _slices(network, volume, level, window, context, device):
            if maps is None:
                maps = StackMaps.blank((n_z, h, w), stride, n_types=out["nc"].shape[0])
            _place(maps, out, z, window, stride, 1.0 if hover else radius / stride)
            done += 1
            if progress is not None:
                progress(done, n_z * len(windows))
    assert maps is not None  # noqa: S101  a volume has a slice
    return maps


@dataclass(frozen=True)
class _Window:
    """Half-open boxes ``(y0, x0, y1, x1)``: what is read, and what of it is kept."""

    outer: tuple[int, int, int, int]
    inner: tuple[int, int, int, int]


def _windows(n_y: int, n_x: int, core: int, reach: int, stride: int) -> Iterator[_Window]:
    """Windows that cover an image; each pixel is kept from exactly one."""
    reach += -reach % 16
    step_y, step_x = _part(n_y, core), _part(n_x, core)
    for y in range(0, n_y, step_y):
        for x in range(0, n_x, step_x):
            inner = (y, x, min(y + step_y, n_y), min(x + step_x, n_x))
            outer = (
                max(0, y - reach), max(0, x - reach),
                min(inner[2] + reach, n_y), min(inner[3] + reach, n_x),
            )  # fmt: skip
            yield _Window(outer, inner)


def _part(length: int, most: int) -> int:
    """Length of the fewest equal parts of at most ``most``, rounded up to whole 16-pixel cells."""
    part = -(-length // -(-length // (most - most % 16)))
    return part + -part % 16


def _slices(
    network: Network,
    volume: Volume,
    level: NDArray[np.float64],
    window: _Window,
    context: int,
    device: str,
) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    """The network's maps of every slice of a window."""
    y0, x0, y1, x1 = window.outer
    pad = [(0, 0), (0, -(y1 - y0) % 16), (0, -(x1 - x0) % 16)]
    n_z = volume.shape[0]
    ready: dict[int, NDArray[np.float32]] = {}
    for z in range(n_z):
        wanted = [min(max(z + k, 0), n_z - 1) for k in range(-context, context + 1)]
        ready = {k: v for k, v in ready.items() if k in wanted}
        for k in wanted:
            if k not in ready:
                plane = normalise(volume.data[:, k, y0:y1, x0:x1], level)
                ready[k] = np.pad(plane, pad, mode="edge")
        # Channel by channel, each with its neighbours, as ``with_neighbours`` orders them.
        stack = np.stack([ready[k] for k in wanted], axis=1)
        image = torch.from_numpy(stack.reshape(1, -1, *stack.shape[2:])).to(device)
        yield z, run_network(network, image)


def run_network(network: Network, image: Tensor) -> dict[str, NDArray[np.float32]]:
    """One forward pass in the fastest exact-enough arithmetic of the machine."""
    image = image.contiguous(memory_format=torch.channels_last)
    kind = image.device.type
    use_half = kind == "cuda" or (kind == "cpu" and has_amx())
    with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=use_half):
        out = network(image)
    return {name: value.float().cpu().numpy()[0] for name, value in out.items()}


def _place(
    maps: StackMaps,
    out: dict[str, NDArray[np.float32]],
    z: int,
    window: _Window,
    stride: int,
    unit: float,
) -> None:
    """Copy the kept part of a window's maps into the stack's."""
    y0, x0, y1, x1 = window.inner
    target = (slice(y0 // stride, -(-y1 // stride)), slice(x0 // stride, -(-x1 // stride)))
    top, left = (y0 - window.outer[0]) // stride, (x0 - window.outer[1]) // stride
    height, width = target[0].stop - target[0].start, target[1].stop - target[1].start
    source = (..., slice(top, top + height), slice(left, left + width))
    odds = out["np"][source]
    maps.foreground[z][target] = sigmoid(odds[1] - odds[0])
    if "centre" in out:
        maps.centre[z][target] = sigmoid(out["centre"][source][0])
    x, y, dz = out["hv"][source]
    maps.offsets[0, z][target] = dz * SLICES_PER_UNIT
    maps.offsets[1, z][target] = y * unit
    maps.offsets[2, z][target] = x * unit
    if maps.types.shape[0]:
        maps.types[:, z][(slice(None), *target)] = out["nc"][source]


@dataclass(frozen=True, eq=False)
class Detection:
    """What was found in one image."""

    labels: Labels
    table: NucleusTable


def maps_of(model: Model, volume: Volume, **options: object) -> StackMaps:
    """The maps of a model for a volume with the model's channels."""
    config = model.config
    if model.network is None:
        stain = nuclei_channel(volume) if volume.is_rgb else volume.data[-1]
        return classical_maps(stain, config.radius_px, config.slice_px)
    network, hover = model.network, config.decode != "peaks"
    if config.views > 1 and options.get("progress") is not None:
        options = {**options, "progress": _in_turn(options["progress"], config.views)}  # type: ignore[arg-type]

    def look(turned: Volume) -> StackMaps:
        return predict(network, turned, radius=config.radius_px, hover=hover, **options)  # type: ignore[arg-type]

    return mirrored_maps(look, volume, views=config.views, stride=network.stride)


def _in_turn(progress: Progress, views: int) -> Progress:
    """Progress over several views of an image as one."""
    done = 0

    def tell(_: int, n: int) -> None:
        nonlocal done
        done += 1
        progress(done, n * views)

    return tell


def find_nuclei(
    maps: StackMaps, config: ModelConfig, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int32], Peaks]:
    """Instance map of ``shape`` and, row by row with its ids, the nuclei's centres and scores."""
    if config.decode != "peaks":
        return nuclei_by_slice(maps, shape, decode=config.decode)
    peaks = find_peaks(maps.centre, config.peak_settings(maps.stride))
    return nuclei_from(maps, peaks, config, shape), peaks


def detect(
    model: Model,
    volume: Volume,
    *,
    region: Region | None = None,
    nuclei_only: bool = False,
    nucleus_radius_um: float | None = None,
    rule: str | MarkerRule | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Detection:
    """Find and type every nucleus of an image.

    Parameters
    ----------
    model
        Of ``learn.train_model`` or ``load_model``.
    volume
        An image that has the model's channels, by name.
    region
        Only nuclei whose centroid lies inside are reported.
    nuclei_only
        Look at the nuclear channel alone and leave types empty.
    nucleus_radius_um
        Typical radius where it differs from that of the training images; the image is then
        looked at as much smaller or larger.
    rule
        Marker rule in place of the model's own, see ``marker_probabilities``.

    Returns
    -------
    Detection
        Instance map ``(Z, Y, X)`` and table; ids run from 1.

    Raises
    ------
    CallError
        A channel of the model is missing, or a radius is given where a scale is unknown.
    """
    config = model.config
    seen = channels_for(config, volume, nuclei_only=nuclei_only)
    factors = scale_factors(seen, config, nucleus_radius_um)
    work = resampled(seen, factors)
    if config.projection == "mip":
        work = replace(work, data=work.data.max(axis=1, keepdims=True))
    options = {"progress": progress, "device": device} if model.network is not None else {}
    maps = maps_of(model, work, **options)
    if model.sieve is not None:
        peaks = sifted(model, maps, work)
        labels = nuclei_from(maps, peaks, config, work.shape)
    else:
        labels, peaks = find_nuclei(maps, config, work.shape)
    logits = network_logits(maps, labels, len(peaks), config)
    if model.typer is not None and not nuclei_only:
        yx = (peaks.zyx[:, 1:] + 0.5) * maps.stride - 0.5
        found_there = evidence_of(work, labels, yx, config)
        chance = model.typer.probabilities(found_there, yx, logits[:, 0])
        logits = np.log(np.maximum(chance, 1e-12))[:, None]
    labels = _on_pixels(labels, (labels.shape[0], *seen.shape[1:]))
    labels = _on_slices(labels, seen)
    is_kept = np.zeros(len(peaks), dtype=bool)
    is_kept[Labels(labels).ids() - 1] = True
    every = Labels(labels, seen.spacing)
    table = measure(every, volume=seen, scores=peaks.score[is_kept])
    if config.placement is not None:
        places = (peaks.zyx[is_kept, 1:] + 0.5) * maps.stride - 0.5
        table = placed(table, places, factors[1:], config.placement, every)
    if not nuclei_only:
        # Before the region is cut out: what a marker means is told from the whole stack.
        table = typed(table, every, seen, logits[is_kept], config, rule=rule)
    if region is not None:
        inside = region.contains(table.frame["y"].to_numpy(), table.frame["x"].to_numpy())
        is_kept[np.flatnonzero(is_kept)[~inside]] = False
        table = NucleusTable(table.frame[inside])
    numbers = np.zeros(len(peaks) + 1, dtype=np.int32)
    numbers[1:][is_kept] = np.arange(1, int(is_kept.sum()) + 1)
    table = NucleusTable(table.frame.assign(id=numbers[table.frame["id"].to_numpy()]))
    return Detection(Labels(numbers[labels], seen.spacing), table)


def channels_for(config: ModelConfig, volume: Volume, *, nuclei_only: bool) -> Volume:
    """The channels the model sees; with ``nuclei_only`` the markers are black.

    Raises
    ------
    CallError
        The image lacks a channel.
    """
    if not nuclei_only or not config.markers:
        missing = [c for c in config.channels if not _has(volume, c)]
        if missing:
            raise CallError(
                f"{volume.name}: the model needs channel {missing[0]}; the image has "
                f"{', '.join(volume.channels)}. Rename it, or look for nuclei alone with "
                "--nuclei-only."
            )
        return volume.select(config.channels)
    stain = config.nuclei or ""
    lone = len(volume.channels) == 1
    nuclei = volume.data[0] if lone else volume.channel(stain)
    data = np.zeros((len(config.channels), *volume.shape), dtype=nuclei.dtype)
    data[-1] = nuclei
    return replace(volume, data=data, channels=config.channels)


def _has(volume: Volume, channel: str) -> bool:
    return channel.casefold() in [name.casefold() for name in volume.channels]


def nuclei_from(
    maps: StackMaps, peaks: Peaks, config: ModelConfig, shape: tuple[int, int, int]
) -> NDArray[np.int32]:
    """Instance map of the peaks, ``shape`` pixels."""
    settings = config.peak_settings(maps.stride)
    n_z, n_y, n_x = shape
    padded = (n_z, maps.foreground.shape[1] * maps.stride, maps.foreground.shape[2] * maps.stride)
    return grow(maps.foreground, maps.offsets, peaks, settings, shape=padded)[:, :n_y, :n_x].copy()


def network_logits(
    maps: StackMaps, labels: NDArray[np.int32], n: int, config: ModelConfig
) -> NDArray[np.float64]:
    """Type logits of every nucleus by the network, ``(n, G, T)``; zeros without a network."""
    n_types = len(config.types)
    groups = max(1, len(config.markers))
    if not maps.types.shape[0] or not n_types:
        return np.zeros((n, groups, n_types))
    coarse: NDArray[np.int64] = np.zeros(maps.foreground.shape, dtype=np.int64)
    part = labels[:, :: maps.stride, :: maps.stride]
    coarse[:, : part.shape[1], : part.shape[2]] = part
    n_z, h, w = maps.foreground.shape
    logits = torch.from_numpy(maps.types).transpose(0, 1).reshape(n_z, groups, 1 + n_types, h, w)
    pooled = pool_types(logits, torch.from_numpy(coarse), n + 1, rule=config.typing)
    return pooled[1:].double().numpy()


def marker_probabilities(
    found: Labels,
    volume: Volume,
    logits: NDArray[np.float64],
    config: ModelConfig,
    rule: str | MarkerRule | None = None,
) -> NDArray[np.float64]:
    """Probability of positive of every nucleus and marker, ``(n, markers)``.

    Parameters
    ----------
    rule
        None: the model's own, what the network says and what the evidence says averaged and
        calibrated. ``learned``: the evidence alone, weighed as learnt from the points. A name of
        ``nuclei.markers.RULES``, with a threshold if need be (``ring:0.4``), or any
        ``MarkerRule``: the evidence weighed by that.

    Raises
    ------
    CallError
        No such rule.
    """
    columns = []
    stain = volume.channel(config.nuclei or -1)
    own = rule_named(rule) if isinstance(rule, str) and rule != LEARNED else rule
    for group, (marker, spec) in enumerate(zip(config.markers, config.marker_rules, strict=True)):
        evidence = marker_evidence(found, volume.channel(marker), stain)
        if own is not None:
            columns.append(spec.rule()(evidence) if isinstance(own, str) else own(evidence))
            continue
        by_network = np.clip(logits[:, group, 1] - logits[:, group, 0], -8, 8)
        by_evidence = np.clip(spec.rule().logit(evidence), -8, 8)
        mixed = spec.network_share * by_network + (1 - spec.network_share) * by_evidence
        columns.append(sigmoid(spec.slope * mixed + spec.offset))
    return np.stack(columns, axis=1) if columns else np.zeros((len(logits), 0))


#: Peaks from this height are asked about.
CANDIDATE = 0.2


def candidates(
    maps: StackMaps, volume: Volume, config: ModelConfig
) -> tuple[Peaks, NDArray[np.float64], NDArray[np.float32]]:
    """Peaks of a colour image that may be nuclei, their places ``(n, 2)`` in pixels, evidence."""
    lowest = config.model_copy(update={"threshold": CANDIDATE})
    peaks = find_peaks(maps.centre, lowest.peak_settings(maps.stride))
    yx = (peaks.zyx[:, 1:] + 0.5) * maps.stride - 0.5
    labels = nuclei_from(maps, peaks, config, volume.shape)
    return peaks, yx, evidence_of(volume, labels, yx, config)


def height_logits(peaks: Peaks) -> NDArray[np.float64]:
    """What the network says of "no nucleus" and "nucleus", ``(n, 2)``."""
    height = np.clip(peaks.score, 1e-6, 1 - 1e-6)
    return np.stack([np.zeros(len(peaks)), np.log(height / (1 - height))], axis=1)


def sifted(model: Model, maps: StackMaps, volume: Volume) -> Peaks:
    """The peaks that the sieve takes for nuclei, with its probability as score, best first."""
    assert model.sieve is not None  # noqa: S101  asked by the caller
    peaks, yx, found = candidates(maps, volume, model.config)
    chance = model.sieve.probabilities(found, yx, height_logits(peaks))[:, 1]
    order = np.argsort(-chance, kind="stable")
    order = order[chance[order] > (model.config.sieve_threshold or 0.5)]
    return Peaks(peaks.zyx[order], chance[order])


def evidence_of(
    volume: Volume, labels: NDArray[np.int32], yx: NDArray[np.float64], config: ModelConfig
) -> NDArray[np.float32]:
    """Evidence ``(n, F)`` of the nuclei of a colour image at the model's scale."""
    mpp = None if config.spacing is None else config.spacing[1]
    return evidence(volume, labels[0], yx, radius=config.radius_px, mpp=mpp)


def evidence_at(
    maps: StackMaps, volume: Volume, yx: NDArray[np.float64], config: ModelConfig
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Evidence, and type logits ``(n, T)``, of nuclei whose centres are known."""
    places = np.concatenate([np.zeros((len(yx), 1)), (yx + 0.5) / maps.stride - 0.5], axis=1)
    peaks = Peaks(places, np.ones(len(yx)))
    labels = nuclei_from(maps, peaks, config, volume.shape)
    logits = network_logits(maps, labels, len(yx), config)[:, 0]
    return evidence_of(volume, labels, yx, config), logits


def types_at(
    model: Model, volume: Volume, yx: NDArray[np.float64], *, device: str = "cpu"
) -> NDArray[np.float64]:
    """Probability of every type for nuclei whose centres are known, ``(n, T)``.

    Parameters
    ----------
    model
        Of colour images, with a ``typer``.
    volume
        A colour image at the model's scale.
    yx
        ``(n, 2)`` centres of all its nuclei in pixels: neighbours count.

    Raises
    ------
    CallError
        The model has no typer.
    """
    if model.typer is None:
        raise CallError("this model does not type nuclei of colour images.")
    options = {"device": device} if model.network is not None else {}
    maps = maps_of(model, volume, **options)
    found, logits = evidence_at(maps, volume, yx, model.config)
    return model.typer.probabilities(found, yx, logits)


def typed(
    table: NucleusTable,
    found: Labels,
    volume: Volume,
    logits: NDArray[np.float64],
    config: ModelConfig,
    *,
    rule: str | MarkerRule | None = None,
) -> NucleusTable:
    """Add ``type``, ``type_prob`` and the markers' columns."""
    frame = table.frame.copy()
    if config.markers:
        probability = marker_probabilities(found, volume, logits, config, rule)
        for group, marker in enumerate(config.markers):
            frame[f"{marker}_prob"] = probability[:, group]
            frame[f"{marker}_positive"] = probability[:, group] >= 0.5
        frame["type"], frame["type_prob"] = _marker_types(probability, config)
    elif config.types:
        share = softmax(logits[:, 0])
        frame["type"] = np.array(config.types, dtype=object)[share.argmax(axis=1)]
        frame["type_prob"] = share.max(axis=1)
    return NucleusTable(frame)


def _marker_types(
    probability: NDArray[np.float64], config: ModelConfig
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """``positive`` / ``negative`` for one marker, else the positive markers joined by ``+``."""
    is_positive = probability >= 0.5
    sure = np.where(is_positive, probability, 1 - probability).prod(axis=1)
    if len(config.markers) == 1:
        return np.where(is_positive[:, 0], "positive", "negative").astype(object), sure
    names = [
        "+".join(m for m, on in zip(config.markers, row, strict=True) if on) or "negative"
        for row in is_positive
    ]
    return np.array(names, dtype=object), sure


def scale_factors(
    volume: Volume, config: ModelConfig, nucleus_radius_um: float | None = None
) -> tuple[float, float, float]:
    """Voxels of the model per voxel of the image along z, y, x; 1 where unknown or close.

    Raises
    ------
    CallError
        A radius is given and the scale of the image or the model is unknown, or the image is far
        too coarse for the model.
    """
    if volume.spacing is None or config.spacing is None:
        if nucleus_radius_um is not None:
            raise CallError(
                f"{volume.name}: a nucleus radius in um needs the voxel size; give it with "
                "--spacing Z,Y,X."
            )
        return (1.0, 1.0, 1.0)
    taught_um = config.radius_px * float(np.sqrt(config.spacing[1] * config.spacing[2]))
    larger = 1.0 if nucleus_radius_um is None else nucleus_radius_um / taught_um
    ratios = np.array(volume.spacing) / (np.array(config.spacing) * larger)
    if volume.shape[0] == 1:
        ratios[0] = 1.0
    close = np.maximum(ratios, 1 / ratios) <= SCALE_TOLERANCE
    z, y, x = np.where(close, 1.0, ratios).tolist()
    if z * y * x > MOST_VOXELS:
        radius_px = taught_um * larger / volume.spacing[1]
        raise CallError(
            f"{volume.name}: its voxels are so much larger than the model's that nuclei would be "
            f"{radius_px:.1f} px in radius here; if they are larger, say so with --nucleus-radius "
            "UM, else train on images of this scale."
        )
    return (z, y, x)


def resampled(volume: Volume, factors: tuple[float, float, float]) -> Volume:
    """The volume with ``factors`` times as many voxels along z, y, x (linear, blurred before)."""
    if factors == (1.0, 1.0, 1.0):
        return volume
    least = (1, 16, 16)
    shape = tuple(
        max(low, round(n * f)) for low, n, f in zip(least, volume.shape, factors, strict=True)
    )
    blur = [max(0.0, 0.5 * (1 / f - 1)) for f in factors]
    data = np.empty((volume.data.shape[0], *shape), dtype=np.float32)
    for c, channel in enumerate(volume.data):
        smooth = ndimage.gaussian_filter(channel.astype(np.float32), blur)
        zoom = [n / m for n, m in zip(shape, channel.shape, strict=True)]
        ndimage.zoom(smooth, zoom, order=1, output=data[c], mode="nearest", grid_mode=True)
    return replace(volume, data=data, spacing=None, is_2d=volume.is_2d)


def _on_slices(labels: NDArray[np.int32], volume: Volume) -> NDArray[np.int32]:
    """An instance map with all slices; one of a projection goes to each nucleus's brightest."""
    n_z = volume.shape[0]
    if labels.shape[0] == n_z:
        return labels
    if labels.shape[0] > 1:
        return _on_pixels(labels, volume.shape)
    ids = Labels(labels).ids()
    light = np.stack([ndimage.mean(plane, labels[0], ids) for plane in volume.data[-1]])
    slice_of = np.zeros(int(ids[-1]) + 1 if len(ids) else 1, dtype=np.int64)
    slice_of[ids] = light.argmax(axis=0) if len(ids) else 0
    out = np.zeros(volume.shape, dtype=np.int32)
    y, x = np.nonzero(labels[0])
    out[slice_of[labels[0, y, x]], y, x] = labels[0, y, x]
    return out


def _on_pixels(labels: NDArray[np.int32], shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """An instance map back on the image's own voxels, by the nearest one."""
    if labels.shape == shape:
        return labels
    z, y, x = (
        ((np.arange(n) + 0.5) * m / n).astype(np.int64)
        for n, m in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(z, y, x)]
