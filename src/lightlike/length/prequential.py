"""The prequential length: every label coded by a model trained on those before it.

L = Σ_b Σ_{t in block b} −log p(y_t | x_t, model trained on all items of the blocks before b).

No approximation: a receiver who has the inputs and the training function can decode the labels
block by block (Dawid 1984, doi:10.2307/2981683; Blier & Ollivier 2018, arXiv 1802.07044). With
blocks of one item and the exact posterior predictive as the model it is the evidence, by the chain
rule.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightlike import store
from lightlike.errors import StoreError, UndefinedError, choice_error
from lightlike.length.codelength import CodeLength
from lightlike.length.likeness import digest_of_function
from lightlike.length.sequence import Sequence as Items
from lightlike.length.sequence import code, inputs_of, read_sequence, seeded
from lightlike.numbers import is_whole
from lightlike.problem.likelihoods import Likelihood, resolve_likelihood
from lightlike.progress import Progress

Training = Callable[[Any, Tensor, int], nn.Module]

KIND = "prequential"
FIRST = 8
NOTE = "A code: an upper bound of the shortest one with this model and training, no approximation."


@dataclass(frozen=True, kw_only=True)
class PrequentialLength(CodeLength):
    """A `CodeLength` block by block.

    Attributes:
        ends: Item after the last of each block, ascending.
        blocks: What each block takes with each seed, (seeds, blocks).
        seeds: The seeds.
    """

    ends: tuple[int, ...]
    blocks: Tensor
    seeds: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python types, fit for JSON."""
        return super().to_dict() | {
            "ends": list(self.ends),
            "blocks": self.blocks.tolist(),
            "seeds": list(self.seeds),
        }

    def _times(self, factor: float, **changes: Any) -> Self:
        return replace(super()._times(factor, **changes), blocks=self.blocks * factor)


def doubling(items: int, first: int = FIRST) -> tuple[int, ...]:
    """Block ends first, 2 first, 4 first, … and at last the number of items."""
    ends = []
    end = first
    while end < items:
        ends.append(end)
        end *= 2
    return (*ends, items)


def prequential(
    train: Training,
    data: Any,
    likelihood: str | Likelihood,
    *,
    schedule: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    order: int | None = None,
    initial: nn.Module | str = "uniform",
    out: str | os.PathLike[str] | None = None,
    tag: str = "",
    progress: str | bool | Progress = False,
) -> PrequentialLength:
    """The prequential length of the labels given the inputs, in nats.

    Args:
        train: `train(x, y, seed) -> nn.Module`: a model trained afresh on these items, in eval
            mode. x comes as the data have it: a tensor, a tuple of several, or a dict. The global
            random generators are seeded from `seed` and the block before each call, and restored
            after it.
        data: In any form that `lightlike.measure` takes, with labels; held in memory whole. Items
            are coded in the order given: nothing is shuffled unless `order` says so.
        likelihood: A name or an object from `lightlike.likelihoods`.
        schedule: Block ends, ascending, the last one the number of items; 8, 16, 32, … unless
            given. The first block is coded before anything is trained.
        seeds: Of the training; with several, the mean length and its standard error over them.
        order: None, or the seed of one fixed permutation of the items.
        initial: What codes the first block: "uniform", the code that knows nothing (discrete labels
            only), or a model that has seen none of the data.
        out: A file that is brought up to date after each block; a later call that is interrupted,
            or the same call again, goes on from there to the same bits.
        tag: Anything that tells this training function from others that look alike; part of the
            fingerprint that the file is recognised by. The fingerprint sees the function's code and
            the numbers, texts and tensors in its closure, defaults, `functools.partial` arguments
            and, of a method or callable object, attributes. It does not see lists and sets in
            closure or attributes (a function may write there), other objects (their class only),
            globals, and the code of functions that are called by global names: where these differ
            between runs, tell them apart by a tag.
        progress: "auto", True or False.

    Raises:
        DataError: if the data have no labels or cannot be read whole.
        UndefinedError: if "uniform" is asked for labels that are not discrete.
        DeterminismError: if the data are shuffled as they are read, or a trained model is random.
        ModelError: if a trained model cannot code the next block.
        StoreError: if the file is of another run, or cannot be written.
        ChoiceError: if an option is not one.
    """
    if not callable(train):
        raise choice_error("train", train, ["a function of x, y and a seed that returns a model"])
    items = read_sequence(data)
    likelihood = resolve_likelihood(likelihood)
    ends = _ends(schedule, items.size)
    given = tuple(seeds)
    if not given or len(set(given)) < len(given) or not all(map(is_whole, given)):
        raise choice_error("seeds", seeds, ["distinct whole numbers, one or more"])
    if order is not None:
        if not is_whole(order):
            raise choice_error("order", order, ["None", "a whole number"])
        generator = torch.Generator().manual_seed(order)
        items = items.ordered(torch.randperm(items.size, generator=generator))
    if isinstance(initial, str) and initial != "uniform":
        raise choice_error("initial", initial, ["'uniform'", "a torch.nn.Module"])
    if initial == "uniform" and len(ends) == 1:
        raise UndefinedError(
            "The only block is coded by the uniform code.",
            "No model is trained, so that there is nothing to learn the number of classes from.",
            "Give a schedule of two or more blocks.",
        )
    run = _Run(train, items, likelihood, ends, initial, tag, given)
    blocks, counts = run.resume(out)
    reporter = Progress.resolve(progress)
    steps = [(s, b) for s in range(len(given)) for b in range(len(ends))]
    for s, b in reporter.track(steps, "Prequential blocks", len(steps)):
        if not bool(torch.isnan(blocks[s, b])):
            continue
        run.take(s, b, blocks, counts)
        run.save(out, blocks, counts)
    return _result(blocks, int(counts.sum()), ends, given, run.fingerprint)


class _Run:
    """One training function on one sequence."""

    def __init__(
        self, train: Training, items: Items, likelihood: Likelihood, ends: tuple[int, ...],
        initial: nn.Module | str, tag: str, seeds: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.train, self.items, self.likelihood = train, items, likelihood
        self.ends, self.initial, self.seeds = ends, initial, seeds
        self.starts = (0, *ends[:-1])
        self._kept: tuple[tuple[int, int], nn.Module] | None = None
        name = getattr(train, "__qualname__", type(train).__qualname__)
        self.fingerprint = {
            "data": items.fingerprint,
            "likelihood": likelihood.describe(),
            "ends": list(ends),
            "seeds": list(seeds),
            "initial": initial if isinstance(initial, str) else _digest(initial),
            "train": f"{getattr(train, '__module__', '')}.{name}",
            "settings": digest_of_function(train),
            "tag": tag,
        }

    def take(self, s: int, b: int, blocks: Tensor, counts: Tensor) -> None:
        """Code block b with seed s, and the one before it where that waits for a model's width."""
        block = self.items.part(self.starts[b], self.ends[b])
        if b == 0 and isinstance(self.initial, nn.Module):
            survey = code(self.initial, self.likelihood, block)
        elif b == 0:
            # A later model tells how many classes there are; the code itself knows nothing else.
            survey = code(self.trained(s, 1), self.likelihood, block)
            uniform = self.likelihood.uniform_nll(survey.width)
            if uniform is None:
                raise UndefinedError(
                    f"There is no uniform code for the labels of a {self.likelihood.name} "
                    "likelihood.",
                    "They are not from a finite set.",
                    "Give initial=..., a model that has not seen the data, for the first block.",
                )
            blocks[s, b], counts[b] = survey.observations * uniform, survey.observations
            return
        else:
            survey = code(self.trained(s, b), self.likelihood, block)
        assert survey.nll is not None
        blocks[s, b], counts[b] = survey.nll.double().sum().cpu(), survey.observations

    def trained(self, s: int, b: int) -> nn.Module:
        """The model for block b: trained on all items before it."""
        if self._kept is not None and self._kept[0] == (s, b):
            return self._kept[1]
        before = self.items.part(0, self.starts[b])
        seed = self.seeds[s]
        # Of its own for each block: where a run went on from does not show.
        mixed = hashlib.sha256(f"{seed} {b}".encode()).digest()
        with seeded(int.from_bytes(mixed[:8], "big") >> 1):
            assert before.targets is not None
            copied = before.copy()
            model = self.train(inputs_of(copied), before.targets.clone(), seed)
        self._kept = (s, b), model
        return model

    def resume(self, out: str | os.PathLike[str] | None) -> tuple[Tensor, Tensor]:
        """Nats of each block with each seed, NaN where still to be done, and observations.

        Raises:
            StoreError: if the file is of another run.
        """
        blocks = torch.full((len(self.seeds), len(self.ends)), torch.nan, dtype=torch.float64)
        counts = torch.zeros(len(self.ends), dtype=torch.int64)
        if out is None:
            return blocks, counts
        store.check_place(out)
        if not Path(out).exists():
            return blocks, counts
        tensors, header = store.read(out)
        found = header.get("fingerprint") if header.get("kind") == KIND else None
        mine = json.loads(json.dumps(self.fingerprint))
        if found != mine:
            differs = (
                [key for key in mine if found.get(key) != mine[key]]
                if isinstance(found, dict)
                else ["kind of file"]
            )
            raise StoreError(
                f"{str(out)!r} is of another run: the {', '.join(differs)} differ.",
                "Blocks of two runs do not add up to one code.",
                "Name another file, or remove this one.",
            )
        return tensors["blocks"], tensors["counts"]

    def save(self, out: str | os.PathLike[str] | None, blocks: Tensor, counts: Tensor) -> None:
        """Bring the file up to date."""
        if out is not None:
            tensors = {"blocks": blocks, "counts": counts}
            store.write(out, tensors, {"kind": KIND, "fingerprint": self.fingerprint})


def _ends(schedule: Sequence[int] | None, items: int) -> tuple[int, ...]:
    if schedule is None:
        return doubling(items, min(FIRST, max(1, items // 2)))
    ends = tuple(schedule)
    rising = all(a < b for a, b in zip((0, *ends), ends, strict=False))
    if not (ends and all(map(is_whole, ends)) and rising and ends[-1] == items):
        raise choice_error(
            "schedule",
            schedule,
            ["None", f"ascending block ends, the last one {items} (all items)"],
        )
    return tuple(int(end) for end in ends)


def _digest(model: nn.Module) -> str:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    return store.digest_of(plain, {"model": type(model).__qualname__})


def _result(
    blocks: Tensor, observations: int, ends: tuple[int, ...], seeds: tuple[int, ...],
    fingerprint: dict[str, Any],
) -> PrequentialLength:  # fmt: skip
    totals = blocks.sum(1)
    several = len(seeds) > 1
    return PrequentialLength(
        name="prequential",
        total=float(totals.mean()),
        fit=None,
        stderr=float(totals.std()) / len(seeds) ** 0.5 if several else 0.0,
        kind="estimated" if several else "exact",
        observations=observations,
        note=NOTE,
        record={"fingerprint": fingerprint, "totals": totals.tolist()},
        ends=ends,
        blocks=blocks,
        seeds=seeds,
    )
