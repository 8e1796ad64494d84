"""Lengths and criteria to set beside the Gaussian razor, by name."""

from lightlike.assess.questions import criteria
from lightlike.length.interpolating import interpolating
from lightlike.length.noise import NoiseVariance, noise_variance
from lightlike.length.variational import variational

__all__ = ["NoiseVariance", "criteria", "interpolating", "noise_variance", "variational"]
