"""The step of a linearisation against its formula on dense matrices, by every route."""

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.geometry import linearisation
from lightlike.geometry.linearisation import Dual, Primal, linearise, shrink


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def root(rows=6, width=5):
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double()
    for i, p in enumerate(model.parameters()):
        p.data = normal(*p.shape, seed=i)
    return ll.fisher(model, (normal(rows, 4, seed=8),), "categorical").root


def weights_of(kind, size):
    if kind == "plain":
        return None
    weights = normal(size, seed=5).square() + 0.1
    if kind == "masked":
        weights[::3] = 0.0
    elif kind == "few":
        weights[5:] = 0.0
    return weights


ROUTES = {
    "eigenvalues": lambda A, w, e: Dual(A, w, e, 1e12),
    "factor": lambda A, w, e: Dual(A, w, e, 1e12),
    "primal": Primal,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["plain", "weighted", "masked", "few"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("rows", [6, 30])
def test_the_step_minimises_what_it_says(route, kind, epsilon, rows, monkeypatch):
    if route == "factor":
        monkeypatch.setattr(linearisation, "EIGEN", 0)
    A = root(rows)
    dense, (k, size) = A.dense(), A.shape
    w = weights_of(kind, size)
    d, r = normal(size, seed=1), 0.1 * normal(k, seed=2)
    if w is not None:
        d[w == 0] = 0.0
    if epsilon == 0.0:
        # What is to be taken away must be something that steps can take.
        scaled = dense if w is None else dense * w
        r = scaled @ (0.1 * normal(size, seed=2))
    line = ROUTES[route](A, w, epsilon)
    p, left = line.step(d, r)
    W = torch.eye(size, dtype=torch.float64) if w is None else torch.diag(w)
    gram, u = dense @ W @ dense.T, dense @ d - r
    if epsilon:
        y = torch.linalg.solve(gram + epsilon * torch.eye(k, dtype=torch.float64), u)
    else:
        y = torch.from_numpy(np.linalg.pinv(gram.numpy(), rcond=1e-11)) @ u
    expected = W @ dense.T @ y - d
    tolerance = {"rtol": 1e-6, "atol": 1e-8}
    torch.testing.assert_close(p, expected, **tolerance)
    # No correction where the residual is the expected one; the least one where it is not.
    there = r + dense @ p
    assert float(line.correct(there, left).norm()) < 1e-6
    back = line.correct(there + dense @ W @ dense.T @ normal(k, seed=4), left)
    assert w is None or bool((back[w == 0] == 0).all())
    if not epsilon:
        torch.testing.assert_close(dense @ back, -gram @ normal(k, seed=4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("rows", [6, 30])
def test_projections_are_projections(route, rows, monkeypatch):
    if route == "factor":
        monkeypatch.setattr(linearisation, "EIGEN", 0)
    A = root(rows)
    line, v, w = ROUTES[route](A, None, 0.0), normal(43, seed=1), normal(43, seed=2)
    once = line.project(v)
    torch.testing.assert_close(line.project(once), once, rtol=1e-8, atol=1e-9)
    assert float((A @ once).norm()) < 1e-8 * float(v.norm())
    assert float(once @ w) == pytest.approx(float(v @ line.project(w)), abs=1e-8)
    rank = int(np.linalg.matrix_rank(A.dense().numpy()))
    if line.counted:
        assert line.radical == 43 - rank
    else:
        assert line.radical == max(0, 43 - A.shape[0]) <= 43 - rank


def test_a_soft_radical_counts_what_is_below():
    A = root(30)
    values = np.linalg.eigvalsh(A.dense().numpy().T @ A.dense().numpy())
    for epsilon in (1e-4, 1e-2):
        below = int((values <= epsilon).sum())
        assert Primal(A, None, epsilon).radical == below
        assert Dual(A, None, epsilon, 1e12).radical == below


def test_shares_of_eigenvalues():
    values = torch.tensor([0.0, 1e-16, 1e-3, 1.0], dtype=torch.float64)
    (share, inverse), kept = shrink(values, 1e-14, 0.0)
    assert share.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert inverse.tolist() == [0.0, 0.0, pytest.approx(1e3), 1.0]
    assert kept == 2
    (share, inverse), kept = shrink(values, 1e-14, 1e-3)
    assert share.tolist() == [1.0, 1.0, 0.5, pytest.approx(1e-3 / 1.001)]
    assert kept == 1


def test_the_cheaper_side_is_taken_and_memory_decides():
    tall, wide = root(30), root(3)
    assert isinstance(linearise(tall, None, 0.0), Primal)
    assert isinstance(linearise(wide, None, 0.0), Dual)
    few = torch.zeros(43, dtype=torch.float64)
    few[:2] = 1.0
    assert isinstance(linearise(wide, few, 0.0), Primal)
    with pytest.raises(ll.errors.CapacityError, match="K = 6 rows"):
        linearise(wide, None, 0.0, memory=1000)
