"""Block forms of all kinds of models: exact where they must be, each parameter counted once."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError
from lightlike.metric.sweep import Sweep
from oracles import curvature
from oracles import networks as nets

X = nets.normal(6, 4, seed=1)
IMAGES = nets.normal(5, 4, 4, 5, seed=2)
TOKENS = torch.randint(5, (5, 3), generator=nets.generator(3))


def convolutional(groups):
    return nn.Sequential(
        nn.Conv2d(4, 4, 2, groups=groups), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(),
        nn.Linear(48, 2),
    )  # fmt: skip


def spread():
    return nn.Sequential(
        nn.ConvTranspose2d(4, 2, 2), nn.Tanh(), nn.Conv2d(2, 2, 3, stride=2, padding=1),
        nn.Flatten(), nn.Linear(18, 2),
    )  # fmt: skip


def language(layer, *, tied):
    return nets.language_model(5, 4, 3, 2, layer, tied)


MODELS = {
    "mlp": (lambda: nets.mlp([4, 5, 3], "relu", norm=nn.LayerNorm), X, "categorical"),
    "reused": (lambda: nets.reused(4, 4, 3, "tanh", 2), X, "categorical"),
    "two names": (lambda: nets.two_names(4, 4, 3, "tanh"), X, "gaussian"),
    "autoencoder": (lambda: nets.autoencoder(4, 3, "tanh"), X, "gaussian"),
    "used besides": (lambda: nets.penalised(4, 5, 3), X, "gaussian"),
    "raw": (lambda: nets.raw(4, 5, 3), X, "bernoulli"),
    "convolution": (lambda: convolutional(1), IMAGES, "categorical"),
    "grouped convolution": (lambda: convolutional(2), IMAGES, "categorical"),
    "transposed convolution": (spread, IMAGES, "gaussian"),
    "attention": (lambda: language(nets.Attention, tied=False), TOKENS, "categorical"),
    "encoder": (lambda: language(nets.encoder, tied=False), TOKENS, "categorical"),
    "tied table": (lambda: language(nets.Attention, tied=True), TOKENS, "categorical"),
    "recurrent": (
        lambda: nn.Sequential(nn.Embedding(5, 2), nets.Recurrent(nn.GRU, 2, 3, 3, every=True)),
        TOKENS,
        "categorical",
    ),
}


def build(name):
    make, x, likelihood = MODELS[name]
    model = nets.fill(make(), 0)
    exact = curvature.fisher(model, [(x, None)], likelihood)
    return model, x, likelihood, exact


def same(found, expected, rel=1e-9):
    return float((found - expected).norm()) <= rel * float(expected.norm())


def check_columns(M):
    """Assert that each column is in one block at most."""
    counted = torch.zeros(M.shape[0])
    for part in M.parts:
        assert sum(c.stop - c.start for c in part.columns) == part.width
        for c in part.columns:
            counted[c] += 1
    assert bool((counted <= 1).all())
    return counted == 0


@pytest.mark.parametrize("name", MODELS)
def test_forms_are_right_against_the_exact_matrix(name):
    model, x, likelihood, exact = build(name)
    F = ll.fisher(model, (x,), likelihood)
    total = float(exact.trace())
    plain, corrected = F.kronecker(), F.kronecker(eigenvalue_correction=True)
    for M in (plain, corrected, F.diagonal(), F.blocks(), F.blocks("parameter")):
        missing = check_columns(M)
        assert float(exact.diagonal()[missing].abs().sum()) <= 1e-13 * total
        assert set(M.structures) == {e.name for e in F.problem.selection.entries}
        if M is not plain:
            assert M.trace() == pytest.approx(total, rel=1e-10)
            assert M.above
            for scale in (1.0, 100.0):
                truth = torch.logdet(torch.eye(len(exact)) + scale * exact)
                assert M.logdet(scale) >= float(truth) * (1 - 1e-10)
    assert same(F.diagonal().diagonal(), exact.diagonal())
    assert same(F.diagonal().dense(), exact.diagonal().diag())
    entries = F.problem.selection.entries
    for by, groups in (("parameter", [[e] for e in entries]),
                       ("layer", F.problem.selection.layers().values())):  # fmt: skip
        expected = torch.zeros_like(exact)
        for group in groups:
            mine = slice(group[0].start, group[-1].stop)
            expected[mine, mine] = exact[mine, mine]
        assert same(F.blocks(by).dense(), expected)
    # Block by block the correction is the nearest matrix with those eigenvectors.
    K, E = plain.dense(), corrected.dense()
    for mine, theirs in zip(plain.parts, corrected.parts, strict=True):
        assert mine.columns == theirs.columns
        index = torch.cat([torch.arange(c.start, c.stop) for c in mine.columns])
        truth = exact[index][:, index]
        off = [float((M[index][:, index] - truth).norm()) for M in (E, K)]
        assert off[0] <= off[1] + 1e-10 * float(truth.norm())
        if mine.structure == "dense":
            assert off[0] <= 1e-10 * total


@pytest.mark.parametrize("name", MODELS)
def test_splits_into_batches_give_the_same(name):
    model, x, likelihood, _ = build(name)
    whole = ll.fisher(model, (x,), likelihood)
    split = ll.fisher(model, [(x[:1],), (x[1:4],), (x[4:],)], likelihood)
    for get in (
        lambda F: F.kronecker(),
        lambda F: F.kronecker(eigenvalue_correction=True),
        lambda F: F.diagonal(),
    ):
        one, other = get(whole), get(split)
        assert one.structures == other.structures
        assert same(one.dense(), other.dense(), 1e-7)


def test_structures_say_what_is_held_how():
    F = ll.fisher(*build("encoder")[:1], (TOKENS,), "categorical")
    found = F.kronecker().structures
    assert found["embedding.weight"] == found["head.weight"] == "kronecker"
    assert found["block.self_attn.in_proj_weight"] == found["block.linear1.bias"] == "kronecker"
    assert found["block.norm1.weight"] == found["place"] == "dense"
    assert F.kronecker(small=3).structures["place"] == "diagonal"
    raw = ll.fisher(*build("raw")[:1], (X,), "bernoulli").kronecker().structures
    assert raw["unused"] == raw["idle.weight"] == "zero"
    assert raw["W"] == "dense"
    assert raw["V"] == "kronecker"


@pytest.mark.parametrize("name", ["mlp", "tied table", "autoencoder"])
def test_long_sides_are_diagonal(name):
    model, x, likelihood, exact = build(name)
    F = ll.fisher(model, (x,), likelihood)
    M = F.kronecker(largest=3, eigenvalue_correction=True)
    assert M.trace() == pytest.approx(float(exact.trace()), rel=1e-10)
    lean = F.kronecker(largest=0, eigenvalue_correction=True, small=0)
    assert same(lean.dense(), exact.diagonal().diag())


def test_the_tied_table_has_the_partial_traces_of_the_sum_of_its_uses():
    """With the uses told apart by two tables of the same values."""
    tied, x, likelihood, _ = build("tied table")
    apart = language(nets.Attention, tied=True)
    apart.head.weight = nn.Parameter(torch.zeros_like(apart.embedding.weight))
    apart.load_state_dict(tied.state_dict())
    apart.eval()
    F = ll.fisher(apart, (x,), likelihood)
    K, entries = F.kronecker().dense(), {e.name: e for e in F.problem.selection.entries}
    uses = []
    for name in ("embedding.weight", "head.weight"):
        mine = slice(entries[name].start, entries[name].stop)
        uses.append(K[mine, mine].reshape(5, 4, 5, 4))
    expected = sum(uses)
    found = ll.fisher(tied, (x,), likelihood).kronecker()
    entry = next(e for e in found.root.problem.selection.entries if e.name == "embedding.weight")
    mine = slice(entry.start, entry.stop)
    both = found.dense()[mine, mine].reshape(5, 4, 5, 4)
    assert entry.aliases == ("head.weight",)
    for pattern in ("iaja->ij", "iaib->ab"):
        assert same(torch.einsum(pattern, both), torch.einsum(pattern, expected))


def test_ways_of_back_propagation_give_the_same(monkeypatch):
    model, x, likelihood, _ = build("encoder")
    results = []
    for way in ("aligned", "single", "whole"):
        with monkeypatch.context() as patch:
            for other in {"aligned", "single", "whole"} - {way}:
                patch.setattr(Sweep, f"_{other}", lambda *_: None)
            F = ll.fisher(model, (x,), likelihood)
            M = F.kronecker()
            assert set(M.ways) == {way}
            results.append((M.dense(), F.diagonal().diagonal()))
            if way == "whole":
                with pytest.raises(ChoiceError, match="told apart"):
                    F.kronecker(sharing="reduce")
    for dense, diagonal in results[1:]:
        assert same(dense, results[0][0])
        assert same(diagonal, results[0][1])


def test_labels_that_do_not_count_leave_no_trace():
    model = build("attention")[0]
    labels = torch.tensor([[1, 2, -100], [0, -100, -100], [4, 1, 1], [2, 0, 3], [-100, -100, -100]])
    F = ll.fisher(model, (TOKENS, labels), "categorical")
    for M in (F.kronecker(eigenvalue_correction=True), F.diagonal()):
        assert M.trace() == pytest.approx(float(F.dense().trace()), rel=1e-10)
    without = ll.fisher(model, (TOKENS[:4], labels[:4]), "categorical")
    assert same(F.kronecker().dense(), without.kronecker().dense())
