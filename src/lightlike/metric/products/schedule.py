"""When does it pay to keep what does not depend on the vector?"""

from __future__ import annotations

from dataclasses import dataclass

# Of so few products to come none can pay: keeping takes at least one ordinary product.
FEW = 2
# From here on it always has paid: it takes some three products, and spares one in three or four.
MANY = 12
# What decides between them where there is but one batch, and nothing left to decide by measuring.
TYPICAL = 6


@dataclass
class Schedule:
    """Decides from the products to come, and from measured times where that is in doubt.

    Attributes:
        expected: Number of products that the caller foresees; None if it is not known.
        done: Products so far.
        verdict: What was measured: whether it pays; None if that was not needed.
        reason: Why the last decision was as it was.
    """

    expected: int | None
    done: int = 0
    verdict: bool | None = None
    reason: str = "no product yet"

    def remaining(self, count: int) -> int | None:
        """Products to come with `count` that are asked for now; None if that is anyone's guess."""
        if self.expected is not None:
            return max(count, self.expected - self.done)
        return count if self.done == 0 and count == 1 else None

    def keeps(self, count: int, batches: int) -> bool | None:
        """Whether to keep things; None if a measurement has to say."""
        left = self.remaining(count)
        if left is None:
            self.reason = f"more than one product; after {self.done}, others are likely"
            return True
        products = "1 product" if left == 1 else f"{left} products"
        if left <= FEW:
            self.reason = f"{products} to come: keeping anything takes as long as it saves"
            return False
        if left > MANY:
            self.reason = f"{products} to come"
            return True
        if self.verdict is not None:
            return self.verdict
        if batches == 1:
            self.reason = f"{products} to come, on one batch"
            return left > TYPICAL
        return None

    def weigh(self, count: int, plain: float, setup: float, kept: float) -> bool:
        """Decide by seconds: of an ordinary product, of the set-up, of a product after it."""
        left = self.remaining(count)
        assert left is not None
        self.verdict = setup + left * kept < left * plain
        self.reason = (
            f"{left} products to come; on the first batch one takes {plain:.2g} s, or {kept:.2g} s "
            f"after a set-up of {setup:.2g} s"
        )
        return self.verdict
