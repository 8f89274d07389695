"""The light network beside HoVer-Net: forward time per Mpx (G2a, G2c), training steps (G3a, G3c).

All run here, in one process, on the same image, turn by turn. HoVer-Net runs in eager PyTorch,
float32, as published (tiles of 256 px of which 164 px are kept), in the memory order of the
published code and in the faster channels-last order; ours as ``detect`` runs it, in eager PyTorch
and float32 too. Where the CPU multiplies bfloat16 in hardware both are timed in it as well.
Weights are random: this measures time and says nothing about accuracy, so a ratio counts only
beside the F1 of both networks on the same test images. Each forward is checked in the same run to
give finite maps that cover the image exactly once.

    python bench/bench_network.py [--quick] [--threads 1] [--part forward|training]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nucleoscope.learn.contrast import PixelContrast
from nucleoscope.learn.infer import CORE, _windows, fused, has_amx
from nucleoscope.learn.losses import hv_loss, nc_loss, np_loss
from nucleoscope.learn.nets import Network
from nucleoscope.learn.nets.hovernet import HoverNet
from nucleoscope.learn.nets.light import LightNet

CHANNELS, CLASSES, HEAD = 2, 3, 32
HOVER, TURNED = "HoVer-Net, as published", "HoVer-Net, channels last"
FLAT, DEEP = "light, 2D", "light, slice +-2"
CONTRAST = "light, 2D, with contrast"
#: Dense convolutions whose best rate is taken for what the machine can do: (channels, side).
DENSE = ((64, 160), (128, 96), (256, 64))


@dataclass
class Timing:
    """Wall and CPU seconds of the turns of one contestant, each doing ``work`` units."""

    work: float
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def turn(self, run: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return result

    def per_unit(self) -> tuple[float, float]:
        return statistics.median(self.wall) / self.work, statistics.median(self.cpu) / self.work


# --- forward ------------------------------------------------------------------------------------


def hover_forward(net: HoverNet, image: Tensor) -> dict[str, Tensor]:
    """Tiles of 256 px with 164 px of answer, as the published inference."""
    step, half = 256 - net.margin, net.margin // 2
    padded = F.pad(image, (half,) * 4, mode="reflect")
    size = image.shape[-1]
    out = {k: torch.full((c, size, size), torch.nan) for k, c in (("np", 2), ("hv", 2), ("nc", 3))}
    for y in range(0, size, step):
        for x in range(0, size, step):
            maps = net(padded[..., y : y + 256, x : x + 256])
            for name, values in out.items():
                values[:, y : y + step, x : x + step] = maps[name][0]
    return out


def light_forward(net: Network, image: Tensor) -> dict[str, Tensor]:
    """The image in one piece, as ``predict`` runs it, brought back to full resolution."""
    size = image.shape[-1]
    beyond = -size % 16
    padded = F.pad(image, (0, beyond, 0, beyond), mode="replicate")
    maps = net(padded.contiguous(memory_format=torch.channels_last))
    return {k: F.interpolate(v, scale_factor=2)[0, :, :size, :size] for k, v in maps.items()}


def forward(size: int, turns: int) -> None:
    plain = HoverNet(CHANNELS, CLASSES).eval()
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    flat = fused(LightNet(CHANNELS, CLASSES, context=0))
    deep = fused(LightNet(CHANNELS, CLASSES, context=2))
    image = torch.rand((1, CHANNELS, size, size))
    last = image.contiguous(memory_format=torch.channels_last)
    stack = image.repeat(1, 5, 1, 1)
    runs = {
        HOVER: lambda: hover_forward(plain, image),
        TURNED: lambda: hover_forward(turned, last),
        FLAT: lambda: light_forward(flat, image),
        DEEP: lambda: light_forward(deep, stack),
    }
    work = size * size / 1e6
    title = f"{size} x {size} px, seconds per Mpx of the image"
    timings = race(runs, work, turns, size)
    table(f"G2a forward in float32, {title}, {turns} turns", timings, "s/Mpx")
    costs(timings[DEEP])
    if has_amx():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            table(f"Forward in bfloat16, {title}, 1 turn", race(runs, work, 1, size), "s/Mpx")


def race(
    runs: dict[str, Callable[[], object]], work: float, turns: int, size: int
) -> dict[str, Timing]:
    """Everyone in turn; the light networks, which are soon done, five times a turn."""
    timings = {name: Timing(work) for name in runs}
    with torch.inference_mode():
        runs[FLAT]()
        runs[DEEP]()
        for _ in range(turns):
            for name, run in runs.items():
                for _ in range(1 if name in (HOVER, TURNED) else 5):
                    check(name, timings[name].turn(run), size)
    return timings


def costs(deep: Timing) -> None:
    """Arithmetic per Mpx of image, what the machine can do, and what surrounds cost."""
    print()
    spent = {}
    with torch.device("meta"):
        cases = (
            (HOVER, HoverNet(CHANNELS, CLASSES), CHANNELS, 256, 164),
            (FLAT, LightNet(CHANNELS, CLASSES, context=0), CHANNELS, 512, 512),
            (DEEP, LightNet(CHANNELS, CLASSES, context=2), 5 * CHANNELS, 512, 512),
        )
        for name, net, channels, side, answer in cases:
            with FlopCounterMode(display=False) as counter:
                net(torch.zeros(1, channels, side, side))
            spent[name] = counter.get_total_flops() / 1e3 / answer**2
            print(f"{name:26s}{spent[name]:10.1f} GFLOP/Mpx")
    rate, best = spent[DEEP] / deep.per_unit()[1], dense_rate()
    print(f"G2c {DEEP}: {rate:.0f} GFLOP per CPU second, {100 * rate / best:.0f} % of the "
          f"{best:.0f} of the best dense 3x3 convolution")  # fmt: skip
    for side in (1024, 2048, 8192):
        read = sum(
            (w.outer[2] - w.outer[0]) * (w.outer[3] - w.outer[1])
            for w in _windows(side, side, CORE, LightNet.reach, LightNet.stride)
        )
        print(f"windows of a {side} x {side} image read {read / side**2:.2f} times its pixels")


def dense_rate() -> float:
    """GFLOP per CPU second of the fastest of a few dense 3x3 convolutions."""
    best = 0.0
    for channels, side in DENSE:
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1)
        layer = layer.to(memory_format=torch.channels_last)
        image = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        timing = Timing(1.0)
        with torch.inference_mode():
            for _ in range(20):
                timing.turn(lambda layer=layer, image=image: layer(image))
        best = max(best, 18e-9 * channels**2 * side**2 / min(timing.cpu[1:]))
    return best


def check(name: str, maps: object, size: int) -> None:
    assert isinstance(maps, dict)
    for key, values in maps.items():
        assert values.shape[1:] == (size, size), f"{name}: {key} does not cover the image"
        assert torch.isfinite(values).all(), f"{name}: {key} has holes"


# --- training -----------------------------------------------------------------------------------


def targets(batch: int, side: int, n_maps: int) -> dict[str, Tensor]:
    """Discs on a grid: nuclei of two types, a ring without label around each, background."""
    at = (torch.arange(side) % 24 - 12).float()
    radius = (at[:, None].square() + at[None].square()).sqrt()
    inside, known = radius < 7, (radius < 7) | (radius > 10)
    cell = torch.arange(side) // 24
    ids = torch.where(inside, cell[:, None] * 100 + cell[None] + 1, 0)
    types = torch.where(inside, ids % 2 + 1, 0)
    hv = torch.stack([at[None].expand(side, side), at[:, None].expand(side, side)]) / 7 * inside
    hv = torch.cat([hv, hv[:1] * 0])[:n_maps]
    maps = {"types": types, "inside": inside, "known": known, "ids": ids, "hv": hv}
    return {k: v.expand(batch, *v.shape).contiguous() for k, v in maps.items()}


class Step:
    """One AdamW step of a network with the three branch losses and, if wanted, the contrast."""

    def __init__(
        self,
        net: HoverNet | LightNet,
        batch: int,
        side: int,
        n_maps: int,
        *,
        contrast: bool = False,
    ) -> None:
        self.net = net.train().to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
        self.image = torch.rand((batch, CHANNELS, 256, 256)).contiguous(
            memory_format=torch.channels_last
        )
        self.aim = targets(batch, side, n_maps)
        self.contrast = PixelContrast(CLASSES, HEAD) if contrast else None
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> float:
        aim, maps = self.aim, self.net(self.image, embed=self.contrast is not None)
        loss = np_loss(maps["np"], aim["inside"].long(), aim["known"])
        loss = loss + hv_loss(maps["hv"], aim["hv"], aim["inside"], aim["known"])
        loss = loss + nc_loss(maps["nc"], aim["types"], aim["known"])
        if self.contrast is not None:
            labels = torch.where(aim["known"], aim["types"], -1)
            guess = maps["nc"].argmax(1)
            arguments = (maps["embedding"], labels, guess, aim["ids"])
            loss = loss + self.contrast(*arguments, generator=self.generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.item()


def light() -> LightNet:
    return LightNet(CHANNELS, CLASSES, context=0, head_dim=HEAD)


def training(turns: int, light_turns: int) -> None:
    steps = {
        TURNED: Step(HoverNet(CHANNELS, CLASSES), 1, 164, 2),
        FLAT: Step(light(), 4, 128, 3),
        CONTRAST: Step(light(), 4, 128, 3, contrast=True),
    }
    timings = {name: Timing(1 if name == TURNED else 4) for name in steps}
    ours = [name for name in steps if name != TURNED]
    for name in ours * 2:
        steps[name]()
    for _ in range(turns):
        timings[TURNED].turn(steps[TURNED])
        for name in ours * light_turns:
            timings[name].turn(steps[name])
    table("G3a training step, 256 px, batch 1 and 4, seconds per patch", timings, "s/patch")
    alone = timings[FLAT].per_unit()
    wall, cpu = (
        100 * (a / b - 1) for a, b in zip(timings[CONTRAST].per_unit(), alone, strict=True)
    )
    print(f"G3c contrast: {wall:+.1f} % wall, {cpu:+.1f} % cpu per step, head included")
    print(f"G3b light batch-4 steps in 30 min on this setting: {1800 / (4 * alone[0]):.0f}")


def table(title: str, timings: dict[str, Timing], unit: str) -> None:
    """One row each, with its ratio to the first."""
    print(f"\n{title}")
    print(f"{'':26s}{'wall ' + unit:>14s}{'cpu ' + unit:>14s}{'x wall':>9s}{'x cpu':>9s}")
    peer = next(iter(timings.values())).per_unit()
    for name, timing in timings.items():
        wall, cpu = timing.per_unit()
        ratios = f"{peer[0] / wall:9.1f}{peer[1] / cpu:9.1f}"
        print(f"{name:26s}{wall:14.4f}{cpu:14.4f}{ratios}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller image and one turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=("forward", "training"), help="one of the two only")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {chosen.threads} thread(s)")
    if chosen.part != "training":
        forward(328 if chosen.quick else 656, 1 if chosen.quick else 2)
    if chosen.part != "forward":
        training(1 if chosen.quick else 2, 5)


if __name__ == "__main__":
    main()
