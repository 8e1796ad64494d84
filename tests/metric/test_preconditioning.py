"""Approximations at work: as preconditioners of solutions, as control variates of determinants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.spectrum.conjugate import conjugate_gradients
from lightlike.spectrum.preconditioned import Preconditioned, Shifted
from oracles import networks as nets

X = nets.normal(20, 3, seed=1)


def fisher(seed=0):
    model = nets.fill(nets.mlp([3, 4, 3], "tanh", norm=nn.LayerNorm), seed)
    return ll.fisher(model, (X,), "categorical")


def forms(F):
    return {
        "kfac": F.kronecker(),
        "ekfac": F.kronecker(eigenvalue_correction=True),
        "diagonal": F.diagonal(),
        "blocks": F.blocks(),
    }


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 100), scale=st.sampled_from([0.5, 20.0, 1e4]))
def test_the_determinant_is_the_sum_of_both_parts(seed, scale):
    F = fisher(seed)
    dense = F.dense()
    eye = torch.eye(len(dense), dtype=torch.float64)
    truth = float(torch.logdet(eye + scale * dense))
    for M in forms(F).values():
        S = Preconditioned(F, M, scale)
        full = S @ eye
        assert S.shape == F.shape
        assert float((full - full.T).abs().max()) <= 1e-9
        assert S.offset + float(torch.logdet(full)) == pytest.approx(truth, rel=1e-9)
        assert torch.allclose(S @ eye[:, 0], full[:, 0])
        half = torch.linalg.inv(torch.linalg.cholesky(eye + scale * M.dense()))
        expected = torch.linalg.eigvalsh(half @ (eye + scale * dense) @ half.T)
        assert torch.allclose(torch.linalg.eigvalsh(full), expected, rtol=1e-7, atol=1e-9)
        bounded = Preconditioned(F, M, scale, float(M.spectrum.largest))
        assert float(expected[0]) >= bounded.least


def test_less_is_left_to_estimate_than_without():
    F = fisher()
    scale = 20.0
    dense = F.dense()
    eye = torch.eye(len(dense), dtype=torch.float64)

    def spread(matrix):
        """The variance of zᵀ log(S) z for Rademacher z: 2 Σ of squares off the diagonal."""
        values, vectors = torch.linalg.eigh(matrix)
        log = vectors @ values.log().diag() @ vectors.T
        return 2 * float(log.square().sum() - log.diagonal().square().sum())

    plain = spread(eye + scale * dense)
    found = forms(F)
    del found["diagonal"]
    for name, M in found.items():
        left = spread(Preconditioned(F, M, scale) @ eye)
        assert left < plain, name


def pinned_down():
    """Fewer parameters than rows, and inputs of unlike sizes: layers ill-conditioned in themselves.

    With many null directions that combine layers, block-diagonal preconditioners do harm instead.
    """
    x = nets.normal(100, 4, seed=1) * torch.tensor([30.0, 3.0, 0.3, 0.03]).double()
    return ll.fisher(nets.fill(nets.mlp([4, 6, 3], "tanh"), 0), (x,), "gaussian")


def test_solutions_are_right_and_take_fewer_products():
    F, n, variance = pinned_down(), 100, 100.0
    dense = F.dense()
    b = nets.normal(F.shape[0], 2, seed=3)
    system = Shifted(dense, n, 1 / variance)
    expected = torch.linalg.solve(system @ torch.eye(len(dense), dtype=torch.float64), b)
    plain = conjugate_gradients(system, b, tolerance=1e-8)
    found = forms(F)
    del found["diagonal"]
    for name, M in found.items():
        steered = conjugate_gradients(
            system, b, lambda v, M=M: M.solve(v, 1 / (n * variance)) / n, tolerance=1e-8
        )
        for solution in (plain, steered):
            off = (solution.x - expected).norm(dim=0)
            assert bool((off <= solution.error(1 / variance) * 1.001 + 1e-8).all())
        assert steered.products < 0.75 * plain.products, name
