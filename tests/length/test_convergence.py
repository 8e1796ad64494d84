"""R̂ and effective sample size against another library, and on chains of known correlation."""

import math

import numpy as np
import pytest
import torch

from lightlike.length.convergence import (
    effective_sample_size,
    mean_error,
    potential_scale_reduction,
)


def autoregressive(phi, chains, draws, seed=0):
    """x_t = φ x_{t−1} + e_t from its stationary distribution."""
    g = np.random.default_rng(seed)
    x = np.empty((chains, draws))
    x[:, 0] = g.standard_normal(chains) / math.sqrt(1 - phi**2)
    for t in range(1, draws):
        x[:, t] = phi * x[:, t - 1] + g.standard_normal(chains)
    return torch.from_numpy(x)


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize(("chains", "draws"), [(4, 500), (2, 201), (8, 1000)])
def test_against_arviz(phi, chains, draws):
    stats = pytest.importorskip("arviz_stats.base").array_stats
    records = autoregressive(phi, chains, draws)
    axes = {"chain_axis": 0, "draw_axis": 1}
    assert effective_sample_size(records) == pytest.approx(
        stats.ess(records.numpy(), method="mean", **axes), rel=0.02
    )
    assert potential_scale_reduction(records) == pytest.approx(
        stats.rhat(records.numpy(), method="rank", **axes), rel=2e-3
    )


def test_heavy_tails_and_ties_against_arviz():
    stats = pytest.importorskip("arviz_stats.base").array_stats
    g = np.random.default_rng(1)
    for values in (g.standard_cauchy((4, 300)), g.integers(0, 3, (4, 300)).astype(float)):
        found = potential_scale_reduction(torch.from_numpy(values))
        assert found == pytest.approx(stats.rhat(values, method="rank"), rel=1e-6)


def test_known_correlation_time():
    """S (1 − φ)/(1 + φ) independent draws in S of an autoregressive chain."""
    for phi in (0.0, 0.5, 0.8):
        records = autoregressive(phi, 8, 4000, seed=2)
        expected = records.numel() * (1 - phi) / (1 + phi)
        assert effective_sample_size(records) == pytest.approx(expected, rel=0.15)


def test_the_error_of_the_mean_covers():
    """Within two standard errors in at least 90 % of repetitions, with correlated draws."""
    inside = [
        abs(float(records.mean())) <= 2 * mean_error(records)
        for records in (autoregressive(0.8, 4, 250, seed) for seed in range(200))
    ]
    assert np.mean(inside) >= 0.9


def test_the_error_sees_what_chains_differ_by():
    """Chains that each sit elsewhere: the error is that of the chains' means."""
    records = autoregressive(0.0, 4, 400) * 0.01 + torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert mean_error(records) >= float(records.mean(1).std()) / 2
    assert potential_scale_reduction(records) > 2


def test_different_spreads_show():
    """Equal centres and unequal spreads: R̂ of the folded values."""
    records = autoregressive(0.0, 4, 500, seed=3) * torch.tensor([[1.0], [1.0], [1.0], [6.0]])
    assert potential_scale_reduction(records) > 1.1


def test_chains_that_do_not_move():
    stuck = torch.tensor([[1.0], [2.0]]).expand(2, 50)
    assert potential_scale_reduction(stuck) == math.inf
    assert effective_sample_size(stuck) == 0.0
    assert mean_error(stuck) == math.inf
    same = torch.ones(2, 50)
    assert potential_scale_reduction(same) == 1.0
    assert mean_error(same) == math.inf
