"""How a Fisher matrix is approximated: the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightlike.errors import ChoiceError, choice_error
from lightlike.metric.kronecker.approximation import ApproximateFisher
from lightlike.metric.kronecker.factored import (
    LARGEST,
    SHARINGS,
    SMALL,
    Exact,
    blocks,
    diagonal,
    kronecker_factored,
)
from lightlike.metric.root import Root

FORMS = ("ekfac", "kfac", "blocks", "diagonal")


@dataclass(frozen=True)
class Kronecker:
    """A block-diagonal approximation of Î, in place of Î itself.

    Given as `method`, or "kronecker" for the defaults.

    Args:
        form: "ekfac", "kfac", "blocks" (exact ones, a layer each) or "diagonal" (exact). All but
            "kfac" bound log det(I + c Î), and with it complexity, from above.
        sharing: "expand" or "reduce"; see `lightlike.Fisher.kronecker`.
        small: Blocks without structure are exact up to this many columns.
        largest: Sides of Kronecker products are full up to this size.
        check: Whether to measure the error against the exact matrix; where that is cheap if None.

    Raises:
        ChoiceError: for an unknown form or sharing, or a negative size.
    """

    form: str = "ekfac"
    sharing: str = "expand"
    small: int = SMALL
    largest: int = LARGEST
    check: bool | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise choice_error("form", self.form, [*map(repr, FORMS)])
        if self.sharing not in SHARINGS:
            raise choice_error("sharing", self.sharing, [*map(repr, SHARINGS)])
        for name in ("small", "largest"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise choice_error(name, value, ["a whole number from 0 up"])
        if self.check not in (None, True, False):
            raise ChoiceError(
                f"check={self.check!r} is not a choice.",
                "It says whether the error is measured.",
                "Use None, True or False.",
            )

    def of(self, root: Root, exact: Exact, memory: float) -> ApproximateFisher:
        """The approximation of AᵀA for a root A.

        Args:
            root: A.
            exact: Gives the exact decomposition of A, for its error.
            memory: Bytes that blocks may use.
        """
        if self.form == "diagonal":
            return diagonal(root, exact)
        if self.form == "blocks":
            return blocks(root, exact, "layer", memory)
        return kronecker_factored(
            root,
            exact,
            eigenvalue_correction=self.form == "ekfac",
            sharing=self.sharing,
            small=self.small,
            largest=self.largest,
        )


def as_kronecker(method: Any) -> Kronecker | None:
    """The approximation that a `method` means, if it means one."""
    if isinstance(method, Kronecker):
        return method
    return Kronecker() if method == "kronecker" else None
