"""Takeuchi's information criterion, AIC with the number of parameters the loss really has.

TIC = NLL(θ̂) + tr(𝒥⁺ Ĵ), 𝒥 = ∇²NLL/N and Ĵ = (1/N) Σ_i s_i s_iᵀ the empirical Fisher matrix, s_i the
score of observation i at its own label (Takeuchi 1976; Thomas et al. 2020, arXiv 1906.07774). In a
well-specified model at its optimum both are the Fisher matrix and the trace is its rank.

A score lies in the range of its covariance: ∂NLL_i/∂h = L_i c_i, so s_i = √N A_iᵀ c_i with A_i the
rows of observation i, and no gradient of a single observation is ever needed. With Î = Aᵀ A in
place of 𝒥 (the generalised Gauss–Newton matrix for natural parameters) the trace is
Σ_i c_iᵀ P_ii c_i, P = A A⁺ the projector on the columns of A: a K × K question, D however large.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightlike.errors import CapacityError, UndefinedError, choice_error
from lightlike.length.arguments import check_fisher
from lightlike.length.codelength import CodeLength
from lightlike.length.observed import LARGEST, NULL, observe, require_labels
from lightlike.length.optimum import REMEDY, far
from lightlike.length.roots import inverse_roots
from lightlike.metric.fisher import Fisher
from lightlike.metric.root import Root
from lightlike.problem.isolation import isolated
from lightlike.problem.problem import Problem
from lightlike.spectrum.memory import format_bytes
from lightlike.spectrum.rounding import EPS

METHODS = ("auto", "hessian", "ggn")
# Columns multiplied by A at a time.
TOGETHER = 256
# Share of the largest eigenvalue below which eigenvectors of A Aᵀ or Aᵀ A are too rough.
ROUGH = 1e-10
NOTE = "Expected loss on new data, to O(1/N); θ̂ a minimum, and an isolated one up to symmetries."


def tic(F: Fisher, *, method: str = "auto") -> CodeLength:
    """TIC as a code length in nats (half its usual scale), NLL + tr(𝒥⁺ Ĵ).

    Args:
        F: From `lightlike.fisher`, with labels.
        method: "hessian" (𝒥 by double backward; D ≤ 2,000), "ggn" (Î in place of 𝒥, any D for which
            Î has an exact route), or "auto": "hessian" where D allows. The record says which.

    Returns:
        The length. Its record holds the Newton decrement ½ gᵀ(N𝒥)⁺g of the gradient g, and it has a
        warning if that is more than half of tr(𝒥⁺ Ĵ), or half a nat where the trace is below 1.

    Raises:
        UndefinedError: without labels; if 𝒥 has a negative eigenvalue; if scores do not lie in the
            range of their covariance.
        CapacityError: if no exact route fits.
        ChoiceError: for another method.
    """
    check_fisher(F)
    if method not in METHODS:
        raise choice_error("method", method, [*map(repr, METHODS)])
    problem = F.problem.reference
    nll = require_labels(problem, "TIC")
    if problem is not F.problem:
        F = Fisher(Root(problem))
    if method == "auto":
        method = "hessian" if problem.parameters <= LARGEST else "ggn"
    scores = whitened_scores(problem)
    if method == "hessian":
        trace, record = _by_hessian(F, scores)
    else:
        trace, record = _by_metric(F, scores)
    wrong = far(record["decrement"], trace)
    return CodeLength(
        name="tic",
        total=nll + trace,
        fit=nll,
        stderr=0.0,
        kind="exact",
        observations=problem.survey.observations,
        note=NOTE,
        warnings=(f"{wrong} {REMEDY}",) if wrong else (),
        record={"trace": trace, "curvature": method, **record},
    )


def whitened_scores(problem: Problem) -> Tensor:
    """c_i = L_i⁺ ∂NLL_i/∂h of every observation, (N, rank Λ), float64.

    Raises:
        UndefinedError: if a score does not lie in the range of L_i.
    """
    found = []
    with isolated(problem.dtype):
        for _, outputs in problem.sweep("Scores"):
            assert outputs.targets is not None
            h = outputs.h.detach().requires_grad_(True)
            (r,) = torch.autograd.grad(problem.likelihood.nll(h, outputs.targets).sum(), h)
            L = problem.score_roots(outputs)
            if outputs.observed is not None:
                r, L = r[outputs.observed], L[outputs.observed]
            c = (inverse_roots(L) @ r.unsqueeze(-1)).squeeze(-1)
            missed = ((L @ c.unsqueeze(-1)).squeeze(-1) - r).norm(dim=1)
            if bool((missed > 1e-6 * r.norm(dim=1) + 1e-300).any()):
                raise UndefinedError(
                    f"The score of {int((missed > 1e-6 * r.norm(dim=1)).sum())} observations does "
                    "not lie in the range of its covariance.",
                    "A label that the model holds impossible, or a likelihood whose root is not "
                    "that of its scores, makes the criterion infinite or meaningless.",
                    "Check the labels against the outputs, and a likelihood's `root`.",
                )
            found.append(c)
    return torch.cat(found)


def _by_hessian(F: Fisher, scores: Tensor) -> tuple[float, dict[str, float]]:
    found = observe(F.problem, "TIC")
    values, vectors = found.eigen()
    decrement = found.decrement(values, vectors)
    keep = values > NULL * float(values.abs().max())
    values, vectors = values[keep], vectors[:, keep]
    trace = 0.0
    for k in range(0, len(values), TOGETHER):
        part = slice(k, k + TOGETHER)
        along = _combined(F.root.mv(vectors[:, part].contiguous()), scores)
        trace += float((along.square().sum(0) / values[part]).sum())
    return trace, {"rank": len(values), "decrement": decrement}


def _by_metric(F: Fisher, scores: Tensor) -> tuple[float, dict[str, float]]:
    left = columns_of(F)
    # The gradient is √N Aᵀc with c all scores: ½ gᵀ(N Î)⁺g of it is ½ |Uᵀc|².
    decrement = 0.5 * float((left.T @ scores.reshape(-1)).square().sum())
    trace = float(_combined(left, scores).square().sum())
    return trace, {"rank": left.shape[1], "decrement": decrement}


def columns_of(F: Fisher) -> Tensor:
    """An orthonormal basis of the columns of A, (K, d).

    Raises:
        CapacityError: if only singular vectors of A would do, and they do not fit.
    """
    decomposition = F.decomposition()
    values, vectors = decomposition.vectors
    rank = len(decomposition.spectrum)
    values, vectors = values[len(values) - rank :], vectors[:, len(vectors.T) - rank :]
    if not rank:
        return vectors.new_zeros(F.root.shape[0], 0)
    if float(values[0]) > ROUGH * float(values[-1]):
        if decomposition.left:
            return vectors
        return F.root.mv(vectors.contiguous()) / values.sqrt()
    rows, columns = F.root.shape
    need = 8.0 * 4 * rows * columns
    if need > decomposition.budget:
        raise CapacityError(
            f"Some eigenvalues are so small that singular vectors of the {rows:,} × {columns:,} "
            f"root itself are needed: {format_bytes(need)}.",
            "Eigenvectors of A Aᵀ would mix with rounding.",
            "Select fewer parameters, or measure fewer observations.",
        )
    U: Tensor
    U, s, _ = torch.linalg.svd(F.root.dense(), full_matrices=False)
    return U[:, s > max(rows, columns) * EPS * s[0]]


def _combined(rows: Tensor, scores: Tensor) -> Tensor:
    """Σ_r c_ir X_ir of every observation for X (K, c): (N, c)."""
    n, rank = scores.shape
    return torch.einsum("nr,nrc->nc", scores, rows.reshape(n, rank, -1))
