"""Lengths and criteria to set beside the Gaussian razor, by name."""

from lightlike.assess.questions import criteria
from lightlike.length.interpolating import interpolating
from lightlike.length.variational import variational

__all__ = ["criteria", "interpolating", "variational"]
