"""Exceptions. Every message says what happened, why it matters and what to do about it."""

from __future__ import annotations


class LightlikeError(Exception):
    """Base of all errors that lightlike raises on purpose.

    Args:
        what: What happened, with the names and numbers of this case.
        why: Why going on would be wrong.
        remedy: What the caller can do.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        self.what, self.why, self.remedy = what, why, remedy
        super().__init__(f"{what} {why} {remedy}")

    def __reduce__(self) -> tuple[type[LightlikeError], tuple[str, str, str]]:
        return type(self), (self.what, self.why, self.remedy)


class ChoiceError(LightlikeError, ValueError):
    """An option was given a value that is not among its choices."""


class DataError(LightlikeError, ValueError):
    """The data are empty, malformed, non-finite, or of a form that is not understood."""


class TargetError(DataError):
    """The labels do not fit the likelihood or the model's outputs."""


class ModelError(LightlikeError, ValueError):
    """The model cannot be evaluated, or its output cannot be used."""


class ParameterError(LightlikeError, ValueError):
    """The selection of parameters is empty, unknown or inconsistent."""


class PriorError(LightlikeError, ValueError):
    """The prior does not fit the parameters or is improper."""


class DeterminismError(LightlikeError, RuntimeError):
    """The model or the data change from one pass to the next."""


class CapacityError(LightlikeError, MemoryError):
    """No exact route fits in the memory that is available."""


class UndefinedError(LightlikeError, ArithmeticError):
    """A length or criterion is not defined for this model, data or region."""


class DependencyError(LightlikeError, ImportError):
    """An optional package that something needs is not installed."""


class ConsistencyError(LightlikeError, ArithmeticError):
    """Two independent computations of one quantity disagree."""


class ComparisonError(LightlikeError, ValueError):
    """Measurements cannot be compared."""


class EstimateError(LightlikeError, ArithmeticError):
    """A number that is estimated or fitted has no value that can be trusted."""


class TrackingError(LightlikeError, ValueError):
    """A training run cannot be followed."""


class SamplingError(LightlikeError, ArithmeticError):
    """A random estimate is not worth its number: chains disagree, or too few draws count."""


class StoreError(LightlikeError, ValueError):
    """A result file cannot be written, or is not a result file."""


class MissingError(LightlikeError, LookupError):
    """A saved result does not hold what a question to it needs."""


class RunFileError(LightlikeError, ValueError):
    """A run file, or a factory that it names, cannot be used."""


def choice_error(option: str, value: object, choices: list[str]) -> ChoiceError:
    """Build the error for an unknown choice, listing the choices."""
    return ChoiceError(
        f"{option}={value!r} is not a choice.",
        "Guessing what was meant could give a number for another question.",
        f"Use one of: {', '.join(choices)}.",
    )
