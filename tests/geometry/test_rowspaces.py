"""What decides how a row space is held, and what leaves the radical where it is."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lightlike as ll
from lightlike.geometry.gramspace import GramRowSpace
from lightlike.geometry.rowspace import ExplicitRowSpace
from lightlike.geometry.scaledspace import ScaledRowSpace
from lightlike.spectrum.decomposition import Decomposition
from oracles.networks import fill, mlp, normal

EPS = torch.finfo(torch.float64).eps


def near_degenerate():
    """Twelve linear layers of width 6: D = 432, rank 36, s_d/s_1 = 5e-11."""
    layers = [nn.Linear(6, 6, bias=False) for _ in range(12)]
    model = fill(nn.Sequential(*layers).double(), 3, 1.0)
    return ll.fisher(model, (normal(12, 6),), "gaussian")


def test_faint_rows_are_scaled():
    """Saturated outputs make rows of size 1e-10 that depend on no other ones."""
    model = fill(mlp([4, 6, 2], "tanh").double(), 3)
    with torch.no_grad():
        model[2].bias[0] = 40.0
    F = ll.fisher(model, (normal(10, 4),), "bernoulli")
    radical, screen = ll.subspaces(F, "gram")
    assert isinstance(screen.rows, ScaledRowSpace)
    A = F.root.dense().numpy()
    s = np.linalg.svd(A, compute_uv=False)
    assert screen.dimension == 20
    assert s[-1] / s[0] < 1e-9
    # Each row to its own precision: a basis of the rows divided by their norms.
    Q = np.linalg.qr((A / np.linalg.norm(A, axis=1, keepdims=True)).T)[0]
    P = torch.as_tensor(Q @ Q.T)
    v = normal(len(P), 3, seed=1)
    torch.testing.assert_close(screen.project(v), P @ v, rtol=0, atol=1e-11)
    B = screen.basis()
    torch.testing.assert_close(B @ B.T, P, rtol=0, atol=1e-11)
    assert float(np.linalg.norm(A @ B[:, -1].numpy())) == pytest.approx(s[-1], rel=1e-3)
    torch.testing.assert_close(screen.share().coordinates, P.diagonal(), rtol=0, atol=1e-11)
    _, s, V = np.linalg.svd(A)
    expected = V[:20].T @ (V[:20] @ v.numpy() / s[:, None] ** 2)
    found = screen.solve(v).numpy()
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)
    assert screen.contains(torch.as_tensor(A[0]), tolerance=1e-11)
    assert not radical.contains(torch.as_tensor(A[1]))


def test_with_little_memory_only_what_is_close_to_call_is_held(monkeypatch):
    F = near_degenerate()
    A = F.root.dense()
    decomposition = F.decomposition("gram")
    assert decomposition.spectrum.resolved
    values = decomposition.vectors[0] / decomposition.vectors[0][-1]
    floor = 10 * len(values) ** 0.5 * EPS
    all_small, close = (int((values <= share).sum()) for share in (1e-8, 4 * floor))
    assert 36 < close < all_small
    s, V = np.linalg.svd(A.numpy())[1:]
    V = torch.as_tensor(V[:36])
    v = normal(432, 3, seed=1)
    for few, budget in ((all_small, 1e9), (close, 40.0 * 432 * close)):
        monkeypatch.setattr(decomposition, "budget", budget)
        radical, screen = ll.subspaces(F, "gram")
        assert type(screen.rows) is GramRowSpace
        assert not screen.rows.clear
        assert float((A @ radical.project(v)).norm()) < 20 * EPS * s[0] * float(v.norm())
        assert screen.rows.few == few
        turned = 100 * EPS * s[0] / s[35]
        torch.testing.assert_close(
            screen.project(v), V.T @ (V @ v), rtol=0, atol=turned * float(v.norm())
        )
        diagonal = V.square().sum(0)
        torch.testing.assert_close(screen.share().coordinates, diagonal, rtol=0, atol=turned)
    monkeypatch.setattr(decomposition, "budget", 40.0 * 432 * close - 1)
    solved = screen.solve(v).numpy()
    expected = V.T @ ((V @ v) / torch.as_tensor(s[:36, None]).square())
    assert np.linalg.norm(solved - expected.numpy()) < 1e-3 * float(expected.norm())
    with pytest.raises(ll.errors.CapacityError, match="near rounding"):
        ll.subspaces(F, "gram")[0].project(v)


def test_an_open_rank_takes_nothing_apart(monkeypatch):
    monkeypatch.setattr(Decomposition, "solve", lambda self: self.first)
    for method in ("gram", "metric"):
        with pytest.raises(ll.errors.CapacityError, match="The rank is open between"):
            ll.subspaces(near_degenerate(), method)


def test_a_check_against_the_root_is_made(monkeypatch):
    """A factor of another matrix than A Aᵀ does not go unnoticed."""
    F = ll.fisher(fill(mlp([3, 4, 3], "tanh").double(), 0), (normal(5, 3),), "categorical")
    radical, _ = ll.subspaces(F, "gram")
    factor = radical.rows.factor
    monkeypatch.setitem(vars(radical.rows), "factor", torch.eye(len(factor)).to(factor) * 100)
    with pytest.raises(ll.errors.ConsistencyError, match="s_1"):
        radical.project(normal(F.shape[0]))


@pytest.mark.parametrize(("n", "clear"), [(2, True), (40, False)])
def test_more_rows_than_columns_and_fewer(n, clear):
    F = ll.fisher(fill(mlp([2, 3, 2], "tanh").double(), 0), (normal(n, 2),), "gaussian")
    assert (F.root.shape[0] < F.shape[0]) == clear
    v = normal(F.shape[0], seed=1)
    found = []
    for method, kind in (("gram", GramRowSpace), ("metric", ExplicitRowSpace)):
        radical, screen = ll.subspaces(F, method)
        assert isinstance(screen.rows, kind)
        assert screen.dimension == min(F.root.shape)
        found.append(screen.project(v))
        assert radical.basis().shape == (F.shape[0], F.shape[0] - screen.dimension)
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)
    if not clear:
        torch.testing.assert_close(found[0], v, rtol=0, atol=1e-10)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 99), st.floats(0.3, 3.0), st.permutations(range(4)), st.integers(0, 3))
def test_the_radical_goes_with_what_keeps_the_function(seed, factor, order, unit):
    """θ' = T θ computes the same function, so A' = A T⁻¹ and Rad' = T Rad."""
    model = fill(mlp([3, 4, 3], "leaky").double(), seed)
    x = normal(20, 3, seed=seed)
    F = ll.fisher(model, (x,), "categorical")
    radical, screen = ll.subspaces(F)
    permuted, rescaled = copy.deepcopy(model), copy.deepcopy(model)
    index = torch.arange(F.shape[0])
    parts = {k: part.clone() for k, part in F.problem.selection.split(index).items()}
    gains = {k: torch.ones_like(part, dtype=torch.float64) for k, part in parts.items()}
    with torch.no_grad():
        order = list(order)
        for name in ("0.weight", "0.bias"):
            parts[name] = parts[name][order]
            gains[name][unit] *= factor
        parts["2.weight"] = parts["2.weight"][:, order]
        gains["2.weight"][:, unit] /= factor
        for other, change in (
            (permuted, lambda k: F.problem.theta[parts[k]]),
            (rescaled, lambda k: model.get_parameter(k) * gains[k]),
        ):
            for name, p in other.named_parameters():
                p.copy_(change(name))
    torch.testing.assert_close(permuted(x), model(x))
    torch.testing.assert_close(rescaled(x), model(x))
    flatten = F.problem.selection.flatten
    basis = radical.basis()
    for other, moved in (
        (permuted, basis[flatten(parts)]),
        (rescaled, basis * flatten(gains)[:, None]),
    ):
        there, screen_there = ll.subspaces(F.at(other.state_dict()))
        assert there.dimension == radical.dimension
        rest = screen_there.project(moved)
        turned = screen_there.rows.turning + screen.rows.turning
        assert float(rest.norm(dim=0).max()) < 10 * turned
        assert there.contains(moved[:, 0])
    # A permutation is orthogonal: the screen goes along as well.
    screen_there = ll.subspaces(F.at(permuted.state_dict()))[1]
    v = normal(F.shape[0], seed=seed)
    torch.testing.assert_close(
        screen_there.project(v[flatten(parts)]), screen.project(v)[flatten(parts)],
        rtol=0, atol=100 * screen.rows.turning,
    )  # fmt: skip


def test_users_vectors_and_model_are_left_alone(untouched):
    model = fill(mlp([3, 4, 3], "relu"), 0)
    x, v = normal(6, 3).float(), torch.ones(31)
    with untouched(model, x, v):
        F = ll.fisher(model, (x,), "categorical")
        for method in ("gram", "metric", "svd", "iterative"):
            radical, screen = ll.subspaces(F, method)
            assert radical.project(v).dtype == torch.float64
            screen.contains(v)
            screen.solve(v)
            if method != "iterative":
                screen.share()
                screen.basis()
                screen.angles(screen)
        ll.fisher_length(F, [F.problem.theta, F.problem.theta + 1e-3])
