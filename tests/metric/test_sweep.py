import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import lightlike as ll
from lightlike.errors import ConsistencyError, ModelError
from lightlike.metric.contractions import LinearCall, Outer
from oracles import networks as nets

X = nets.normal(6, 3, seed=1)


def flat(seed=0, activation="tanh"):
    return nets.fill(nets.mlp([3, 4, 3], activation), seed)


def tokens(seed=0):
    return nets.fill(nets.language_model(4, 4, 3, 2, nets.Attention, False), seed)


def batch_second(seed=0):
    """Length first, batch second, as recurrent networks have it by default."""
    cell = nets.Recurrent(nn.GRU, 2, 3, 2, True, batch_first=False)
    return nets.fill(cell, seed)


def mean_free(seed=0):
    """Every sample sees the others: all data must be one batch."""

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h - h.mean(0))

    return nets.fill(nets.Call(forward, first=nn.Linear(3, 3), last=nn.Linear(3, 2)), seed)


def flattened(seed=0):
    """Positions of all samples side by side in the output's first dimension."""

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)).flatten(0, 1))

    return nets.fill(nets.Call(forward, first=nn.Linear(3, 3), last=nn.Linear(3, 2)), seed)


def hyper(seed=0):
    """A layer on a raw parameter, whose output has the batch's size by chance."""

    def forward(self, x):
        gain = self.make(self.code)
        return self.last(x) * gain[:2]

    parts = dict(make=nn.Linear(3, 6), last=nn.Linear(3, 2), code=nn.Parameter(torch.zeros(3)))
    return nets.fill(nets.Call(forward, **parts), seed)


def table(seed=0):
    """A layer on a table with as many rows as the batch has samples."""

    def forward(self, x):
        return self.last(x) + self.make(self.code).sum(0)

    parts = dict(make=nn.Linear(3, 2), last=nn.Linear(3, 2), code=nn.Parameter(torch.zeros(6, 3)))
    return nets.fill(nets.Call(forward, **parts), seed)


CASES = {
    "flat": (flat, X, {"aligned", "single", "whole"}),
    "positions": (flat, nets.normal(4, 2, 3), {"aligned", "single", "whole"}),
    "images": (flat, nets.normal(2, 2, 2, 3), {"aligned", "single", "whole"}),
    "tokens": (tokens, torch.arange(12).view(4, 3) % 4, {"aligned", "single", "whole"}),
    "batch second": (batch_second, nets.normal(3, 4, 2), {"whole"}),
    "flattened": (flattened, nets.normal(4, 2, 3), {"whole"}),
    "mixing": (mean_free, X, {"whole"}),
    "by chance": (hyper, X, {"single", "whole"}),
    "table": (table, X, {"single", "whole"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_way_that_applies_is_taken(case, agree):
    model, x, ways = CASES[case]
    root = agree(model(), [(x, None)], "categorical")
    root.dense()
    assert root.sweep.ways == [sorted(ways)[0]]


@pytest.mark.parametrize("way", ["aligned", "single", "whole"])
@pytest.mark.parametrize("case", CASES)
def test_every_way_is_right_or_refused(case, way, agree, only):
    model, x, ways = CASES[case]
    only(way)
    if way in ways:
        agree(model(), [(x, None)], "categorical")
    else:
        with pytest.raises(ConsistencyError):
            ll.fisher(model(), (x,), "categorical").root.dense()


def test_batches_may_go_different_ways(agree):
    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h if x[0, 0] > 0 else h @ self.last.weight.T @ self.last.weight)

    model = nets.Call(forward, first=nn.Linear(3, 3), last=nn.Linear(3, 2))
    one = X.clone()
    one[:, 0] = one[:, 0].abs()
    root = agree(nets.fill(model, 3), [(one, None), (-one, None), (one[:1], None)])
    root.dense()
    assert root.sweep.ways == ["aligned", "single", "aligned"]


def test_a_layer_with_a_bias_in_some_batches_only(agree):
    def forward(self, x):
        bias = self.last.bias if x[0, 0] > 0 else None
        return functional.linear(x, self.last.weight, bias)

    one = X.clone()
    one[:, 0] = one[:, 0].abs()
    batches = [(one, None), (-one, None)]
    for order in (batches, batches[::-1]):
        agree(nets.fill(nets.Call(forward, last=nn.Linear(3, 2)), 3), order)


def test_a_sample_that_depends_on_no_parameter(agree):
    def forward(self, x):
        return self.last(x) if x[0, 0] > 0 else x[:, :2]

    one = X.clone()
    one[:, 0] = one[:, 0].abs()
    agree(nets.fill(nets.Call(forward, last=nn.Linear(3, 2)), 3), [(one, None), (-one, None)])


def doubled(method):
    return lambda self, *args: method(self, *args) * 2


WRONG = {
    "gradients": (LinearCall, "factor", lambda self, unit, g, s: RIGHT(self, unit, 2 * g, s)),
    "products": (Outer, "pull", doubled(Outer.pull)),
    "order": (
        LinearCall,
        "factor",
        lambda self, unit, g, s: RIGHT(self, unit, g.roll(1, -1), s),
    ),
    "tiny": (LinearCall, "factor", lambda self, unit, g, s: RIGHT(self, unit, g * (1 + 1e-6), s)),
}  # fmt: skip
RIGHT = LinearCall.factor


@pytest.mark.parametrize("question", ["gram", "metric", "dense", "mv", "rmv"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_contraction_gives_no_number(wrong, question, monkeypatch):
    monkeypatch.setattr(*WRONG[wrong])
    root = ll.fisher(flat(), (X,), "categorical").root
    ask = {
        "mv": lambda: root.mv(torch.ones(root.shape[1])),
        "rmv": lambda: root.rmv(torch.ones(root.shape[0], 2)),
    }.get(question) or getattr(root, question)
    with pytest.raises(ConsistencyError, match="disagree"):
        ask()


def wrong_cross(self, other, out, *, fresh):
    before = 0 if fresh else out.clone()
    CROSS(self, other, out, fresh=fresh)
    out += 1e-6 * (out - before)


CROSS = Outer.cross


@pytest.mark.parametrize(
    ("method", "wrong", "question"),
    [
        ("cross", wrong_cross, "gram"),
        ("dense", doubled(Outer.dense), "metric"),
        ("dense", doubled(Outer.dense), "dense"),
        ("apply", doubled(Outer.apply), "mv"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_wrong_product_gives_no_number(method, wrong, question, weighted, monkeypatch):
    root = ll.fisher(flat(), (X,), "categorical").root
    if weighted:
        root = root.scaled(torch.full((root.shape[1],), 0.5, dtype=torch.float64))
    ask = {"mv": lambda: root.mv(torch.ones(root.shape[1]))}.get(question, getattr(root, question))
    ask()
    monkeypatch.setattr(Outer, method, wrong)
    with pytest.raises(ConsistencyError, match="disagrees"):
        ask()


def test_passes_may_be_interleaved(agree):
    root = agree(flat(), [(X[:3], None), (X[3:], None)], "categorical")
    u = torch.ones(root.shape[0], dtype=torch.float64)
    dense = root.dense()
    for slab, expected in zip(root.slabs("rows"), (dense,), strict=False):
        root.mv(torch.ones(root.shape[1]))
        assert torch.equal(slab, expected[: len(slab)])
        assert torch.allclose(root.rmv(u), dense.T @ u)


def test_a_contraction_wrong_for_batches_falls_back(agree, monkeypatch):
    def factor(self, unit, g, layout):
        return RIGHT(self, unit, 2 * g if layout.samples > 1 else g, layout)

    monkeypatch.setattr(LinearCall, "factor", factor)
    root = agree(flat(), [(X, None)], "categorical")
    root.dense()
    assert root.sweep.ways == ["single"]


def test_a_backward_pass_with_state_is_refused():
    class Fickle(torch.autograd.Function):
        calls = 0

        @staticmethod
        def forward(_, x):
            return x.clone()

        @staticmethod
        def backward(_, g):
            Fickle.calls += 1
            return g * Fickle.calls

    model = nets.fill(nets.Call(lambda s, x: Fickle.apply(s.last(x)), last=nn.Linear(3, 2)), 0)
    with pytest.raises(ConsistencyError, match="custom autograd functions"):
        ll.fisher(model, (X,), "gaussian").root.dense()


class Cube(torch.autograd.Function):
    """x³ written by hand; its backward pass cannot be batched."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(g.numpy() * 3 * x.numpy() ** 2)


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.Bilinear(3, 3, 3)], ids=["linear", "other"])
def test_operations_without_a_batching_rule_are_looped_over(layer, agree):
    def forward(self, x):
        h = self.first(x) if isinstance(self.first, nn.Linear) else self.first(x, x)
        return self.last(Cube.apply(h))

    model = nets.fill(nets.Call(forward, first=layer, last=nn.Linear(3, 2)), 0)
    root = agree(model, [(X[:4], None), (X[4:], None)])
    assert not root.sweep._backward.batched


def test_functions_of_ones_own(agree):
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x**2 * weight

        @staticmethod
        def backward(ctx, g):
            x, weight = ctx.saved_tensors
            return 2 * x * weight * g, (x**2 * g).sum(0)

    model = nets.Call(
        lambda s, x: s.last(Square.apply(s.first(x), s.gain)),
        first=nn.Linear(3, 3), gain=nn.Parameter(torch.zeros(3)), last=nn.Linear(3, 2),
    )  # fmt: skip
    agree(nets.fill(model, 1), [(X, None)], "bernoulli")


MASKS = {
    "ragged": [[0, 1, -1], [2, -1, -1], [1, 1, 0], [-1, 3, -1]],
    "an empty sample": [[0, 1, 2], [-1, -1, -1], [1, -1, 0], [3, 3, 3]],
    "one left": [[-1, -1, -1], [-1, -1, -1], [-1, 2, -1], [-1, -1, -1]],
    "all": [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]],
}


@pytest.mark.parametrize("split", [[4], [1, 3], [2, 2], [1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("way", ["aligned", "single", "whole"])
@pytest.mark.parametrize("kind", ["pointwise", "mixing"])
def test_ignored_positions_are_no_observations(kind, way, mask, split, agree, only):
    labels = torch.tensor(MASKS[mask])
    if kind == "pointwise":
        model, x = nets.fill(nets.mlp([3, 3, 4], "tanh"), 2), nets.normal(4, 3, 3)
    else:
        model, x = tokens(), torch.arange(12).view(4, 3) % 4
    only(way)
    batches = list(zip(x.split(split), labels.split(split), strict=True))
    likelihood = ll.likelihoods.Categorical(ignore_index=-1)
    root = agree(model, batches, likelihood, name="categorical", ignore_index=-1)
    assert root.shape[0] == 3 * int((labels >= 0).sum())
    i = root.problem.survey.observations - 1
    assert torch.allclose(root.rows(i), root.dense()[3 * i :], rtol=0, atol=1e-14)


def test_padding_does_not_matter(agree):
    """Whole sequences and their padded selves are the same observations."""
    likelihood = ll.likelihoods.Categorical(ignore_index=-1)
    model = nets.fill(nets.Recurrent(nn.LSTM, 2, 3, 3, True), 1)
    lengths = [3, 1, 2]
    sequences = [nets.normal(1, n, 2, seed=n) for n in lengths]
    labels = [torch.arange(n)[None] % 3 for n in lengths]
    padded = torch.cat([functional.pad(x, (0, 0, 0, 3 - x.shape[1])) for x in sequences])
    masked = torch.cat([functional.pad(y, (0, 3 - y.shape[1]), value=-1) for y in labels])
    batches = list(zip(sequences, labels, strict=True))
    one = ll.fisher(model, batches, likelihood).root.dense()
    root = agree(model, [(padded, masked)], likelihood, name="categorical", ignore_index=-1)
    assert torch.allclose(root.dense(), one, rtol=0, atol=1e-14)


def test_batches_of_different_lengths_join(agree):
    model = nets.fill(nets.mlp([3, 3, 2], "tanh"), 2)
    batches = [(nets.normal(2, n, 3, seed=n), None) for n in (1, 3, 2)]
    agree(model, batches, "categorical")


def test_a_model_that_refuses_a_batch_of_one(agree):
    def forward(self, x):
        if len(x) < 2:
            raise ValueError("a batch of one")
        return self.last(x) * self.gain.sin()

    model = nets.Call(forward, last=nn.Linear(3, 2), gain=nn.Parameter(torch.zeros(2)))
    root = agree(nets.fill(model, 0), [(X, None)])
    root.dense()
    assert root.sweep.ways == ["whole"]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_are_refused(reentrant):
    def forward(self, x):
        h = self.first(x)
        return self.last(checkpoint(self.middle, h, use_reentrant=reentrant))

    parts = dict(first=nn.Linear(3, 3), middle=nn.Linear(3, 3), last=nn.Linear(3, 2))
    model = nets.fill(nets.Call(forward, **parts), 0)
    for question in ("gram", "dense"):
        with pytest.raises(ModelError, match="gradient checkpointing"):
            getattr(ll.fisher(model, (X,), "gaussian").root, question)()
    assert all(p.grad is None for p in model.parameters())


def test_small_pieces_make_the_same_matrix(monkeypatch, agree):
    """Tiles, slabs, rows in flight and passes over the data, all down to their smallest."""
    monkeypatch.setattr("lightlike.metric.gram.TILE_ROWS", 5)
    monkeypatch.setattr("lightlike.metric.root.SLAB", 1)
    monkeypatch.setattr("lightlike.metric.sweep.IN_FLIGHT", 1)
    monkeypatch.setattr("lightlike.metric.contractions.factor.CHUNK", 1)
    monkeypatch.setattr("lightlike.metric.gram.STRIP", 1)
    monkeypatch.setattr("lightlike.metric.gram.NARROW", 1)
    monkeypatch.setattr("lightlike.metric.root.available_memory", lambda: 6000)
    model = nets.fill(nets.mlp([3, 4, 4, 3], "tanh"), 0)
    for x in (X, nets.normal(4, 2, 3)):
        agree(model, [(x[:3], None), (x[3:], None)], "categorical")
