"""Ranks bounded from above by named null directions."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.geometry.dimension import certify
from lightlike.geometry.symmetry import counting, verification
from lightlike.metric.jacobian import HONEST, SHORT, gradient_error
from oracles.networks import mlp, normal
from oracles.nullities import case, layered, settle


def fisher(seed=0, dtype="float64", head="categorical"):
    torch.manual_seed(seed)
    model = mlp([3, 5, 3], "leaky").double().eval()
    return ll.fisher(model, (2 * normal(100, 3),), head, dtype=dtype)


def test_the_rank_is_proven_twice_where_both_bounds_meet():
    F = fisher()
    plain, certified = ll.dimension(F), ll.dimension(F, certify=True)
    assert not plain.proven_twice
    assert plain.bound == "parameters"
    assert certified == dataclasses.replace(plain, bound="symmetries", proven_twice=True)
    assert certified.value == certified.upper == 38 - 5 - 6
    assert ll.dimension(F, explanation=ll.explain(F)) == certified


def test_an_open_rank_is_settled_by_symmetries():
    """Where eigenvalues leave the rank open, the count of null directions can close it."""
    F = fisher()
    d = dataclasses.replace(ll.dimension(F), value=29, upper=30, kind="certified")
    found = certify(d, F.root.shape, 11)
    assert (found.value, found.upper, found.kind, found.proven_twice) == (27, 27, "exact", True)
    weaker = certify(d, F.root.shape, 9)
    assert (weaker.value, weaker.upper, weaker.kind, weaker.proven_twice) == (
        29, 29, "certified", False,
    )  # fmt: skip


def test_contradicting_bounds_are_an_error():
    F = fisher()
    with pytest.raises(ll.errors.ConsistencyError, match="12 independent null directions"):
        certify(ll.dimension(F), F.root.shape, 12)


def test_a_rank_in_single_precision_is_never_exact():
    F = fisher(dtype="float32")
    d = ll.dimension(F, certify=True)
    assert d.kind == "certified"
    assert d.upper == 27
    assert not d.proven_twice
    assert d.lower <= 27


def test_what_cannot_be_certified():
    F = fisher()
    with pytest.raises(ll.errors.ChoiceError, match="certify"):
        ll.dimension(F, above=0.1, certify=True)
    with pytest.raises(ll.errors.ChoiceError, match="certify"):
        ll.dimension(torch.eye(3, dtype=torch.float64), certify=True)
    other = ll.explain(ll.fisher(layered([2, 2]).double(), (normal(9, 2),), "gaussian"))
    with pytest.raises(ll.errors.ChoiceError, match="explanation"):
        ll.dimension(F, explanation=other)
    with pytest.raises(ll.errors.ChoiceError, match="explanation"):
        ll.dimension(F, explanation=ll.explain(F, tolerance=1e-6))


def twins(apart, activation=nn.Tanh):
    """Two hidden units whose incoming weights differ by a given amount."""
    model = nn.Sequential(nn.Linear(2, 2), activation(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        for place, p in enumerate(model.parameters()):
            p.copy_(normal(*p.shape, seed=place))
        for p in (model[0].weight, model[0].bias):
            p[1] = p[0] + apart
    return model


def test_an_explanation_of_another_point_proves_nothing():
    x = normal(40, 2)
    equal, nearly = (ll.fisher(twins(apart), (x,), "gaussian") for apart in (0.0, 1e-10))
    foreign = ll.explain(equal)
    assert foreign.shape == nearly.root.shape
    assert not ll.dimension(nearly, certify=True).proven_twice
    assert ll.dimension(equal, explanation=foreign).proven_twice
    others = [
        nearly,
        ll.fisher(twins(0.0), (normal(40, 2, seed=9),), "gaussian"),
        ll.fisher(twins(0.0), (x,), ll.likelihoods.Gaussian(variance=2.0)),
        ll.fisher(twins(0.0, nn.SiLU), (x,), "gaussian"),
    ]
    for F in others:
        with pytest.raises(ll.errors.ChoiceError, match="of another"):
            ll.dimension(F, explanation=foreign)
    same = equal.at(equal.problem.theta)
    assert ll.dimension(same, explanation=foreign) == ll.dimension(equal, certify=True)
    with pytest.raises(ll.errors.ChoiceError, match="explanation=3"):
        ll.dimension(equal, explanation=3)


def test_what_cannot_be_explained():
    F = fisher()
    for other in (F.root, torch.eye(3), type(F)(F.root.scaled(torch.ones(38)))):
        with pytest.raises(ll.errors.ChoiceError, match=r"lightlike\.fisher"):
            ll.explain(other)
    for tolerance in (-1.0, 1.0, float("nan"), "a"):
        with pytest.raises(ll.errors.ChoiceError, match="tolerance"):
            ll.explain(F, tolerance=tolerance)


def test_a_wider_tolerance_takes_the_rank_at_that_tolerance():
    """The scale ahead of a LayerNorm is null but for its eps."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.LayerNorm(4, eps=1e-9), nn.Linear(4, 2))
    F = ll.fisher(model.double(), (normal(60, 3),), "gaussian")
    strict, wide = ll.explain(F), ll.explain(F, tolerance=1e-7)
    scales = [next(s for s in e.sources if s.kind == "normalised scale") for e in (strict, wide)]
    assert [(s.claimed, s.verified, s.dimension) for s in scales] == [(1, 0, 0), (1, 1, 1)]
    assert wide.radical == strict.radical + 1


def test_measurements_saved_before_ranks_could_be_proven_twice_still_load(tmp_path):
    m = ll.measure(layered([2, 3, 2]).double(), (normal(9, 2),), "gaussian", progress=False)
    fields = dataclasses.asdict(m.dimension)
    del fields["proven_twice"]
    assert ll.Dimension(**fields) == m.dimension
    m.save(tmp_path / "result.safetensors")
    assert ll.load(tmp_path / "result.safetensors").dimension == m.dimension


@pytest.mark.parametrize(("most", "expected"), [(81, 61), (20, 20)])
def test_many_directions_are_verified_by_combinations_and_counted_in_part(
    monkeypatch, most, expected
):
    """What is too much to take column by column is bounded from below, never above."""
    model = settle(layered([5, 9, 4], None, [0, 0]), np.random.Generator(np.random.PCG64(0)))
    F = ll.fisher(model, (normal(40, 5),), "gaussian")
    assert ll.explain(F).certain == 61 == 81 - 4 * 5
    monkeypatch.setattr(verification, "KEPT", 1)
    monkeypatch.setattr(counting, "MOST", most)
    # Combinations bound ‖A V‖ less sharply: near the tolerance fewer dimensions are certain.
    assert ll.explain(F).certain <= expected
    assert ll.explain(F, tolerance=1e-11).certain == expected


def test_a_detached_parameter_is_no_proof():
    """It has no gradient, but the predictions change with it."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(3, 2).double()
            self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, x):
            return self.linear(x) * self.scale.detach()

    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    F = ll.fisher(Scaled(), (x,), "gaussian")
    assert not ll.dimension(F, certify=True).proven_twice
    del F
    honest = ll.fisher(nn.Linear(3, 2).double(), (x,), "gaussian")
    assert ll.dimension(honest, certify=True).proven_twice


def test_a_faint_detached_parameter_is_no_proof_either():
    """What it adds to the derivative is far too little for differences of the outputs to show."""

    class Faint(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(4, 3)
            self.scale = nn.Parameter(torch.randn(3, 4))

        def forward(self, x):
            return self.linear(x) + 1e-4 * torch.sin(x @ self.scale.detach().T)

    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    F = ll.fisher(Faint().eval(), (x,), "categorical")
    found = ll.explain(F)
    assert "detached parameter" in [source.kind for source in found.sources]
    assert not ll.dimension(F, certify=True).proven_twice
    assert not ll.dimension(F, explanation=found).proven_twice


@pytest.mark.parametrize("index", [437, 677])
def test_kinks_of_rectifiers_are_no_detached_parameters(index):
    """ReLU networks that switch between the ends of the longer step of a difference."""
    known = case(index)
    F = ll.fisher(known.model, (known.x,), known.head)
    evaluator, batch = F.problem.evaluator, next(F.problem.batches())
    assert gradient_error(evaluator, batch) > HONEST > gradient_error(evaluator, batch, SHORT)
    d = ll.dimension(F, explanation=ll.explain(F))
    assert d.proven_twice
    assert d.value == known.parameters - known.nullity
