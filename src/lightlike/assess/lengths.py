"""Lengths and criteria to set beside the Gaussian razor, by name."""

from lightlike.assess.questions import criteria
from lightlike.assess.singular import singular

__all__ = ["criteria", "singular"]
