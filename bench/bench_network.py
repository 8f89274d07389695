"""The light network beside HoVer-Net: forward time per Mpx (G2a) and training steps (G3a, G3c).

Both run here, in one process, on the same image, turn by turn, in eager float32 with channels last.
Weights are random: this measures time and says nothing about accuracy, so a ratio counts only
beside the F1 of both networks on the same test images. Each forward is checked in
the same run to give finite maps that cover the image exactly once.

    python bench/bench_network.py [--quick] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nucleoscope.learn.contrast import PixelContrast
from nucleoscope.learn.losses import hv_loss, nc_loss, np_loss
from nucleoscope.learn.nets.hovernet import HoverNet
from nucleoscope.learn.nets.light import LightNet

HALO = 32
CHANNELS, CLASSES, HEAD = 2, 3, 32
HOVER, FLAT, DEEP = "HoVer-Net fast", "light, 2D", "light, slice +-2"
EVERY, SECOND = "light + contrast at 1/2", "light + contrast at 1/4"


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


def light_forward(net: LightNet, image: Tensor) -> dict[str, Tensor]:
    """The image with a halo as one tile, brought back to full resolution."""
    size = image.shape[-1]
    beyond = -(size + 2 * HALO) % 16
    padded = F.pad(image, (HALO, HALO + beyond, HALO, HALO + beyond), mode="reflect")
    start, stop = HALO // net.stride, (HALO + size) // net.stride
    maps = {k: v[:, :, start:stop, start:stop] for k, v in net(padded).items()}
    return {k: F.interpolate(v, scale_factor=net.stride)[0] for k, v in maps.items()}


def forward(size: int, turns: int) -> None:
    hover = HoverNet(CHANNELS, CLASSES).eval().to(memory_format=torch.channels_last)
    flat = LightNet(CHANNELS, CLASSES, context=0).eval().to(memory_format=torch.channels_last)
    deep = LightNet(CHANNELS, CLASSES, context=2).eval().to(memory_format=torch.channels_last)
    image = torch.rand((1, CHANNELS, size, size)).contiguous(memory_format=torch.channels_last)
    stack = image.repeat(1, 5, 1, 1).contiguous(memory_format=torch.channels_last)
    runs = {
        HOVER: lambda: hover_forward(hover, image),
        FLAT: lambda: light_forward(flat, image),
        DEEP: lambda: light_forward(deep, stack),
    }
    timings = {name: Timing(size * size / 1e6) for name in runs}
    with torch.inference_mode():
        hover(image[..., :96, :96])
        runs[FLAT]()
        runs[DEEP]()
        for _ in range(turns):
            for name, run in runs.items():
                check(name, timings[name].turn(run), size)
    costs()
    table(f"G2a forward, {size} x {size} px, {turns} turns, seconds per Mpx", timings, "s/Mpx")


def costs() -> None:
    """Arithmetic per Mpx of answer, halo of a 512 px tile included."""
    with torch.device("meta"):
        cases = (
            (HOVER, HoverNet(CHANNELS, CLASSES), CHANNELS, 256, 164),
            (FLAT, LightNet(CHANNELS, CLASSES, context=0), CHANNELS, 512, 512 - 2 * HALO),
            (DEEP, LightNet(CHANNELS, CLASSES, context=2), 5 * CHANNELS, 512, 512 - 2 * HALO),
        )
        for name, net, channels, side, answer in cases:
            with FlopCounterMode(display=False) as counter:
                net(torch.zeros(1, channels, side, side))
            print(f"{name:26s}{counter.get_total_flops() / 1e3 / answer**2:10.1f} GFLOP/Mpx")


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


def light(*, every_second: bool = False) -> LightNet:
    net = LightNet(CHANNELS, CLASSES, context=0, head_dim=HEAD)
    if every_second:  # the pixels PixelContrast reads its labels at
        net.embed.register_forward_pre_hook(lambda _, inputs: (inputs[0][..., 1::2, 1::2],))
    return net


def training(turns: int, light_turns: int) -> None:
    steps = {
        HOVER: Step(HoverNet(CHANNELS, CLASSES), 1, 164, 2),
        FLAT: Step(light(), 4, 128, 3),
        EVERY: Step(light(), 4, 128, 3, contrast=True),
        SECOND: Step(light(every_second=True), 4, 128, 3, contrast=True),
    }
    timings = {name: Timing(1 if name == HOVER else 4) for name in steps}
    ours = [name for name in steps if name != HOVER]
    for name in ours * 2:
        steps[name]()
    for _ in range(turns):
        timings[HOVER].turn(steps[HOVER])
        for name in ours * light_turns:
            timings[name].turn(steps[name])
    table("G3a training step, 256 px, batch 1 and 4, seconds per patch", timings, "s/patch")
    alone = timings[FLAT].per_unit()
    for name in (EVERY, SECOND):
        wall, cpu = (
            100 * (a / b - 1) for a, b in zip(timings[name].per_unit(), alone, strict=True)
        )
        print(f"G3c {name}: {wall:+.1f} % wall, {cpu:+.1f} % cpu per step, head included")
    print(f"G3b light batch-4 steps in 30 min on this setting: {1800 / (4 * alone[0]):.0f}")


def table(title: str, timings: dict[str, Timing], unit: str) -> None:
    print(f"\n{title}")
    print(f"{'':26s}{'wall ' + unit:>14s}{'cpu ' + unit:>14s}{'x wall':>9s}{'x cpu':>9s}")
    peer = timings[HOVER].per_unit()
    for name, timing in timings.items():
        wall, cpu = timing.per_unit()
        ratios = f"{peer[0] / wall:9.1f}{peer[1] / cpu:9.1f}"
        print(f"{name:26s}{wall:14.4f}{cpu:14.4f}{ratios}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller image and one turn")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {chosen.threads} thread(s), eager float32, channels last")
    forward(328 if chosen.quick else 656, 1 if chosen.quick else 2)
    training(1 if chosen.quick else 2, 5)


if __name__ == "__main__":
    main()
