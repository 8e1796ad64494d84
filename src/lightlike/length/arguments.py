"""Whether what a question is put to is a Fisher matrix."""

from __future__ import annotations

from lightlike.errors import choice_error
from lightlike.metric.fisher import Fisher


def check_fisher(F: object) -> None:
    """Raise a ChoiceError unless it is a Fisher matrix with its model and data."""
    if not isinstance(F, Fisher):
        raise choice_error("F", F, ["what lightlike.fisher(model, data, likelihood) returns"])
