"""Lengths and criteria to set beside the Gaussian razor, by name."""

from lightlike.assess.questions import criteria
from lightlike.assess.singular import singular
from lightlike.assess.table import table
from lightlike.length.information import tic
from lightlike.length.interpolating import interpolating
from lightlike.length.nml import nml, nml_location
from lightlike.length.noise import NoiseVariance, noise_variance
from lightlike.length.predictive import loo, waic
from lightlike.length.prequential import prequential
from lightlike.length.regular import rissanen
from lightlike.length.variational import variational

__all__ = [
    "NoiseVariance",
    "criteria",
    "interpolating",
    "loo",
    "nml",
    "nml_location",
    "noise_variance",
    "prequential",
    "rissanen",
    "singular",
    "table",
    "tic",
    "variational",
    "waic",
]
