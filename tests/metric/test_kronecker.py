"""KFAC and EKFAC against factors and moments written down naively, and where they are exact."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, UndefinedError
from oracles import curvature
from oracles import networks as nets

X = nets.normal(9, 4, seed=1)
SEQUENCES = nets.normal(6, 3, 4, seed=2)


def near(found, expected, rel=1e-10):
    assert found.shape == expected.shape
    return float((found - expected).norm()) <= rel * float(expected.norm())


def block(matrix, F, layer):
    entries = F.problem.selection.layers()[layer]
    mine = slice(entries[0].start, entries[-1].stop)
    return matrix[mine, mine]


def model_with_positions(bias=True):
    """A layer at each position, a nonlinearity, the mean over positions, a head."""
    return nets.fill(
        nets.Call(
            lambda self, x: self.head(torch.tanh(self.body(x)).mean(1)),
            body=nn.Linear(4, 3, bias=bias), head=nn.Linear(3, 3, bias=bias),
        ), 0)  # fmt: skip


CASES = {
    "mlp": (lambda: nets.fill(nets.mlp([4, 5, 3], "tanh"), 0), X, {"0": True, "2": True}),
    "no bias": (
        lambda: nets.fill(nets.mlp([4, 5, 3], "tanh", bias=False), 0), X, {"0": False, "2": False},
    ),
    "positions": (model_with_positions, SEQUENCES, {"body": True, "head": True}),
    "every position": (
        lambda: nets.fill(nets.mlp([4, 5, 3], "tanh"), 0), SEQUENCES, {"0": True, "2": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("likelihood", ["gaussian", "categorical", "bernoulli"])
@pytest.mark.parametrize("name", CASES)
def test_factors_and_second_moments_are_the_naive_ones(name, likelihood):
    make, x, layers = CASES[name]
    model = make()
    F = ll.fisher(model, [(x[:2],), (x[2:],)], likelihood)
    exact = curvature.fisher(model, [(x, None)], likelihood)
    plain, corrected = F.kronecker(), F.kronecker(eigenvalue_correction=True)
    K, E = plain.dense(), corrected.dense()
    outside = torch.ones_like(K, dtype=torch.bool)
    for layer, bias in layers.items():
        seen = curvature.seen(model, [(x, None)], layer, likelihood)
        expected = curvature.kfac(*seen, bias=bias)
        assert near(block(K, F, layer), expected)
        _, U = torch.linalg.eigh(expected)
        moments = (U.T @ block(exact, F, layer) @ U).diagonal()
        # Eigenvectors of distinct eigenvalues alone are the same from everywhere.
        assert near(block(E, F, layer), U @ moments.diag() @ U.T, 1e-7)
        block(outside, F, layer).fill_(False)
    assert bool((K[outside] == 0).all())
    assert bool((E[outside] == 0).all())
    assert corrected.trace() == pytest.approx(float(exact.trace()), rel=1e-12)


def test_reduce_takes_means_and_sums_over_positions():
    model = model_with_positions()
    F = ll.fisher(model, (SEQUENCES,), "gaussian")
    K = F.kronecker(sharing="reduce").dense()
    for layer in ("body", "head"):
        seen = curvature.seen(model, [(SEQUENCES, None)], layer, "gaussian")
        assert near(block(K, F, layer), curvature.kfac(*seen, bias=True, reduce=True))


def test_one_observation_of_one_layer_is_exact():
    model = nets.fill(nn.Sequential(nn.Linear(4, 3)), 0)
    F = ll.fisher(model, (X[:1],), "categorical")
    assert near(F.kronecker().dense(), curvature.fisher(model, [(X[:1], None)], "categorical"))


@pytest.mark.parametrize("widths", [[4, 3], [4, 6, 3], [4, 3, 5, 2]])
def test_deep_linear_networks_with_gaussian_noise_are_exact_block_by_block(widths):
    # g does not depend on the observation there: moments of products are products of moments.
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    model = nets.fill(nn.Sequential(*layers), 0)
    F = ll.fisher(model, (X,), "gaussian")
    exact = curvature.fisher(model, [(X, None)], "gaussian")
    K, E = F.kronecker().dense(), F.kronecker(eigenvalue_correction=True).dense()
    for layer in F.problem.selection.layers():
        assert near(block(K, F, layer), block(exact, F, layer))
        assert near(block(E, F, layer), block(exact, F, layer))


def test_expand_is_exact_for_outputs_at_every_position_and_reduce_for_their_mean():
    body = nets.fill(nn.Sequential(nn.Linear(4, 3)), 0)
    F = ll.fisher(body, (SEQUENCES,), "gaussian")
    exact = curvature.fisher(body, [(SEQUENCES, None)], "gaussian")
    assert near(F.kronecker().dense(), exact)
    mean = nets.fill(nets.Call(lambda self, x: self.body(x).mean(1), body=nn.Linear(4, 3)), 0)
    F = ll.fisher(mean, (SEQUENCES,), "gaussian")
    exact = curvature.fisher(mean, [(SEQUENCES, None)], "gaussian")
    assert near(F.kronecker(sharing="reduce").dense(), exact)
    assert not near(F.kronecker().dense(), exact, 0.1)


def test_functions_are_those_of_the_dense_matrix():
    model = nets.fill(nets.mlp([4, 5, 3], "tanh", norm=nn.LayerNorm), 0)
    F = ll.fisher(model, (X,), "categorical")
    v = nets.normal(F.shape[0], 2, seed=5)
    eye = torch.eye(F.shape[0], dtype=torch.float64)
    every = [
        F.kronecker(), F.kronecker(eigenvalue_correction=True), F.diagonal(), F.blocks(),
        F.blocks("parameter"),
    ]  # fmt: skip
    for M in every:
        dense = M.dense()
        assert near(M @ v, dense @ v)
        assert near(M @ v[:, 0], dense @ v[:, 0])
        assert near(M.solve(v, 0.3), torch.linalg.solve(dense + 0.3 * eye, v))
        half = M.half_solve(v, 7.0)
        assert near(M.half_solve(half, 7.0), torch.linalg.solve(eye + 7 * dense, v))
        values, vectors = torch.linalg.eigh(dense)
        log = vectors @ torch.log1p(7 * values.clamp_min(0.0)).diag() @ vectors.T
        assert near(M.log_product(v, 7.0), log @ v, 1e-8)
        assert M.logdet(7.0) == pytest.approx(float(torch.logdet(eye + 7 * dense)), rel=1e-10)
        assert M.trace() == pytest.approx(float(dense.trace()), rel=1e-10)
        assert M.squared_norm() == pytest.approx(float(dense.square().sum()), rel=1e-10)
        assert near(M.diagonal(), dense.diagonal())
        values = torch.linalg.eigvalsh(dense).flip(0)
        found = M.spectrum
        assert found.kind == "approximate"
        assert near(found.eigenvalues[:10], values[:10])
        assert found.logdet(7.0) == pytest.approx(M.logdet(7.0), rel=1e-10)


def test_errors_are_the_dense_ones():
    model = nets.fill(nets.mlp([4, 5, 3], "tanh"), 0)
    F = ll.fisher(model, (X,), "categorical")
    exact = curvature.fisher(model, [(X, None)], "categorical")
    eye = torch.eye(len(exact), dtype=torch.float64)
    for M in (F.kronecker(), F.blocks()):
        found, dense = M.error(20.0), M.dense()
        relative = float((dense - exact).norm() / exact.norm())
        assert found.frobenius == pytest.approx(relative, rel=1e-8)
        assert found.trace == pytest.approx(float(dense.trace() / exact.trace()) - 1, abs=1e-10)
        truth = float(torch.logdet(eye + 20 * exact))
        assert found.exact == pytest.approx(truth, rel=1e-10)
        expected = float(torch.logdet(eye + 20 * dense)) - truth
        assert found.logdet == pytest.approx(expected, abs=1e-9)
        assert "nats" in str(found)
    assert F.kronecker().error().scale == 9
    assert F.kronecker().error().logdet == pytest.approx(F.kronecker().error(9.0).logdet)


def test_weights_of_columns_are_those_of_the_root():
    model = nets.fill(nets.mlp([4, 5, 3], "tanh"), 0)
    root = ll.fisher(model, (X,), "categorical").root
    sizes = [e.size for e in root.problem.selection.entries]
    w = torch.cat([torch.full((n,), 0.5 + i).double() for i, n in enumerate(sizes)])
    scaled = ll.Fisher(root.scaled(w)).kronecker()
    assert set(scaled.structures.values()) == {"kronecker"}
    plain = ll.Fisher(root).kronecker()
    assert near(scaled.dense(), w[:, None] * plain.dense() * w)
    uneven = nets.normal(len(w), seed=4).exp()
    blocks = ll.Fisher(root.scaled(uneven)).kronecker()
    assert set(blocks.structures.values()) == {"dense"}
    exact = ll.Fisher(root.scaled(uneven)).blocks("layer").dense()
    assert near(blocks.dense(), exact)


def test_of_a_sketch_it_is_that_of_the_sketched_rows():
    model = nets.fill(nets.mlp([4, 5, 6], "tanh"), 0)
    F = ll.fisher(model, (X,), "categorical")
    S = next(F.sketch(ll.Sketch(draws=2)).roots())
    M = ll.Fisher(S).kronecker(eigenvalue_correction=True)
    rows = S.dense()
    assert rows.shape[0] == 2 * len(X)
    assert M.trace() == pytest.approx(float(rows.square().sum()), rel=1e-10)
    _, U = torch.linalg.eigh(ll.Fisher(S).kronecker().dense())
    # In the sketched factors' own eigenvectors no other diagonal is nearer.
    square = rows.T @ rows
    pinched = U @ (U.T @ square @ U).diagonal().diag() @ U.T
    assert float((M.dense() - square).norm()) == pytest.approx(
        float((pinched - square).norm()), rel=1e-6
    )


def test_one_layer_alone_is_its_block():
    model = nets.fill(nets.mlp([4, 5, 3], "tanh"), 0)
    F = ll.fisher(model, (X,), "categorical")
    part = ll.Fisher(F.root.of_layer("2"))
    for get in (lambda G: G.kronecker(), lambda G: G.diagonal(), lambda G: G.blocks()):
        assert near(get(part).dense(), block(get(F).dense(), F, "2"))
    assert list(part.kronecker().structures) == ["2.weight", "2.bias"]


def test_what_cannot_be_answered_says_why():
    F = ll.fisher(nets.fill(nets.raw(4, 5, 3), 0), (X,), "gaussian")
    K = F.kronecker()
    with pytest.raises(UndefinedError, match="singular"):
        K.solve(nets.normal(F.shape[0]), 0.0)
    with pytest.raises(ChoiceError, match="damping"):
        K.solve(nets.normal(F.shape[0]), -1.0)
    with pytest.raises(ChoiceError, match="scale"):
        K.logdet(-1.0)
    with pytest.raises(ChoiceError, match="sharing"):
        F.kronecker(sharing="both")
    with pytest.raises(ChoiceError, match="by"):
        F.blocks("head")
    with pytest.raises(MemoryError, match="layer"):
        F.blocks(memory=1000)
    with pytest.raises(ValueError, match="has shape"):
        K @ nets.normal(3)


def test_model_and_random_state_are_left_alone(untouched):
    model = nets.fill(nets.mlp([4, 5, 3], "tanh", norm=nn.LayerNorm), 0)
    with untouched(model, X):
        F = ll.fisher(model, (X,), "categorical")
        F.kronecker(eigenvalue_correction=True).error()
        F.diagonal()
        F.blocks()
