"""Lengths and criteria to set beside the Gaussian razor, by name."""

from lightlike.assess.questions import criteria

__all__ = ["criteria"]
