"""What is no vector, point or option is refused as such; what can be read as one is taken."""

import math

import numpy as np
import pytest
import torch

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, LightlikeError, ParameterError, PriorError
from oracles.networks import fill, mlp, normal

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(fill(mlp([3, 4, 2], "tanh"), 0), (normal(5, 3),), "gaussian")


def damaged(size):
    """All that is no vector of some size."""
    good = torch.ones(size, dtype=torch.float64)
    hole = good.clone()
    hole[1] = NAN
    return {
        "none": None, "number": 1.0, "text": "v", "dict": {"v": good}, "long": torch.ones(size + 1),
        "deep": torch.ones(size, 1, 1), "short list": [1.0], "ragged": [[1.0], [1.0, 2.0]],
        "texts": ["a"] * size, "nan": hole, "inf": good * INF, "complex": good + 0j,
        "truth": good > 0, "numpy nan": hole.numpy(), "objects": np.array([None] * size),
        "sparse": good.to_sparse(), "meta": good.to("meta"), "empty": [],
    }  # fmt: skip


BAD = list(damaged(3))
PRODUCTS = {
    "F @ v": lambda F, v: F @ v,
    "mv": lambda F, v: F.root.mv(v),
    "A @ v": lambda F, v: F.root @ v,
    "project": lambda F, v: ll.subspaces(F)[1].project(v),
    "split": lambda F, v: ll.subspaces(F)[0].split(v),
    "contains": lambda F, v: ll.subspaces(F)[0].contains(v),
    "solve": lambda F, v: ll.subspaces(F)[1].solve(v),
    "norm": lambda F, v: ll.subspaces(F)[1].norm(v),
    "inner": lambda F, v: ll.subspaces(F)[1].inner(F.problem.theta, v),
}
POINTS = {
    "at": lambda F, v: F.at(v),
    "path": lambda F, v: ll.dimension_path(F, [v]),
    "length": lambda F, v: ll.fisher_length(F, [F.problem.theta, v]),
    "between": lambda F, v: ll.between(F, v, 3),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("product", PRODUCTS)
def test_what_is_no_tangent_vector(F, product, bad):
    with pytest.raises(ParameterError) as caught:
        PRODUCTS[product](F, damaged(F.shape[0])[bad])
    assert "The vector" in caught.value.what


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_vector_of_rows(F, bad):
    for product in (F.root.rmv, lambda u: F.root.T @ u):
        with pytest.raises(DataError, match="The vector"):
            product(damaged(F.root.shape[0])[bad])


@pytest.mark.parametrize("bad", [b for b in BAD if b != "dict"])
@pytest.mark.parametrize("question", POINTS)
def test_what_is_no_point(F, question, bad):
    with pytest.raises(ParameterError, match="oint"):
        POINTS[question](F, damaged(F.shape[0])[bad])


def test_state_dicts_that_are_none(F):
    """Holes, texts and other models' entries are named; buffers may hold infinities."""
    whole = F.problem.evaluator.model.state_dict()
    for name, bad in (("0.weight", None), ("0.bias", "a"), ("2.bias", torch.tensor([1.0, NAN]))):
        with pytest.raises(ParameterError, match=name):
            F.at({**whole, name: bad})
    mask = torch.tensor([0.0, -INF]).double()
    model = fill(mlp([3, 4, 2], "tanh"), 0).double()
    model.register_buffer("mask", mask)
    masked = ll.fisher(model, (normal(5, 3),), "gaussian")
    assert torch.equal(masked.at(model.state_dict()).problem.theta, masked.problem.theta)


@pytest.mark.parametrize("form", ["list", "tuple", "numpy", "float32", "integers", "block"])
def test_what_can_be_read_as_vectors_is(F, form):
    v = torch.arange(F.shape[0], dtype=torch.float64) % 5 - 2
    given = {
        "list": v.tolist(), "tuple": tuple(v.tolist()), "numpy": v.numpy(), "float32": v.float(),
        "integers": v.long(), "block": [[x] for x in v.tolist()],
    }[form]  # fmt: skip
    radical, screen = ll.subspaces(F)
    behind = (1,) if form == "block" else ()
    for product in (F.__matmul__, F.root.mv, radical.project, screen.project, screen.solve):
        expected = product(v)
        assert torch.equal(product(given), expected.reshape(*expected.shape, *behind))
    assert float(screen.norm(given)) == float(screen.norm(v))
    if form != "block":
        assert bool(radical.contains(given)) == bool(radical.contains(v))
        assert torch.equal(F.at(given).problem.theta, v)


def test_points_in_any_form(F):
    """A module, its state dict, a list and an array say the same."""
    other = fill(mlp([3, 4, 2], "tanh"), 1)
    flat = torch.cat([p.detach().double().reshape(-1) for p in other.parameters()])
    forms = [other, other.state_dict(), flat.tolist(), flat.numpy(), flat]
    path = ll.dimension_path(F, forms)
    assert path.distances == (0.0,) * 5
    lengths = [ll.fisher_length(F, [flat, form], relative_error=0.5).value for form in forms]
    assert lengths == [0.0] * 5
    rows = {name: value.numpy() for name, value in other.state_dict().items()}
    assert torch.equal(F.at(rows).problem.theta, flat)
    assert torch.equal(ll.between(F, other, 2)[1], flat)


ONE = torch.zeros(26)
OPTIONS = {
    "F": [lambda F, q=q: q(F.root) for q in (
              ll.subspaces, ll.saturation, ll.explain, lambda r: ll.walk(r, "norm"),
              lambda r: ll.fisher_length(r, []), lambda r: ll.dimension_near(r, 1.0))],
    "k": [lambda F, k=k: ll.subspaces(F)[1].basis(k) for k in (2.5, "a", True, -1, 999)],
    "sizes": [lambda F, s=s: ll.saturation(F, s) for s in ("a", [2.5], [], [0], ["a"], 3, [6])],
    "radius": [lambda F, r=r: ll.dimension_near(F, r) for r in ("a", None, -1.0, INF, NAN, True)],
    "draws": [lambda F, n=n: ll.dimension_near(F, 1.0, n) for n in (1.5, "a", 0, True)],
    "seed": [lambda F: ll.dimension_near(F, 1.0, 2, "s"), lambda F: ll.saturation(F, seed="s"),
             lambda F: ll.walk(F, "norm", seed="a"), lambda F: ll.walk(F, "norm", seed=2**70)],
    "region": [lambda F: ll.dimension_near(F, 1.0, region=None)],
    "steps": [lambda F, n=n: ll.between(F, F.problem.theta, n) for n in (2.5, "a", 1, None)],
    "max_steps": [lambda F, n=n: ll.walk(F, "norm", max_steps=n) for n in ("x", 2.5, 0, True)],
    "budget": [lambda F, b=b: ll.walk(F, "norm", budget=b) for b in ("x", 0.0, NAN, INF, None)],
    "epsilon": [lambda F, e=e: ll.walk(F, "norm", epsilon=e) for e in ("x", -1.0, None, NAN)],
    "tolerance": [lambda F: ll.walk(F, "norm", tolerance="x"),
                  lambda F: ll.subspaces(F)[0].contains(F.problem.theta, "x"),
                  lambda F: ll.subspaces(F)[1].contains(F.problem.theta, -1.0),
                  lambda F: ll.explain(F, tolerance="x"), lambda F: ll.explain(F, tolerance=True)],
    "step": [lambda F, s=s: ll.walk(F, "grid", step=s) for s in ("x", 0.0, None, INF)],
    "objective": [lambda F, o=o: ll.walk(F, o) for o in ("x", None, 3)],
    "points": [lambda F, p=p: ll.dimension_path(F, p) for p in (ONE, None, 3, "ab", {})],
    "relative_error": [lambda F, e=e: ll.fisher_length(F, [F.problem.theta] * 2, relative_error=e)
                       for e in ("a", 0, 1, NAN, None)],
    "evaluations": [lambda F, n=n: ll.fisher_length(F, [F.problem.theta] * 2, evaluations=n)
                    for n in ("a", 2.5, -1, True)],
    "other": [lambda F: ll.subspaces(F)[1].angles(ll.subspaces(F)[0]),
              lambda F: ll.subspaces(F)[1].angles(None)],
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_no_option(F, option):
    for call in OPTIONS[option]:
        with pytest.raises(ChoiceError) as caught:
            call(F)
        assert option in str(caught.value)


def test_subspaces_of_other_spaces(F):
    other = ll.fisher(fill(mlp([3, 5, 2], "tanh"), 0), (normal(5, 3),), "gaussian")
    with pytest.raises(ParameterError, match="26 and 32"):
        ll.subspaces(F)[1].angles(ll.subspaces(other)[1])


@pytest.mark.parametrize("bad", [[1.0], [NAN] * 26, "x", -1.0, True, [1j] * 26, INF])
def test_what_is_no_precision(F, bad):
    with pytest.raises((ChoiceError, PriorError), match="precision"):
        ll.subspaces(F, precision=bad)


def test_errors_say_three_things(F):
    with pytest.raises(LightlikeError) as caught:
        F.root.mv(torch.full((26,), math.inf))
    error = caught.value
    assert "26 entries" in error.what
    assert error.why
    assert error.remedy
