"""Whole measurements: plan, measure, compare."""
