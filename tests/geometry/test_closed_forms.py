"""Ranks that are known without computing them."""

import itertools
import math

import pytest
import torch
from torch import nn

import lightlike as ll
from oracles.networks import Call, mlp, normal

ROUTES = ("gram", "metric", "svd")


def weights(model, seed=0, scale=1.0, shift=0.5):
    """Generic weights of a size at which every direction is well above rounding."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            fan = p[0].numel() if p.ndim > 1 else 0
            size = scale * (2 / fan) ** 0.5 if fan else shift
            p.copy_(size * torch.randn(p.shape, generator=random, dtype=torch.float64))
    return model.eval()


def rank(model, x, head="gaussian", method="auto"):
    d = ll.dimension(ll.fisher(model, (x,), head), method=method)
    assert (d.lower, d.upper, d.kind) == (d.value, d.value, "exact")
    return int(d)


def size(model):
    return sum(p.numel() for p in model.parameters())


def linear_network(widths, biases=None):
    biases = biases or [False] * (len(widths) - 1)
    pairs = zip(widths, widths[1:], biases, strict=False)
    return nn.Sequential(*[nn.Linear(a, b, bias=bool(bias)) for a, b, bias in pairs])


def outputs_of(widths, head):
    return widths[-1] - (head == "categorical")


HEADS = ("gaussian", "categorical")
heads = pytest.mark.parametrize("head", HEADS)
WIDTHS = [
    [4, 3], [5, 2, 4], [5, 3, 4], [5, 7, 4], [6, 4, 2, 5, 3], [6, 1, 5], [8, 5, 3, 6, 7],
]  # fmt: skip


@heads
@pytest.mark.parametrize("n", [60, 3, 1])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_deep_linear(widths, n, head):
    """r (m + k − r): rank of the determinantal variety of k × m matrices of rank ≤ r."""
    k, m = outputs_of(widths, head), min(n, widths[0])
    r = min([m, k, *widths[1:-1]])
    model = weights(linear_network(widths))
    assert rank(model, normal(n, widths[0], seed=1), head) == r * (m + k - r)


BIASED = [
    ([5, 2, 4], [1, 1]), ([5, 2, 4], [1, 0]), ([5, 2, 6, 4], [0, 1, 0]), ([5, 2, 6, 4], [1, 0, 0]),
    ([6, 3, 3, 5], [1, 1, 0]), ([6, 5, 5, 4], [1, 1, 1]), ([5, 4, 2, 3, 4], [1, 0, 1, 0]),
]  # fmt: skip


@heads
@pytest.mark.parametrize(("widths", "biases"), BIASED, ids=str)
def test_deep_linear_with_biases(widths, biases, head):
    """+ k if a bias stands where more than r dimensions still lead to the output, else + r."""
    k = outputs_of(widths, head)
    r = min([*widths[:-1], k])
    later = [min([*widths[i + 1 : -1], k]) for i, bias in enumerate(biases) if bias]
    extra = k if biases[-1] or max(later) > r else r
    model = weights(linear_network(widths, biases))
    found = rank(model, normal(60, widths[0], seed=1), head)
    assert found == r * (widths[0] + k - r) + extra


@pytest.mark.parametrize(("q1", "q2"), list(itertools.product(range(4), repeat=2)))
def test_two_linear_layers_of_low_rank(q1, q2):
    model = linear_network([5, 3, 4]).double()
    with torch.no_grad():
        model[0].weight.copy_(normal(3, q1, seed=1) @ normal(q1, 5, seed=2))
        model[1].weight.copy_(normal(4, q2, seed=3) @ normal(q2, 3, seed=4))
    assert rank(model, normal(60, 5, seed=5)) == 4 * q1 + 5 * q2 - q1 * q2


GENERIC = [
    ("leaky", [3, 8, 2], 400), ("leaky", [4, 6, 5, 3], 500), ("leaky", [3, 4, 4, 4, 2], 600),
    ("tanh", [3, 8, 2], 200), ("tanh", [4, 6, 5, 3], 300), ("gelu", [4, 6, 5, 3], 500),
    ("relu", [3, 8, 2], 600),
]  # fmt: skip


@heads
@pytest.mark.parametrize(("activation", "widths", "n"), GENERIC, ids=str)
def test_perceptrons_at_generic_points(activation, widths, n, head):
    """D, less one for each rescaled unit, less the shift of logits for softmax."""
    model = weights(mlp(widths, activation), shift=0.1)  # no unit is linear on the sample
    hidden = sum(widths[1:-1]) if activation in ("leaky", "relu") else 0
    shift = widths[-2] + 1 if head == "categorical" else 0
    x = 2 * normal(n, widths[0], seed=100)
    assert rank(model, x, head) == size(model) - hidden - shift


def generic(*_):
    pass


def zero_outgoing(_, last):
    last.weight[:, 0] = 0


def zero_incoming(first, _):
    first.weight[0] = 0


def both_zero(first, last):
    zero_outgoing(first, last), zero_incoming(first, last)


def duplicate(first, _):
    first.weight[1], first.bias[1] = first.weight[0], first.bias[0]


def collinear(first, last):
    duplicate(first, last)
    last.weight[:, 1] = 2 * last.weight[:, 0]


def antipodal(first, _):
    first.weight[1], first.bias[1] = -first.weight[0], -first.bias[0]


def saturated(first, _):
    first.weight[0] *= 0.01
    first.bias[0] = 40.0


def dead(first, _):
    first.bias[0] = -1e3


def two_dead(first, _):
    first.bias[:2] = -1e3


def always_on(first, _):
    first.bias[0] = 1e3


N_IN, HIDDEN = 3, 5
DEGENERATE = {
    ("tanh", generic): lambda _: 0,
    ("tanh", zero_outgoing): lambda _: N_IN + 1,
    ("tanh", zero_incoming): lambda k: k + 1,
    ("tanh", both_zero): lambda k: k + N_IN + 1,
    ("tanh", duplicate): lambda k: k + (N_IN + 1 if k == 1 else 0),
    ("tanh", antipodal): lambda k: k + (N_IN + 1 if k == 1 else 0),
    ("tanh", collinear): lambda k: k + N_IN + 1,
    ("tanh", saturated): lambda k: k + N_IN + 1,
    ("relu", generic): lambda _: HIDDEN,
    ("relu", dead): lambda k: HIDDEN - 1 + (N_IN + 1 + k),
    ("relu", two_dead): lambda k: HIDDEN - 2 + 2 * (N_IN + 1 + k),
    ("relu", always_on): lambda _: HIDDEN + 1,
    ("relu", duplicate): lambda k: HIDDEN - 2 + (k + 2 if k > 1 else N_IN + 3),
}


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    ("activation", "edit"), list(DEGENERATE), ids=lambda v: getattr(v, "__name__", v)
)
def test_perceptrons_at_degenerate_points(activation, edit, k):
    model = weights(mlp([N_IN, HIDDEN, k], activation), seed=3)
    with torch.no_grad():
        edit(model[0], model[2])
    x = 1.5 * normal(500, N_IN, seed=7)
    assert rank(model, x) == size(model) - DEGENERATE[activation, edit](k)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_in_eval_mode(bias, activation):
    """Per channel: scale of what comes before, its bias; and rescaling if ReLU follows."""
    n, c, k = 4, 5, 2
    act = nn.Tanh() if activation == "tanh" else nn.ReLU()
    model = nn.Sequential(nn.Linear(n, c, bias=bias), nn.BatchNorm1d(c), act, nn.Linear(c, k))
    weights(model, seed=1)
    with torch.no_grad():
        model[1].weight.copy_(normal(c, seed=2).abs() + 0.5)
        model[1].running_mean.copy_(0.3 * normal(c, seed=3))
        model[1].running_var.copy_(normal(c, seed=4).abs() + 0.5)
    expected = size(model) - c * (1 + bias) - (c if activation == "relu" else 0)
    assert rank(model, normal(300, n, seed=5)) == expected


ATTENTION = [(1, 2, 2, 5, 4, False), (2, 2, 3, 6, 4, False), (2, 2, 2, 4, 5, True),
             (1, 3, 2, 6, 4, True)]  # fmt: skip


@pytest.mark.parametrize(("h", "dk", "dv", "d", "t", "bias"), ATTENTION)
def test_attention_heads(h, dk, dv, d, t, bias):
    """H (d_k² + d_v²), and with biases H (d_k + d_v): those of keys, and of values."""

    def forward(self, x):
        def project(layer):
            return layer(x).unflatten(-1, (h, -1)).transpose(1, 2)

        q, k, v = project(self.q), project(self.k), project(self.v)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(dk), -1) @ v
        return self.o(mixed.transpose(1, 2).flatten(2))

    parts = dict(
        q=nn.Linear(d, h * dk, bias), k=nn.Linear(d, h * dk, bias),
        v=nn.Linear(d, h * dv, bias), o=nn.Linear(h * dv, d, bias),
    )  # fmt: skip
    model = weights(Call(forward, **parts), seed=2)
    null = h * (dk**2 + dv**2) + (h * (dk + dv) if bias else 0)
    assert rank(model, normal(40, t, d, seed=3)) == size(model) - null


def test_pytorchs_attention():
    """The same count for nn.MultiheadAttention, whose projections are one packed matrix."""
    d, h = 4, 2
    attention = nn.MultiheadAttention(d, h, batch_first=True)
    model = weights(Call(lambda s, x: s.attention(x, x, x)[0], attention=attention), seed=4)
    null = h * 2 * (d // h) ** 2 + h * 2 * (d // h)
    assert rank(model, normal(40, 5, d, seed=5)) == size(model) - null


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.1), nn.ReLU(), nn.Tanh()], ids=str)
@pytest.mark.parametrize("space", [1, 2])
def test_convolutions(space, activation):
    """One for each hidden channel that can be rescaled."""
    if space == 1:
        layers = [nn.Conv1d(2, 4, 3), nn.Conv1d(4, 3, 2), nn.Conv1d(3, 2, 2)]
        x, hidden = normal(80, 2, 12, seed=1), 7
    else:
        layers = [nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)]
        x, hidden = normal(25, 1, 7, 7, seed=1), 3
    stack = [part for layer in layers for part in (layer, activation)][:-1]
    model = weights(nn.Sequential(*stack, nn.Flatten()), seed=7)  # no channel is dead
    null = 0 if isinstance(activation, nn.Tanh) else hidden
    assert rank(model, x) == size(model) - null


LINEAR_CONVOLUTIONS = [((1, 1, 1), (3, 4)), ((1, 1, 1, 1), (3, 2, 4)), ((2, 1, 3), (3, 2)),
                       ((3, 2, 3), (3, 2)), ((2, 5, 2), (3, 3))]  # fmt: skip


@pytest.mark.parametrize(("channels", "kernels"), LINEAR_CONVOLUTIONS, ids=str)
def test_linear_convolutions(channels, kernels):
    sizes = zip(channels, channels[1:], kernels, strict=False)
    layers = [nn.Conv1d(a, b, k, bias=False) for a, b, k in sizes]
    model = weights(nn.Sequential(*layers, nn.Flatten()), seed=6)
    a, b, c = channels[0], channels[1], channels[-1]
    whole = a * c * (sum(kernels) - len(kernels) + 1)
    one = max(channels) == 1
    expected = whole if one else min(size(model) - b * b, whole)
    assert rank(model, normal(60, a, 12, seed=1)) == expected


@heads
@pytest.mark.parametrize("n", [1, 3, 7, 12, 14, 20, 25, 60])
def test_the_rank_saturates_with_the_data(n, head):
    """min(d, N · rank Λ) for tanh units; data_limited until d is reached."""
    model = weights(mlp([3, 4, 3], "tanh"))
    d = size(model) - (5 if head == "categorical" else 0)
    rows = n * (2 if head == "categorical" else 3)
    x = 1.5 * normal(60, 3, seed=1)[:n]
    found = ll.dimension(ll.fisher(model, (x,), head))
    assert int(found) == min(d, rows)
    assert found.data_limited == (rows < size(model) and rows <= d)
    assert found.bound == ("data" if rows < size(model) else "parameters")
    assert found.upper <= min(rows, size(model))
    doubled = ll.dimension(ll.fisher(model, (torch.cat([x, x]),), head))
    assert int(doubled) == int(found)


@pytest.mark.parametrize("method", ROUTES)
@heads
def test_every_route_gives_the_closed_form(head, method):
    model = weights(mlp([3, 5, 5, 3], "leaky"))
    expected = size(model) - 10 - (6 if head == "categorical" else 0)
    assert rank(model, 2 * normal(200, 3, seed=1), head, method) == expected


def test_a_dimension_is_an_integer():
    d = ll.dimension(ll.fisher(weights(linear_network([2, 3])), (normal(9, 2),), "gaussian"))
    assert int(d) == d.value == 6
    assert list(range(10))[d] == 6
    assert "x" * d.__index__() == "xxxxxx"
    assert d.tolerance == 27 * torch.finfo(torch.float64).eps
    assert d.gap == math.inf


def test_the_gap_is_that_between_singular_values():
    F = ll.fisher(weights(linear_network([5, 2, 4])), (normal(30, 5),), "gaussian")
    s = torch.linalg.svdvals(F.root.dense())
    d = ll.dimension(F, method="svd")
    assert int(d) == 14
    assert d.gap > 12
    assert d.gap == pytest.approx(math.log10(s[13] / s[14]), abs=1.0)


def cast(dtype):
    def forward(self, x):
        hidden = torch.tanh(self.first(x)).to(dtype)
        return self.last(hidden.to(x.dtype))

    return forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize("shape", [(3, 8, 2), (4, 5, 3)])
def test_a_forward_pass_in_lower_precision_gives_bounds(shape, method, dtype):
    n, h, k = shape
    parts = dict(first=nn.Linear(n, h), last=nn.Linear(h, k))
    x = 1.5 * normal(50, n, seed=1)
    exact = rank(weights(Call(cast(torch.float64), **parts)), x)
    d = ll.dimension(ll.fisher(Call(cast(dtype), **parts), (x,), "gaussian"), method=method)
    assert d.kind == ("exact" if d.lower == d.upper else "certified")
    assert d.lower <= exact <= d.upper
    assert d.lower <= d.value <= d.upper


@pytest.mark.parametrize("method", ROUTES)
def test_single_precision_bounds_a_rank_that_is_not_full(method):
    """Rounding makes the null directions of a linear factorisation look alive."""

    def forward(self, x):
        return self.last(self.first(x).float()).double()

    parts = dict(first=nn.Linear(6, 3, bias=False), last=nn.Linear(3, 5, bias=False))
    model = weights(Call(forward, **parts), seed=1)

    def mixed(self, x):
        return nn.functional.linear(self.first(x).float(), self.last.weight.float()).double()

    model.function = mixed
    d = ll.dimension(ll.fisher(model, (normal(40, 6),), "gaussian"), method=method)
    assert d.kind == "certified"
    assert d.lower <= 3 * (6 + 5 - 3) <= d.upper
