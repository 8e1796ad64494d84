"""Figures of results, and their numbers as columns or CSV.

Each function takes results, or plain numbers, and returns a `matplotlib.figure.Figure`:
`figure.savefig("spectrum.svg")` writes it. They are drawn in `lightlike.figures`, below the
results, so that `Measurement.plot` may call on it.
"""

from lightlike.figures.bars import plot_share, plot_sources
from lightlike.figures.chart import csv_of, data_of
from lightlike.figures.curves import plot_path, plot_saturation
from lightlike.figures.forest import plot_forest
from lightlike.figures.length import plot_length
from lightlike.figures.plateau import plot_plateau
from lightlike.figures.spectrum import plot_spectrum
from lightlike.figures.stacks import plot_radicals
from lightlike.figures.walk import Trail, plot_walk

__all__ = [
    "Trail",
    "csv_of",
    "data_of",
    "plot_forest",
    "plot_length",
    "plot_path",
    "plot_plateau",
    "plot_radicals",
    "plot_saturation",
    "plot_share",
    "plot_sources",
    "plot_spectrum",
    "plot_walk",
]
