"""Row sketches against rows written down naively with the same random numbers."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError
from lightlike.metric.drawing import sketched
from lightlike.problem.draws import Draws
from oracles import networks as nets
from oracles.reference import jacobians, whitened

X = nets.normal(7, 3, seed=1)
TOKENS = torch.randint(5, (4, 3), generator=nets.generator(3))
LABELS = torch.tensor([[1, 2, -100], [0, -100, -100], [4, 1, 1], [2, 0, 3]])


def net(seed=0):
    return nets.fill(nets.mlp([3, 4, 5], "tanh"), seed)


def language_model(seed=0):
    return nets.fill(nets.language_model(5, 4, 3, 2, nets.Attention, False), seed)


def recurrent(seed=0):
    model = nn.Sequential(nn.Embedding(5, 2), nets.Recurrent(nn.GRU, 2, 3, 5, True))
    return nets.fill(model, seed)


def flattened(seed=0):
    """Positions of all items side by side in the output's first dimension."""
    return nets.fill(
        nets.Call(lambda self, x: self.last(torch.tanh(self.first(x)).flatten(0, 1)),
                  first=nn.Embedding(5, 3), last=nn.Linear(3, 5)), seed)  # fmt: skip


CASES = {
    "mlp": (net, X, None),
    "mlp with labels": (net, X, torch.arange(7) % 5),
    "language model": (language_model, TOKENS, LABELS),
    "recurrent": (recurrent, TOKENS, LABELS),
    "flattened": (flattened, TOKENS, LABELS.reshape(-1)),
}


def batches(x, y, size):
    if y is None:
        return DataLoader(TensorDataset(x), batch_size=size)
    if len(y) != len(x):  # flattened labels
        return [(x[i : i + size], y[3 * i : 3 * (i + size)]) for i in range(0, len(x), size)]
    return DataLoader(TensorDataset(x, y), batch_size=size)


def naive(model, x, y, draws):
    """Ξ_iᵀ (diag √p − √p pᵀ)ᵀ J_i / √N, one observation at a time, from reference Jacobians."""
    h, J = jacobians(model, [(x, y)])
    positions = len(h) // len(x) if y is None or y.ndim > 1 else 1
    kept = np.ones(len(h), bool) if y is None else (y.reshape(-1) != -100).numpy()
    rows = []
    for i in np.flatnonzero(kept):
        p = np.exp(h[i] - h[i].max())
        p /= p.sum()
        L = np.diag(np.sqrt(p)) - np.outer(p, np.sqrt(p))
        xi = draws.vectors([(i // positions, i % positions)], len(p))[0].numpy()
        rows.append((L @ xi).T @ J[i])
    return np.concatenate(rows) / math.sqrt(kept.sum())


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
@pytest.mark.parametrize("name", CASES)
def test_rows_are_the_naive_ones_in_every_product(name, distribution):
    make, x, y = CASES[name]
    model, draws = make(), Draws(3, 11, 2, distribution)
    S = sketched(ll.fisher(model, list(batches(x, y, 3)), "categorical").root, draws)
    expected = naive(model, x, y, draws)
    assert S.shape == expected.shape
    scale = (expected**2).sum()
    dense = S.dense().numpy()
    assert abs(dense - expected).max() <= 1e-13 * math.sqrt(scale)
    assert abs(S.gram().numpy() - expected @ expected.T).max() <= 1e-13 * scale
    assert abs(S.metric().numpy() - expected.T @ expected).max() <= 1e-13 * scale
    u, v = nets.normal(S.shape[0], 2, seed=5), nets.normal(S.shape[1], 2, seed=6)
    assert abs((S @ v).numpy() - expected @ v.numpy()).max() <= 1e-12 * math.sqrt(scale)
    for columns in (u, u[:, 0]):
        found = (S.T @ columns).numpy()
        assert abs(found - expected.T @ columns.numpy()).max() <= 1e-12 * math.sqrt(scale)
    assert abs(S.rows(1).numpy() - expected[3:6]).max() <= 1e-13 * math.sqrt(scale)


@pytest.mark.parametrize("name", CASES)
def test_any_split_of_the_data_gives_the_same_sketch(name):
    make, x, y = CASES[name]
    model, draws = make(), Draws(2, 3)
    whole = None
    for size in (len(x), 1, 2, 3):
        S = sketched(ll.fisher(model, list(batches(x, y, size)), "categorical").root, draws)
        roots = torch.cat([S.problem.score_roots(o) for _, o in S.problem.sweep("test")])
        dense = S.dense()
        if whole is None:
            whole = dense, roots
        torch.testing.assert_close(dense, whole[0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(roots, whole[1], rtol=1e-13, atol=1e-15)
    F = ll.fisher(model, list(batches(x, y, 2)), "categorical")
    for others in (Draws(2, 4), Draws(2, 3, 1), Draws(2, 3, 0, "rademacher")):
        assert float((sketched(F.root, others).dense() - whole[0]).abs().max()) > 1e-3


def test_rows_are_gradients_of_the_detached_root_loss():
    """Sun (arXiv 2505.13614): ∇ Σ_y √p(y|x) log p(y|x) ξ_y with √p detached is ξᵀ LᵀJ."""
    model, draws = net().double(), Draws(1, 4)
    S = sketched(ll.fisher(model, (X,), "categorical").root, draws).dense()
    leaves = {n: p.detach().clone().requires_grad_(True) for n, p in model.named_parameters()}
    for i, row in enumerate(S):
        log_p = torch.log_softmax(functional_call(model, leaves, (X[i],)), -1)
        xi = draws.vectors([(i, 0)], 5)[0, :, 0]
        loss = ((0.5 * log_p).exp().detach() * log_p * xi).sum()
        found = torch.autograd.grad(loss, list(leaves.values()))
        flat = torch.cat([g.reshape(-1) for g in found]) / math.sqrt(len(X))
        torch.testing.assert_close(row, flat, rtol=1e-12, atol=1e-14)


def scores(samples, expected):
    """Entrywise (mean − expected) in standard errors, upper triangle."""
    samples = np.array([s[np.triu_indices(len(expected))] for s in samples])
    error = samples.std(0, ddof=1) / math.sqrt(len(samples))
    return (samples.mean(0) - expected[np.triu_indices(len(expected))]) / error


@pytest.mark.parametrize("distribution", ["normal", "rademacher"])
def test_the_sketched_metric_is_unbiased_entry_by_entry(distribution):
    model = nets.fill(nets.mlp([2, 2, 4], "tanh"), 1)
    x = nets.normal(5, 2, seed=2)
    expected = whitened(model, [(x, None)], "categorical")
    expected = expected.T @ expected
    h, J = jacobians(model, [(x, None)])
    # The rows' law is checked against naive ones above; here many draws at once.
    found = [
        S.T @ S for S in (naive_rows(h, J, Draws(2, seed, 0, distribution)) for seed in range(3000))
    ]
    z = scores(found, expected)
    assert abs(z).max() < 4.5
    assert 0.4 < (z**2).mean() < 1.9
    # The same with p in place of √p, as some summaries print the loss, is far off.
    wrong = [
        S.T @ S
        for S in (
            naive_rows(h, J, Draws(2, seed, 0, distribution), power=1.0) for seed in range(3000)
        )
    ]
    assert (scores(wrong, expected) ** 2).mean() > 100


def naive_rows(h, J, draws, power=0.5):
    p = np.exp(h - h.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    xi = draws.vectors([(i, 0) for i in range(len(h))], h.shape[1]).numpy()
    weighted = (p**power)[..., None] * xi
    rows = weighted - p[..., None] * weighted.sum(1, keepdims=True)
    return np.einsum("nmr,nmd->nrd", rows, J).reshape(-1, J.shape[2]) / math.sqrt(len(h))


def test_library_rows_are_the_vectorised_naive_ones():
    model = net()
    h, J = jacobians(model, [(X, None)])
    for seed in range(3):
        S = sketched(ll.fisher(model, (X,), "categorical").root, Draws(2, seed)).dense()
        np.testing.assert_allclose(S.numpy(), naive_rows(h, J, Draws(2, seed)), atol=1e-13)


def test_a_sketch_of_a_sketch_is_refused():
    root = sketched(ll.fisher(net(), (X,), "categorical").root, Draws(2))
    with pytest.raises(ValueError, match="a sketch already"):
        sketched(root, Draws(1))


def test_columns_and_weights_are_sketched_with_the_same_draws():
    root, draws = ll.fisher(net(), (X,), "categorical").root, Draws(2, 1)
    whole = sketched(root, draws).dense()
    part = sketched(root.of_layer("2"), draws).dense()
    torch.testing.assert_close(part, whole[:, 16:], rtol=1e-13, atol=1e-15)
    w = torch.linspace(0.5, 2, root.shape[1], dtype=torch.float64)
    torch.testing.assert_close(
        sketched(root.scaled(w), draws).dense(), whole * w, rtol=1e-12, atol=1e-15
    )


def test_the_model_and_random_states_are_left_alone(untouched):
    model = net()
    kept = copy.deepcopy(model.state_dict())
    with untouched(model, X):
        ll.fisher(model, (X,), "categorical").sketch(ll.Sketch(draws=2)).trace()
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"draws": 0}, "draws=0"),
        ({"draws": "many"}, "draws='many'"),
        ({"draws": 1.5}, "whole number"),
        ({"repetitions": "few"}, "no standard error"),
        ({"repetitions": 1}, "no standard error"),
        ({"distribution": "cauchy"}, "normal.*rademacher"),
    ],
)
def test_senseless_options_are_refused(options, match):
    with pytest.raises(ChoiceError, match=match):
        ll.Sketch(**options)


def test_a_sketch_that_saves_nothing_is_refused():
    F = ll.fisher(net(), (X,), "categorical")
    with pytest.raises(ChoiceError, match=r"draws=4 has no fewer rows .* 4"):
        F.sketch(ll.Sketch(draws=4))
    one = ll.fisher(nets.fill(nets.mlp([3, 4, 2], "tanh"), 0), (X,), "categorical")
    with pytest.raises(ChoiceError, match="method='auto'"):
        one.sketch()


def test_draws_follow_from_the_memory():
    F = ll.fisher(nets.fill(nets.mlp([3, 30, 40], "tanh"), 0), (nets.normal(30, 3),), "categorical")
    found = {}
    for memory in (5 * 10**4, 3 * 10**5, 12 * 10**5, 10**7):
        try:
            found[memory] = F.sketch(memory=memory).draws
        except CapacityError:
            found[memory] = 0
    counts = list(found.values())
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 8)
    assert 0 < counts[2] < 8
    assert F.sketch(memory=12 * 10**5).cost.memory <= 12 * 10**5
    with pytest.raises(CapacityError, match=rf"Use Sketch\(draws={counts[2]}\)"):
        F.sketch(ll.Sketch(draws=8), memory=12 * 10**5)
