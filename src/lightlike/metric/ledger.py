"""How far a Gram matrix is, on disk: what is summed so far, and the step it was summed to.

The steps of `lightlike.metric.gram` add to parts of the matrix in a fixed order, so that a matrix
that goes on from any of them has the same bits as one that was made in one go. Rows are saved in
panels, and only those that steps have touched since. A panel's new file has a new name; the old
one goes when the list that names them all has been replaced, so that an end at any moment leaves
one of the two states whole.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from lightlike.checkpoint import Facts, Part, Tensors
from lightlike.metric.blocks import Block, merge
from lightlike.metric.gram import Steps, add_gram, mirror
from lightlike.metric.rounding import Probe
from lightlike.metric.sweep import Sweep
from lightlike.metric.units import Unit
from lightlike.progress import Progress
from lightlike.spectrum.rounding import Rounding

# Bytes of a panel.
PANEL = 64 << 20
WRITTEN, TILES = "strips", "tiles"
# Stages, as progress names them.
BACKWARD, PRODUCTS, CHECKING = "Rows of A", "Gram matrix", "Checking what was saved"


class Ledger(Steps):
    """The state of one Gram matrix.

    Args:
        out: The matrix, (K, K).
        passes: The units of each pass over the data.
        keeper: Where it is saved; None to save nothing.
        progress: What is told how far it is.

    Attributes:
        traces: What each layer adds to the trace, over the passes that are done.
        rounding: Of a finished matrix that was found.
        found: Whether a state was found; `finished` whether it is of the whole matrix.
    """

    def __init__(
        self,
        out: Tensor,
        passes: Sequence[Sequence[Unit]],
        keeper: Part | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.out, self.passes = out, passes
        self.progress = progress or Progress.silent()
        self.traces: dict[str, float] = {}
        self.rounding: Rounding | None = None
        self._keeper = keeper
        self._checkpoint = None if keeper is None else keeper.checkpoint
        self._name = "" if keeper is None else f"gram{keeper.tag}"
        self._rows = max(1, PANEL // (8 * max(1, len(out))))
        self._index, self._phase, self._step = 0, "", 0
        self._now: dict[Unit, float] = {}
        self._probe: Probe | None = None
        self._stale: set[int] = set()
        self._files: dict[int, str] = {}
        self._generation = 0
        self._resume: Facts | None = None
        self._kept: Tensors = {}
        self.found = self.finished = False
        if self._checkpoint is not None and not self._restore():
            # Its panels, which new ones may replace, are of no list from here on.
            self._checkpoint.drop(self._name)

    def skips(self, index: int) -> bool:
        """Whether a pass over the data is done."""
        return self.finished or index < self._index

    def begin(self, index: int, probe: Probe | None) -> bool:
        """Start a pass; whether the probe has yet to see its rows."""
        resumed = self._resume is not None and index == self._index
        self._probe = probe
        if not resumed:
            self._index, self._phase, self._step = index, "", 0
        return not resumed

    def end(self, traces: dict[Unit, float]) -> None:
        """A pass is done."""
        for unit, trace in traces.items():
            self.traces[unit.layer] = self.traces.get(unit.layer, 0.0) + trace
        self._index, self._phase, self._step = self._index + 1, "", 0
        self._resume, self._now = None, {}

    @property
    def written(self) -> bool:  # type: ignore[override]
        """Whether all strips of this pass were added before."""
        return self._resume is not None and self._phase == TILES

    @property
    def touched(self) -> bool:  # type: ignore[override]
        """Whether anything was added in this pass before."""
        return self._resume is not None and self._phase != ""

    def strips(self, strips: Iterable[Tensor], traces: dict[Unit, float]) -> Iterator[Tensor]:
        """The strips that have yet to be added; each counts as added when the next is asked for."""
        done = self._step if self._resume is not None and self._phase == WRITTEN else 0
        self._phase = WRITTEN
        for step, strip in enumerate(strips):
            if step >= done:
                yield strip
                self._note(step + 1, range(len(self.out)), traces)

    def pairs(
        self, pairs: Sequence[tuple[int, int]], rows: Sequence[slice], traces: dict[Unit, float]
    ) -> Iterator[tuple[int, int]]:
        """The pairs of tiles that have yet to be added.

        Args:
            pairs: All, in order.
            rows: Of each tile.
            traces: Of the units; those of steps that were done before are put in.
        """
        done = 0
        if self._resume is not None and self._phase == TILES:
            done = self._step
            for unit, trace in zip(self.passes[self._index], self._resume["now"], strict=True):
                if trace is not None:
                    traces[unit] = trace
        self._phase = TILES
        followed = self.progress.track(
            pairs[done:], PRODUCTS, len(pairs), done=done, share=1.0 / len(self.passes)
        )
        for step, pair in enumerate(followed, done):
            yield pair
            self._note(step + 1, range(rows[pair[0]].start, rows[pair[0]].stop), traces)

    def finish(self, rounding: Rounding | None) -> None:
        """The matrix is whole."""
        self.finished, self.rounding = True, rounding
        self._index, self._phase, self._step = len(self.passes), "", 0
        if self._checkpoint is None or self._keeper is None:
            return
        if not self._keeper.tag:
            self._checkpoint.hold(self._name, self._save)
        elif self._checkpoint.due():
            # Held, a matrix that is let go of would stay in memory.
            self._checkpoint.flush()
            self._save()

    def _note(self, step: int, rows: range, traces: dict[Unit, float]) -> None:
        self._step, self._now = step, traces
        self._stale.update(range(rows.start // self._rows, (rows.stop - 1) // self._rows + 1))
        if self._checkpoint is not None and self._checkpoint.due():
            self._checkpoint.flush()
            self._save()

    def _save(self) -> None:
        checkpoint = self._checkpoint
        assert checkpoint is not None
        begun, old = time.monotonic(), dict(self._files)
        self._generation += 1
        for panel in sorted(self._stale):
            name = f"{self._name}.{panel}.{self._generation}"
            start, stop = panel * self._rows, min((panel + 1) * self._rows, len(self.out))
            checkpoint.write(name, {"rows": self.out[start:stop, :stop]}, {})
            self._files[panel] = name
        units = self.passes[self._index] if self._index < len(self.passes) else ()
        facts = {
            "passes": _names(self.passes),
            "index": self._index,
            "phase": self._phase,
            "step": self._step,
            "now": [self._now.get(unit) for unit in units],
            "traces": self.traces,
            "files": {str(panel): name for panel, name in self._files.items()},
            "generation": self._generation,
            "finished": self.finished,
            "rounding": None if self.rounding is None else dataclasses.asdict(self.rounding),
        }
        probe = self._probe
        tensors = {} if probe is None else {"image": probe.image.T, "product": probe.product}
        checkpoint.write(self._name, tensors, facts)
        for panel in self._stale & old.keys():
            checkpoint.drop(old[panel])
        self._stale.clear()
        checkpoint.charge(time.monotonic() - begun)

    def _restore(self) -> bool:
        assert self._checkpoint is not None
        found = self._checkpoint.get(self._name)
        if found is None or found[1]["passes"] != _names(self.passes):
            return False
        tensors, facts = found
        files = {int(panel): str(name) for panel, name in facts["files"].items()}
        for panel, name in files.items():
            read = self._checkpoint.get(name)
            if read is None:
                return False
            rows, start = read[0]["rows"], panel * self._rows
            self.out[start : start + len(rows), : rows.shape[1]] = rows.to(self.out)
        self._files, self._generation = files, facts["generation"]
        self._index, self._phase, self._step = facts["index"], facts["phase"], facts["step"]
        self.traces = dict(facts["traces"])
        self.finished, self.found = facts["finished"], True
        self._resume, self._kept = facts, tensors
        if facts["rounding"] is not None:
            self.rounding = Rounding(**facts["rounding"])
        return True

    def restore_probe(self, probe: Probe | None) -> None:
        """Put back what a probe had seen."""
        if probe is not None and self.found and self._kept:
            probe.restore(self._kept["image"], self._kept["product"])


def fill(
    ledger: Ledger, sweep: Sweep, weighted: Callable[[Block], Block], probe: Probe | None
) -> None:
    """Go through the passes that have yet to be added to the matrix.

    Args:
        ledger: Of the matrix.
        sweep: Back-propagates the rows.
        weighted: What is made of a block before it is used.
        probe: What measures the rounding of rows in lower precision.
    """
    ledger.restore_probe(probe)
    passes, dtype = ledger.passes, sweep.problem.dtype
    for index, units in enumerate(passes):
        if ledger.skips(index):
            continue
        blocks = sweep.blocks(units, BACKWARD, 1.0 / len(passes))
        joined = merge([weighted(block).settled() for some in blocks for block in some], units)
        if ledger.begin(index, probe) and probe is not None:
            probe.add(joined, units)
        last = index == len(passes) - 1
        traces = add_gram(
            joined, units, ledger.out, first=not index, last=last, dtype=dtype, steps=ledger
        )
        ledger.end(traces)
    if ledger.finished:
        # Numbers that were saved are held against the model as it is now, as new ones are.
        sweep.testify(CHECKING)
    if ledger.found:
        mirror(ledger.out)


def _names(passes: Sequence[Sequence[Unit]]) -> list[list[str]]:
    return [[" ".join(unit.names) for unit in units] for units in passes]
