"""Leading eigenvalues of a symmetric positive semi-definite operator, and that none was missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightlike.errors import CapacityError, choice_error
from lightlike.numbers import check_callable, check_seed, check_share, check_whole, is_finite
from lightlike.spectrum.krylov import Krylov
from lightlike.spectrum.leading import Leading
from lightlike.spectrum.matrices import device_of, multiplied, precision_of
from lightlike.spectrum.memory import format_bytes, resolve_memory
from lightlike.spectrum.search import Options, Search, State

# Vectors between restarts and room for a check, as multiples of the number of eigenvalues asked
# for and at least: orthogonalisation against a few hundred costs as much as products.
SPAN, LEAST_SPAN = 5, 100
ROOM, LEAST_ROOM = 10, 200


def lanczos(
    op: Any,
    count: int,
    *,
    tolerance: float = 1e-7,
    block: int = 1,
    seed: int = 0,
    maximum: int | None = None,
    memory: int | float | str | None = None,
    chance: float = 1e-6,
    state: State | None = None,
    keep: Callable[[State], None] | None = None,
) -> Leading:
    """The largest eigenvalues of a symmetric positive semi-definite A, with bounds on their errors.

    Block Lanczos with full orthogonalisation and thick restarts, in float64 whatever the products
    are computed in. A Krylov space from one start sees one vector of each eigenspace, so the pairs
    it finds are set aside and the rest of A is searched from a fresh random vector, until an
    eigenvalue above the last one would have been missed with probability `chance` at most
    (`lightlike.spectrum.missing`); one that shows up there is taken in, and the search goes on.
    Errors are bounded by residuals and gaps (`lightlike.spectrum.leading`), the error of the
    products themselves included.

    Args:
        op: A tensor, an array, or an operator with `shape` and `@`; its attribute `precision`, if
            it has one, is the rounding unit of its products.
        count: How many.
        tolerance: Bound on the error of each eigenvalue by residuals and gaps, relative to λ_1.
        block: Vectors at once: eigenvalues of up to this multiplicity come without a search.
        seed: Of the random vectors.
        maximum: Products with one vector at most; 1,000 + 100 · count unless given.
        memory: Bytes or a text such as "8 GB" for the basis; what is available unless given.
        chance: Probability that is allowed of an eigenvalue having been missed.
        state: What `keep` was given, to go on from there, with the same options: the result is the
            same to the bit.
        keep: Called after every product of a block with all that the rest depends on. It is not
            copied: save or clone it before returning.

    Returns:
        The pairs; fewer than `count` if the matrix is smaller, or its rank within the errors.

    Raises:
        ChoiceError: if an option makes no sense, or the state is of other options.
        CapacityError: if the basis does not fit in memory.
        EstimateError: if `maximum` products do not do, or one is not finite.
        ValueError: if the operator is not square, symmetric and positive semi-definite.
    """
    check_whole("count", count, 1)
    check_whole("block", block, 1)
    if not is_finite(tolerance) or not 1e-14 <= tolerance < 1.0:
        raise choice_error("tolerance", tolerance, ["a number from 1e-14 to below 1"])
    check_share("chance", chance)
    check_seed(seed)
    if maximum is not None:
        check_whole("maximum", maximum, 1)
    if state is not None and not isinstance(state, Mapping):
        raise choice_error("state", state, ["None", "what keep was given"])
    check_callable("keep", keep)
    operator = multiplied(op)
    room = _room(int(operator.shape[0]), count, block, memory)
    options = Options(
        count=count,
        tolerance=tolerance,
        block=block,
        seed=seed,
        chance=chance,
        maximum=1000 + 100 * count if maximum is None else maximum,
        precision=precision_of(op),
        span=min(room, max(SPAN * count, LEAST_SPAN)),
    )
    search = Search(Krylov(operator, room, device_of(op)), options)
    if state is not None:
        search.resume(state)
    while not search.step():
        if keep is not None:
            keep(search.state())
    return search.result()


def _room(size: int, count: int, block: int, memory: int | float | str | None) -> int:
    """Rows of the basis there is memory for; pending blocks and products take some more."""
    most = min(size, max(ROOM * count, LEAST_ROOM))
    least, more = min(size, count + 2 * block + 8), 4 * block + 4
    budget = resolve_memory(memory)
    fitting = int(budget / (8.0 * max(size, 1))) - more
    if fitting < least:
        raise CapacityError(
            f"A basis of {least + more} vectors of {size:,} entries needs "
            f"{format_bytes(8.0 * size * (least + more))}, but {format_bytes(budget)} may be used.",
            "Without it, eigenvalues would come twice or be wrong.",
            "Ask for fewer eigenvalues, or raise memory=... if more is there.",
        )
    return min(fitting, most) + block  # room for whole blocks
