"""Î and A as operators made for many products: what depends on no vector is computed once."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor

from lightlike.metric.jacobian import whitened_cotangents, whitening
from lightlike.metric.products.block import Blocks
from lightlike.metric.products.passage import Fresh, Passage, noise
from lightlike.metric.products.schedule import Schedule
from lightlike.metric.products.supply import Supply
from lightlike.metric.products.ways import RefusedError
from lightlike.metric.root import Root
from lightlike.numbers import check_whole
from lightlike.problem.isolation import isolated
from lightlike.problem.precision import resolve_dtype
from lightlike.problem.problem import CHUNK
from lightlike.spectrum.memory import resolve_memory
from lightlike.vectors import Vector, read_rows, read_vectors


class Products:
    """Î = (1/N) Σ_i J_iᵀ Λ_i J_i for products with vectors, D × D; A and Aᵀ besides.

    Λ_i acts in closed form where the likelihood has one. J v is a forward-mode pass, or what is
    left of one when all that does not depend on v is kept: a list of calls, recorded while
    PyTorch made them. Jᵀ goes back through the graph of the model's ordinary output, and is what
    every J v is held against, ⟨c, J v⟩ = ⟨Jᵀc, v⟩: for random c and v the first time, and for
    c = Λ J v in each product. A model without forward mode has its gradient differentiated again;
    where that fails too, rows of A are written out as elsewhere.

    Args:
        root: A.
        expected: Number of products to come, a block counting as many; None if it is not known.
            One product never pays for anything kept.
        dtype: What the model is evaluated and differentiated in, "float64" or "float32"; vectors
            and sums are float64. None: as `root` is.
        memory: Bytes, or a text such as "8 GB", that may be kept; 0 keeps nothing. Half of what is
            available unless given.

    Attributes:
        count: Products so far.
        blocks: How blocks of vectors are taken.

    Raises:
        ChoiceError: for an unknown dtype, amount of memory or number of products.
    """

    def __init__(
        self,
        root: Root,
        *,
        expected: int | None = None,
        dtype: str | torch.dtype | None = None,
        memory: int | float | str | None = None,
    ) -> None:
        if expected is not None:
            check_whole("expected", expected, 1)
        problem = root.problem if dtype is None else root.problem.cast(resolve_dtype(dtype))
        self.problem, self.blocks = problem, Blocks()
        self._root = root
        if problem is not root.problem:
            self._root = Root(problem, root.weights, root.layer)
        kept = 0 if memory == 0 else resolve_memory(memory) // (2 if memory is None else 1)
        self._schedule = Schedule(expected)
        self._supply = Supply(problem, self._schedule, kept)

    @property
    def shape(self) -> tuple[int, int]:
        """(D, D)."""
        return self._root.shape[1], self._root.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors: always float64."""
        return torch.float64

    @property
    def precision(self) -> float:
        """Rounding unit of what the model is evaluated and differentiated in."""
        return torch.finfo(self.problem.dtype).eps

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._root.device

    @property
    def count(self) -> int:
        """Products so far."""
        return self._schedule.done

    @property
    def setup_seconds(self) -> float:
        """What was spent so far on recording, and on checks and trials made once."""
        return self._supply.seconds

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept now."""
        return self._supply.cache.used

    @property
    def way(self) -> str:
        """How the last product was taken, or the next one if there was none."""
        return self._supply.name

    @property
    def reason(self) -> str:
        """Why in this way: what the model refused, products to come, memory."""
        return self._supply.reason

    def __matmul__(self, v: Vector) -> Tensor:
        """Î v for one vector (D,) or a block (D, c), float64.

        Raises:
            ParameterError: if v has another shape, or is not finite and real.
            ConsistencyError: if J v disagrees with ordinary differentiation of the model.
            DeterminismError: if the data or the model's outputs changed.
        """
        given = read_vectors(v, self.shape[1], self.device)
        if not given.numel():
            return given.clone()
        found = self._run(
            _columns(given),
            lambda columns: self._sum(columns, self._metric_one, self._metric_many),
            lambda columns: self._root.rmv(self._root.mv(columns)),
        )
        return found[:, 0] if given.ndim == 1 else found

    def mv(self, v: Vector) -> Tensor:
        """A v for one vector (D,) or a block (D, c): (K,) or (K, c)."""
        given = read_vectors(v, self.shape[1], self.device)
        if not given.numel():
            return given.new_zeros(self._root.shape[0], 0)
        found = self._run(_columns(given), self._rows, self._root.mv)
        return found[:, 0] if given.ndim == 1 else found

    def rmv(self, u: Vector) -> Tensor:
        """Aᵀ u for one vector (K,) or a block (K, c): (D,) or (D, c)."""
        given = read_rows(u, self._root.shape[0], self.device)
        if not given.numel():
            return given.new_zeros(self.shape[0], 0)
        found = self._run(_columns(given), self._pulled, self._root.rmv)
        return found[:, 0] if given.ndim == 1 else found

    def spares_rows(self) -> bool:
        """Whether products do without the rows of A: the ways are tried on the first batch.

        By rows a product takes two passes over all of them, whatever their number.
        """
        v = noise(self.problem.theta, 6)[None]
        supply = self._supply
        while (way := supply.way) is not None:
            try:
                with isolated(self.problem.dtype), way.kernels():
                    for passage in supply(v):
                        supply.push(passage, v[0])
                        return True
            except RefusedError as refusal:
                supply.refuse(str(refusal))
        return False

    def close(self) -> None:
        """Let go of everything kept; products can still be asked for."""
        self._supply.cache.clear()

    def __enter__(self) -> Products:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        columns: Tensor,
        ours: Callable[[Tensor], Tensor],
        rows: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """A product in the first way that the model takes."""
        supply = self._supply
        while (way := supply.way) is not None:
            try:
                with isolated(self.problem.dtype), way.kernels():
                    found = ours(columns)
                break
            except RefusedError as refusal:
                supply.refuse(str(refusal))
        else:
            found = rows(columns)
        self._schedule.done += columns.shape[1]
        return found

    def _sum(
        self,
        columns: Tensor,
        one: Callable[[Passage, Tensor], Tensor],
        many: Callable[[Passage, Tensor], Tensor],
    ) -> Tensor:
        """Σ over batches of what is made of vectors (D, c), a passage and a vector at a time."""
        vectors = self._inward(columns).T.contiguous()
        out: Tensor | None = None
        for passage in self._supply(vectors):
            together = None if isinstance(passage, Fresh) else many
            found = self.blocks(passage, vectors, one, together)
            # Fresh memory costs more than the sum itself.
            out = found if out is None else out.add_(found)
        assert out is not None
        return self._outward(out.T)

    def _metric_one(self, passage: Passage, v: Tensor) -> Tensor:
        """Jᵀ Λ J v / N of one batch."""
        image = self._supply.push(passage, v)
        weighed = self._weighed(passage, image)
        found = passage.pull(weighed, again=False)
        self._supply.confirm(image, weighed, found, v)
        return found

    def _metric_many(self, passage: Passage, block: Tensor) -> Tensor:
        """The same for (c, D)."""
        images = passage.push_block(block)
        weighed = torch.stack([self._weighed(passage, image) for image in images])
        found = passage.pull_block(weighed)
        for parts in zip(images, weighed, found, block, strict=True):
            self._supply.confirm(*parts)
        return found

    def _rows(self, columns: Tensor) -> Tensor:
        """A v for (D, c): (K, c)."""
        vectors = self._inward(columns).T.contiguous()
        parts = []
        for passage in self._supply(vectors):
            images = torch.stack([self._supply.push(passage, v) for v in vectors], -1)
            root = whitening(self.problem, passage.outputs)
            found = root.mT @ images
            if passage.outputs.observed is not None:
                found = found[passage.outputs.observed]
            parts.append(found.flatten(0, 1))
        return torch.cat(parts)

    def _pulled(self, columns: Tensor) -> Tensor:
        """Aᵀ u for (K, c): (D, c)."""
        out = columns.new_zeros(columns.shape[1], self.problem.parameters)
        start = 0
        for passage in self._supply(out):
            stop = start + passage.outputs.count * self.problem.survey.rank
            cotangents = whitened_cotangents(self.problem, passage.outputs, columns[start:stop])
            start = stop
            for row, c in zip(out, cotangents, strict=True):
                row += passage.pull(c)
        return self._outward(out.T)

    def _weighed(self, passage: Passage, image: Tensor) -> Tensor:
        """Λ_i x_i / N of every observation that counts, (n, m)."""
        problem, outputs = self.problem, passage.outputs
        if problem.draws is not None:
            root = whitening(problem, outputs)
            return (root @ (root.mT @ image.unsqueeze(-1))).squeeze(-1)
        h = outputs.h.detach()
        # A few at a time: a likelihood without a closed form makes roots.
        step = max(1, CHUNK // (8 * h.shape[1] ** 2))
        pieces = zip(torch.split(h, step), torch.split(image, step), strict=True)
        weighed = torch.cat([problem.likelihood.weigh(a, x) for a, x in pieces])
        if outputs.observed is not None:
            weighed = weighed * outputs.observed[:, None]
        return weighed / problem.survey.observations

    def _inward(self, columns: Tensor) -> Tensor:
        """Vectors (·, c) of the root's columns as vectors (D, c) of all parameters."""
        root = self._root
        if root.weights is not None:
            columns = columns * root.weights[:, None]
        if root.layer is None:
            return columns
        full = columns.new_zeros(self.problem.parameters, columns.shape[1])
        start = 0
        for entry in self.problem.selection.layers()[root.layer]:
            full[entry.start : entry.stop] = columns[start : start + entry.size]
            start += entry.size
        return full

    def _outward(self, full: Tensor) -> Tensor:
        """The root's columns of vectors (D, c) of all parameters."""
        root = self._root
        if root.layer is not None:
            entries = self.problem.selection.layers()[root.layer]
            full = torch.cat([full[entry.start : entry.stop] for entry in entries])
        return full if root.weights is None else full * root.weights[:, None]


def _columns(given: Tensor) -> Tensor:
    """One vector, or a block, as a block."""
    return given[:, None] if given.ndim == 1 else given
