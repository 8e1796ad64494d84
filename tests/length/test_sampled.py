"""Bounds from sub-samples, against all observations."""

import math

import pytest
import torch

import lightlike as ll
from lightlike.errors import ChoiceError
from lightlike.length.sampled import extrapolate
from oracles import networks as nets

X = nets.normal(80, 3, seed=1)


def densities(samples, n, options):
    model = nets.fill(nets.mlp([3, 4, 3], "tanh"), 0)
    found = []
    for seed in range(samples):
        chosen = torch.randperm(80, generator=torch.Generator().manual_seed(seed))[:n]
        F = ll.fisher(model, (X[chosen],), "categorical")
        found.append(ll.density(F, options, scale=80.0, seed=seed))
    return found, ll.fisher(model, (X,), "categorical")


def test_bounds_hold():
    found, F = densities(8, 20, ll.Quadrature(probes=10, deflate=6))
    exact = ll.description_length(F, prior=ll.priors.Isotropic(1.0)).complexity
    bounds = extrapolate(found, sampled=20, observations=80, rows=160, level=0.99)
    assert bounds.certain < bounds.below.value < exact < bounds.above
    assert bounds.below.bias == "below"
    assert bounds.below.value > 0.9 * exact  # and is of use
    assert abs(bounds.trace.value - F.trace()) < 5 * bounds.trace.stderr
    assert bounds.dimension <= int(ll.dimension(F))
    # Of all observations there is nothing to extrapolate.
    all_of_them, _ = densities(2, 80, ll.Quadrature(probes=30, deflate=6))
    same = extrapolate(all_of_them, sampled=80, observations=80, rows=160)
    assert same.below.value == pytest.approx(exact, rel=0.05)
    assert same.below.interval(0.99)[0] < exact


def test_the_flat_spectrum_reaches_the_upper_bound():
    flat = [ll.density(2.0 * torch.eye(6, dtype=torch.float64), scale=1.0, seed=s) for s in (0, 1)]
    bounds = extrapolate(flat, sampled=5, observations=5, rows=100)
    assert bounds.above == pytest.approx(3 * math.log(11.0))
    assert bounds.below.value == pytest.approx(bounds.above, abs=1e-4)


def test_choices():
    one = ll.density(torch.eye(3, dtype=torch.float64), scale=1.0)
    with pytest.raises(ChoiceError, match="two or more"):
        extrapolate([one], sampled=2, observations=4, rows=4)
    with pytest.raises(ChoiceError, match="same seed"):
        extrapolate([one, one], sampled=2, observations=4, rows=4)
    with pytest.raises(ChoiceError, match="observations"):
        extrapolate([one, one], sampled=4, observations=2, rows=4)


@pytest.mark.slow
def test_bounds_hold_at_their_level_over_many_samples():
    """One-sided at 90 %, over 60 sets of four sub-samples: a standard error of 3.9 %."""
    model = nets.fill(nets.mlp([3, 4, 3], "tanh"), 0)
    F = ll.fisher(model, (X,), "categorical")
    exact = ll.description_length(F, prior=ll.priors.Isotropic(1.0)).complexity
    trace, rank, options = F.trace(), int(ll.dimension(F)), ll.Quadrature(probes=6, deflate=3)
    held = {"certain": 0, "below": 0, "above": 0, "trace": 0, "dimension": 0}
    for seed in range(60):
        random, found = torch.Generator().manual_seed(seed), []
        for index in range(4):
            chosen = torch.randperm(80, generator=random)[:20]
            dense = ll.fisher(model, (X[chosen],), "categorical").dense()
            found.append(ll.density(dense, options, scale=80.0, seed=4 * seed + index))
        bounds = extrapolate(found, sampled=20, observations=80, rows=160, level=0.9)
        low, high = bounds.trace.interval(0.9)
        held["certain"] += bounds.certain <= exact
        held["below"] += bounds.below.interval(0.9)[0] <= exact
        held["above"] += exact <= bounds.above
        held["trace"] += low <= trace <= high
        held["dimension"] += bounds.dimension <= rank
    assert held["dimension"] == 60
    assert held["certain"] >= 0.95 * 60
    assert held["below"] >= 0.85 * 60
    assert held["above"] >= 0.85 * 60
    # Sub-samples of a quarter without replacement differ less than independent ones would.
    assert held["trace"] >= 0.82 * 60
