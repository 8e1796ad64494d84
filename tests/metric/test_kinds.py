"""Every contracted kind of layer, in all its settings, against the naive reference."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.metric.capture import CONTRACTIONS

# PyTorch's own remark on even kernels.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


class Elementwise(nn.Module):
    """Parameters by themselves, used in a function of one of their own and the input."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.own = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)

    def forward(self, x):
        return self.function(x, *self.own)


def classed(x, token):
    """A class token ahead of the others, as vision transformers have it."""
    return torch.cat([token.expand(len(x), -1, -1), x], 1)


class Encoder(nn.Module):
    """PyTorch's own transformer layer."""

    def __init__(self, *, batch_first):
        super().__init__()
        self.first = batch_first
        self.inner = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=batch_first)
        self.inner.eval()

    def forward(self, x):
        return self.inner(x) if self.first else self.inner(x.transpose(0, 1)).transpose(0, 1)


class Folded(nn.Module):
    """Positions folded into the batch, or ahead of it, for one layer."""

    def __init__(self, *, ahead):
        super().__init__()
        self.inner, self.ahead = nn.Linear(4, 3), ahead

    def forward(self, x):
        if not self.ahead:
            return self.inner(x.reshape(-1, 4)).view(*x.shape[:2], 3)
        return self.inner(x.transpose(0, 1).reshape(-1, 4)).view(-1, len(x), 3).transpose(0, 1)


class Placed(nn.Module):
    """Embeddings of tokens and of positions, the latter the same for all samples."""

    def __init__(self, *, lead):
        super().__init__()
        self.token, self.place, self.lead = nn.Embedding(6, 3), nn.Embedding(5, 3), lead

    def forward(self, t):
        places = torch.arange(t.shape[1])
        return self.token(t) + self.place(places[None] if self.lead else places)


class Pooled(nn.Module):
    """A layer, a nonlinearity, the mean over positions, and a linear head."""

    def __init__(self, layer, x, last=False):
        super().__init__()
        self.layer, self.last = layer, last
        self.head = nn.Linear(self.features(x).shape[-1], 3)

    def features(self, x):
        h = torch.tanh(self.layer(x))
        if h.ndim == 2:
            return h
        return h.flatten(1, -2).mean(1) if self.last else h.flatten(2).mean(2)

    def forward(self, x):
        return self.head(self.features(x))


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tokens(*shape):
    return torch.randint(6, shape, generator=torch.Generator().manual_seed(0))


def evaluated(layer, *shape):
    """A batch normalisation with statistics of its own, in eval mode."""
    layer(normal(*shape) * 2 + 1)
    return layer.eval()


CONVOLUTIONS = {
    "1d": (lambda: nn.Conv1d(2, 3, 3), normal(5, 2, 7)),
    "1d no bias": (lambda: nn.Conv1d(2, 3, 3, bias=False), normal(5, 2, 7)),
    "1d strided": (lambda: nn.Conv1d(2, 3, 2, stride=3, padding=1), normal(5, 2, 8)),
    "1d dilated": (lambda: nn.Conv1d(2, 3, 3, dilation=2), normal(5, 2, 9)),
    "1d same even": (lambda: nn.Conv1d(2, 3, 4, padding="same"), normal(5, 2, 7)),
    "1d same dilated": (
        lambda: nn.Conv1d(2, 3, 2, padding="same", dilation=3),
        normal(5, 2, 7),
    ),
    "1d valid": (lambda: nn.Conv1d(2, 3, 2, padding="valid"), normal(5, 2, 7)),
    "1d circular": (
        lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"),
        normal(5, 2, 7),
    ),
    "1d grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2), normal(5, 4, 7)),
    "1d depthwise": (lambda: nn.Conv1d(4, 8, 3, groups=4, bias=False), normal(5, 4, 7)),
    "2d": (lambda: nn.Conv2d(2, 3, 3), normal(4, 2, 5, 6)),
    "2d oblong": (
        lambda: nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        normal(4, 2, 5, 6),
    ),
    "2d grouped": (lambda: nn.Conv2d(4, 4, 2, groups=4, padding=1), normal(4, 4, 3, 4)),
    "2d one pixel": (lambda: nn.Conv2d(2, 3, 1), normal(4, 2, 3, 3)),
    "2d whole image": (lambda: nn.Conv2d(2, 3, 4), normal(4, 2, 4, 4)),
    "3d": (lambda: nn.Conv3d(1, 2, 2, stride=(1, 2, 1)), normal(3, 1, 3, 4, 3)),
    "3d grouped": (lambda: nn.Conv3d(2, 2, 2, groups=2, padding=1), normal(3, 2, 2, 2, 2)),
    "1d transposed": (lambda: nn.ConvTranspose1d(2, 3, 3), normal(5, 2, 4)),
    "1d transposed strided": (
        lambda: nn.ConvTranspose1d(2, 3, 2, stride=3, padding=1, output_padding=2),
        normal(5, 2, 4),
    ),
    "1d transposed output padding": (
        lambda: nn.ConvTranspose1d(2, 2, 3, dilation=3, output_padding=2, bias=False),
        normal(5, 2, 3),
    ),
    "2d transposed grouped": (
        lambda: nn.ConvTranspose2d(4, 2, (2, 3), groups=2, stride=(1, 2), dilation=(2, 1)),
        normal(4, 4, 2, 3),
    ),
    "3d transposed": (lambda: nn.ConvTranspose3d(2, 2, 2, padding=1), normal(3, 2, 2, 3, 2)),
    "pooled": (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.MaxPool1d(2)), normal(5, 2, 7)),
    "batch norm 1d": (lambda: evaluated(nn.BatchNorm1d(3), 9, 3, 4), normal(5, 3, 4)),
    "batch norm 2d": (lambda: evaluated(nn.BatchNorm2d(3), 9, 3, 4, 4), normal(5, 3, 2, 2)),
    "group norm": (lambda: nn.GroupNorm(2, 4), normal(5, 4, 3)),
}
LAST = {
    "layer norm": (lambda: nn.LayerNorm(4), normal(5, 3, 4)),
    "layer norm of two": (lambda: nn.LayerNorm((3, 4)), normal(5, 2, 3, 4)),
    "layer norm no bias": (lambda: nn.LayerNorm(4, bias=False), normal(5, 3, 4)),
    "layer norm flat": (lambda: nn.LayerNorm(4), normal(5, 4)),
    "RMS norm": (lambda: nn.RMSNorm(4), normal(5, 3, 4)),
    "embedding": (lambda: nn.Embedding(6, 3), tokens(5, 4)),
    "embedding with padding": (lambda: nn.Embedding(6, 3, padding_idx=2), tokens(5, 4)),
    "embedding with negative padding": (lambda: nn.Embedding(6, 3, padding_idx=-1), tokens(5, 4)),
    "gain": (lambda: Elementwise(lambda x, w: w * x, (4,)), normal(5, 3, 4)),
    "gain of each position": (lambda: Elementwise(torch.mul, (3, 1)), normal(5, 3, 4)),
    "bias": (lambda: Elementwise(lambda x, w: x + w, (4,)), normal(5, 4)),
    "learned positions": (lambda: Elementwise(torch.add, (1, 3, 4)), normal(5, 3, 4)),
    "one number": (lambda: Elementwise(lambda x, w: w * x, ()), normal(5, 3, 4)),
    "one number, flat": (lambda: Elementwise(torch.add, (1,)), normal(5, 4)),
    "class token": (lambda: Elementwise(classed, (1, 1, 4)), normal(5, 3, 4)),
    "product": (lambda: Elementwise(lambda x, w: x @ w, (4, 3)), normal(5, 3, 4)),
    "product, flat": (lambda: Elementwise(torch.mm, (4, 3)), normal(5, 4)),
    "added product": (
        lambda: Elementwise(lambda x, w, b: torch.addmm(b, x, w), (4, 3), (3,)),
        normal(5, 4),
    ),
    "folded positions": (lambda: Folded(ahead=False), normal(5, 3, 4)),
    "folded positions ahead": (lambda: Folded(ahead=True), normal(5, 3, 4)),
    "encoder": (lambda: Encoder(batch_first=True), normal(5, 3, 4)),
    "encoder, length first": (lambda: Encoder(batch_first=False), normal(5, 3, 4)),
    "embedding and places": (lambda: Placed(lead=False), tokens(5, 4)),
    "embedding and places, led": (lambda: Placed(lead=True), tokens(5, 4)),
    "embedding of positions": (lambda: nn.Embedding(6, 3), tokens(5, 2, 2)),
}
KINDS = {
    **{name: (layer, x, False) for name, (layer, x) in CONVOLUTIONS.items()},
    **{name: (layer, x, True) for name, (layer, x) in LAST.items()},
}


def build(kind):
    layer, x, last = KINDS[kind]
    torch.manual_seed(0)
    model = Pooled(layer(), x, last)
    for parameter in model.parameters():
        # Gains and biases away from one and zero.
        nn.init.normal_(parameter, 0.2, 0.7)
    return model, x


@pytest.mark.parametrize("split", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_aligned_rows_are_right(kind, split, agree):
    model, x = build(kind)
    batches = [(x, None)] if split is None else [(x[:split], None), (x[split:], None)]
    root = agree(model, batches)
    assert all(unit.contracted for unit in root.units)
    assert set(root.sweep.ways) == {"aligned"}


@pytest.mark.parametrize("way", ["single", "whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_ways_are_right(kind, way, agree, only):
    only(way)
    model, x = build(kind)
    assert agree(model, [(x, None)], "categorical").sweep.ways == [way]


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_right(kind):
    root = ll.fisher(build(kind)[0], (KINDS[kind][1],), "categorical").root
    w = torch.linspace(0.5, 2, root.shape[1], dtype=torch.float64)
    for weights in (w, torch.full_like(w, 0.7)):
        scaled = root.scaled(weights)
        expected = root.dense() * weights
        assert torch.allclose(scaled.dense(), expected, rtol=1e-12, atol=1e-14)
        assert torch.allclose(scaled.gram(), expected @ expected.T, rtol=1e-12, atol=1e-14)
        assert torch.allclose(scaled.mv(w), expected @ w, rtol=1e-12, atol=1e-13)
        u = torch.ones(root.shape[0], 2, dtype=torch.float64)
        assert torch.allclose(scaled.rmv(u), expected.T @ u, rtol=1e-12, atol=1e-13)
    trace = float(root.dense().square().sum())
    root.gram()
    assert sum(root.traces.values()) == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_generic_path_gives_the_same(kind, monkeypatch):
    model, x = build(kind)
    contracted = ll.fisher(model, (x,), "gaussian").root.gram()
    for function in list(CONTRACTIONS):
        monkeypatch.delitem(CONTRACTIONS, function)
    root = ll.fisher(model, (x,), "gaussian").root
    assert torch.allclose(root.gram(), contracted, rtol=1e-12, atol=1e-14)
    assert not any(unit.contracted for unit in root.units)


def test_a_layer_used_twice_and_a_tied_table(agree):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv1d(2, 2, 3, padding=1), nn.GroupNorm(1, 2)
            self.head = nn.Linear(2, 3)

        def forward(self, x):
            for _ in range(2):
                x = torch.tanh(self.norm(self.conv(x)))
            return self.head(x.mean(2))

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)

        def forward(self, t):
            return nn.functional.linear(torch.tanh(self.mix(self.table(t))), self.table.weight)

    assert agree(Twice(), [(normal(5, 2, 6), None)]).sweep.ways == ["aligned"]
    assert agree(Tied(), [(tokens(3, 4), None)], "categorical").sweep.ways == ["aligned"]


@pytest.mark.parametrize("kind", ["2d", "2d grouped", "embedding", "layer norm"])
def test_a_model_of_one_item_without_a_batch(kind, agree):
    model, x = build(kind)

    class One(nn.Module):
        """Takes the first item out of its batch of one, and puts the batch back at the end."""

        def __init__(self):
            super().__init__()
            self.inner = model.layer

        def forward(self, x):
            return torch.stack([self.inner(item).flatten() for item in x])

    agree(One(), [(x, None)])
