"""Benchmarks that make the tables of ``docs/``: long, resumable run by run, rendered from files."""

from __future__ import annotations

from nucleoscope.bench.frame import Benchmark, Budget, Outcome, Place, Run
from nucleoscope.bench.verb import BENCHES, bench

__all__ = ["BENCHES", "Benchmark", "Budget", "Outcome", "Place", "Run", "bench"]
