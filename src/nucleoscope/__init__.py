"""nucleoscope: from clicks on nuclei to typed nuclei in 3D, and on to an atlas of the tissue.

Every verb of the command line is a function here with the same name and the same defaults:
``nucleoscope.train(...)``, ``nucleoscope.detect(...)``. They are loaded on first use, so that
``import nucleoscope`` costs milliseconds and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that holds it. This table is the whole public top level.
_HOMES = {
    "Atlas": "nucleoscope.data.atlas",
    "CropStore": "nucleoscope.data.crops",
    "LECLDetector": "nucleoscope.estimators",
    "Labels": "nucleoscope.data.labels",
    "Nuc2Vec": "nucleoscope.estimators",
    "Nuclei": "nucleoscope.data.nuclei",
    "NucleoscopeError": "nucleoscope.errors",
    "NucleusTable": "nucleoscope.data.table",
    "Points": "nucleoscope.data.points",
    "Region": "nucleoscope.data.region",
    "Slide": "nucleoscope.data.slide",
    "Volume": "nucleoscope.data.volume",
    "annotate": "nucleoscope.view.annotate",
    "certificate": "nucleoscope.flow.certify",
    "certify": "nucleoscope.view.certificate",
    "convert": "nucleoscope.flow.convert",
    "crop_nuclei": "nucleoscope.flow.crops",
    "demo": "nucleoscope.showcase",
    "detect": "nucleoscope.flow.lecl",
    "doctor": "nucleoscope.flow.about",
    "embed": "nucleoscope.flow.nuc2vec",
    "evaluate": "nucleoscope.flow.evaluate",
    "info": "nucleoscope.flow.about",
    "load_model": "nucleoscope.learn.model",
    "outline_points": "nucleoscope.flow.clicked",
    "project": "nucleoscope.flow.project",
    "read_atlas": "nucleoscope.io.atlas",
    "read_nuclei": "nucleoscope.io.nuclei",
    "read_points": "nucleoscope.io.points",
    "read_region": "nucleoscope.io.outlines",
    "read_slide": "nucleoscope.io.slides",
    "read_table": "nucleoscope.io.tables",
    "read_volume": "nucleoscope.io.images",
    "report": "nucleoscope.view.results",
    "search": "nucleoscope.flow.atlas",
    "simulate": "nucleoscope.simulator",
    "subtypes": "nucleoscope.flow.atlas",
    "suggest": "nucleoscope.flow.suggest",
    "train": "nucleoscope.flow.lecl",
    "train_encoder": "nucleoscope.flow.nuc2vec",
    "transfer": "nucleoscope.flow.atlas",
    "view": "nucleoscope.view.browse",
}

__all__ = [
    "Atlas",
    "CropStore",
    "LECLDetector",
    "Labels",
    "Nuc2Vec",
    "Nuclei",
    "NucleoscopeError",
    "NucleusTable",
    "Points",
    "Region",
    "Slide",
    "Volume",
    "__version__",
    "annotate",
    "certificate",
    "certify",
    "convert",
    "crop_nuclei",
    "demo",
    "detect",
    "doctor",
    "embed",
    "evaluate",
    "info",
    "load_model",
    "outline_points",
    "project",
    "read_atlas",
    "read_nuclei",
    "read_points",
    "read_region",
    "read_slide",
    "read_table",
    "read_volume",
    "report",
    "search",
    "simulate",
    "subtypes",
    "suggest",
    "train",
    "train_encoder",
    "transfer",
    "view",
]

if TYPE_CHECKING:
    from nucleoscope.data.atlas import Atlas
    from nucleoscope.data.crops import CropStore
    from nucleoscope.data.labels import Labels
    from nucleoscope.data.nuclei import Nuclei
    from nucleoscope.data.points import Points
    from nucleoscope.data.region import Region
    from nucleoscope.data.slide import Slide
    from nucleoscope.data.table import NucleusTable
    from nucleoscope.data.volume import Volume
    from nucleoscope.errors import NucleoscopeError
    from nucleoscope.estimators import LECLDetector, Nuc2Vec
    from nucleoscope.flow.about import doctor, info
    from nucleoscope.flow.atlas import search, subtypes, transfer
    from nucleoscope.flow.certify import certificate
    from nucleoscope.flow.clicked import outline_points
    from nucleoscope.flow.convert import convert
    from nucleoscope.flow.crops import crop_nuclei
    from nucleoscope.flow.evaluate import evaluate
    from nucleoscope.flow.lecl import detect, train
    from nucleoscope.flow.nuc2vec import embed, train_encoder
    from nucleoscope.flow.project import project
    from nucleoscope.flow.suggest import suggest
    from nucleoscope.io.atlas import read_atlas
    from nucleoscope.io.images import read_volume
    from nucleoscope.io.nuclei import read_nuclei
    from nucleoscope.io.outlines import read_region
    from nucleoscope.io.points import read_points
    from nucleoscope.io.slides import read_slide
    from nucleoscope.io.tables import read_table
    from nucleoscope.learn.model import load_model
    from nucleoscope.showcase import demo
    from nucleoscope.simulator import simulate
    from nucleoscope.view.annotate import annotate
    from nucleoscope.view.browse import view
    from nucleoscope.view.certificate import certify
    from nucleoscope.view.results import report


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'nucleoscope' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
