"""Lengths and criteria to set beside the Gaussian razor, by name."""

from lightlike.assess.questions import criteria
from lightlike.assess.table import table
from lightlike.length.information import tic
from lightlike.length.nml import nml, nml_location
from lightlike.length.predictive import loo, waic
from lightlike.length.prequential import prequential
from lightlike.length.regular import rissanen

__all__ = [
    "criteria",
    "loo",
    "nml",
    "nml_location",
    "prequential",
    "rissanen",
    "table",
    "tic",
    "waic",
]
