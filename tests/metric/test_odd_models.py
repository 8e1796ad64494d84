"""Every parameter is counted exactly once, however a model holds and uses it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from oracles import networks as nets
from oracles.roots import check_root

X = nets.normal(4, 3, seed=1)
linear = functional.linear


def weight(*shape):
    return nn.Parameter(torch.zeros(shape))


def frozen(module):
    return module.requires_grad_(False)


def shared():
    """One module under two names, and a layer that borrows its bias."""
    inner, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.bias = inner.bias
    return nets.Call(lambda s, x: s.b(torch.tanh(s.other(torch.tanh(s.a(x))))),
                     a=inner, b=inner, other=other)  # fmt: skip


def listed(self, x):
    for w in self.ws:
        x = torch.tanh(x @ w)
    return x


def lowered(self, x):
    """A frozen layer and a trained product of low rank beside it."""
    return self.base(x) + linear(linear(x, self.down), self.up) * 0.5


def merged(self, x):
    """The same as one weight."""
    return linear(x, self.base.weight + self.up @ self.down, self.base.bias)


def buffered(self, x):
    """Parameters where a normalisation has buffers."""
    return self.out((x - self.mean) * torch.rsqrt(self.variance.exp()))


def spectrum(self, x):
    """Real gains on complex numbers."""
    return torch.fft.irfft(torch.fft.rfft(x) * self.gain, n=3) @ self.w


def complexes(self, x):
    """Real numbers added to complex ones."""
    z = torch.complex(x, x.cos()) + self.gain
    return torch.stack([z.abs().sum(1), z.angle().sum(1)], 1) @ self.w


def masked(self, x):
    return self.out((x > 0) * self.gain + (x > 0.5).long() * self.gain.sin())


MODELS = {
    "shared": shared,
    "shared by one name": lambda: nets.Call(
        lambda s, x: s.last(s.body(x)), body=nn.Sequential(*[nn.Linear(3, 3), nn.Tanh()] * 2),
        last=nn.Linear(3, 2),
    ),
    "unused": lambda: nets.raw(3, 2, 2),
    "frozen weight": lambda: nets.Call(
        lambda s, x: s.b(torch.tanh(s.a(x))), a=nn.Linear(3, 3), b=frozen(nn.Linear(3, 2))
    ),
    "listed": lambda: nets.Call(listed, ws=nn.ParameterList([weight(3, 4), weight(4, 2)])),
    "weight norm": lambda: nets.Call(
        lambda s, x: s.b(torch.tanh(s.a(x))),
        a=parametrizations.weight_norm(nn.Linear(3, 3)),
        b=parametrizations.weight_norm(nn.Linear(3, 2, bias=False), dim=None),
    ),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(3, 2)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(3, 3)),
    "low rank": lambda: nets.Call(
        lowered, base=frozen(nn.Linear(3, 2)), down=weight(2, 3), up=weight(2, 2)
    ),
    "low rank, merged": lambda: nets.Call(
        merged, base=frozen(nn.Linear(3, 2)), down=weight(2, 3), up=weight(2, 2)
    ),
    "statistics": lambda: nets.Call(
        buffered, mean=weight(3), variance=weight(3), out=nn.Linear(3, 2)
    ),
    "spectrum": lambda: nets.Call(spectrum, gain=weight(2), w=weight(3, 2)),
    "complex": lambda: nets.Call(complexes, gain=weight(3), w=weight(2, 2)),
    "masks": lambda: nets.Call(masked, gain=weight(3), out=nn.Linear(3, 2)),
    "scalar gains": lambda: nets.Call(
        lambda s, x: s.b * (s.l(x) * s.a) + s.b, l=nn.Linear(3, 2), a=weight(), b=weight(1)
    ),
    "one bias for all": lambda: nets.Call(
        lambda s, x: linear(x, s.w, s.b), w=weight(2, 3), b=weight(1)
    ),
    "bias for each sample": lambda: nets.Call(
        lambda s, x: linear(x[:1].expand(4, -1), s.w, s.b) + x[:, :2], w=weight(2, 3), b=weight(2)
    ),
    "bias of a layer as its weight": lambda: nets.Call(
        lambda s, x: linear(torch.tanh(linear(x, s.w, s.b)), s.b[None].expand(2, 3)),
        w=weight(3, 3), b=weight(3),
    ),
    "matrix by matrix": lambda: nets.Call(
        lambda s, x: x @ (s.a @ s.b), a=weight(3, 2), b=weight(2, 2)
    ),
    "layer of a weight": lambda: nets.Call(
        lambda s, x: x @ linear(s.a, s.b), a=weight(3, 2), b=weight(2, 2)
    ),
    "product with itself": lambda: nets.Call(lambda s, x: x @ (s.a * s.a), a=weight(3, 2)),
    "outer": lambda: nets.Call(
        lambda s, x: x.unsqueeze(-1) * s.row @ s.w, row=weight(2), w=weight(2, 2)
    ),
    "widened": lambda: nets.Call(
        lambda s, x: s.w.expand_as(x) * x + s.v.expand(4, 3), w=weight(3), v=weight(1, 3)
    ),
    "expanded by a size": lambda: nets.Call(
        lambda s, x: s.w.expand(torch.Size([len(x), 3])) * x, w=weight(3)
    ),
    "bilinear": lambda: nets.Call(lambda s, x: s.l(x, x.sin()), l=nn.Bilinear(3, 3, 2)),
    "bag": lambda: nets.Call(
        lambda s, x: s.l((x * 10).long().abs() % 5), l=nn.EmbeddingBag(5, 2, mode="sum")
    ),
    "prelu": lambda: nets.Call(lambda s, x: s.l(s.a(x)), a=nn.PReLU(3), l=nn.Linear(3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("split", [4, 3, 1])
@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_is_counted_once(kind, split, untouched):
    if split < 4 and kind in ("widened", "bias for each sample"):
        pytest.skip("this model takes batches of four only")
    model = MODELS[kind]()
    model = nets.fill(model, 3) if kind not in ("orthogonal", "spectral norm") else model.eval()
    with untouched(model):
        root = check_root(model, [(x, None) for x in X.split(split)])
    trainable = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    assert sum(unit.width for unit in root.units) == sum(trainable.values())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 15), st.integers(0, 999))
def test_layers_used_in_any_order(order, mask, seed):
    """Some layers twice, some never, some frozen."""

    def forward(self, x):
        for index in order:
            x = torch.tanh(self.layers[index](x))
        return self.last(x)

    layers = [nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3, bias=False), nn.Linear(3, 3)]
    layers[3].weight = layers[0].weight
    for index, layer in enumerate(layers):
        layer.requires_grad_(not mask >> index & 1)
    model = nets.Call(forward, layers=nn.ModuleList(layers), last=nn.Linear(3, 2))
    check_root(nets.fill(model, seed), [(X[:3], None), (X[3:], None)])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["split", "chunk", "halves", "whole", "raw", "product", "columns"]),
             min_size=1, max_size=4),
    st.booleans(), st.integers(1, 4), st.integers(0, 999),
)  # fmt: skip
def test_slices_of_packed_weights(uses, biased, size, seed):
    """Slices along the first dimension, cut in several ways, beside other uses of the whole."""

    def forward(self, x):
        w, b = self.w, self.b if biased else torch.zeros(6).to(x)
        for use in uses:
            if use == "split":
                first, second = w.split([2, 4])
                shift, other = b.split([2, 4])
                x = x + linear(x, second, other)[:, 1:].tanh() * linear(x, first, shift)[:, :1]
            elif use == "chunk":
                q, k = w.chunk(2)
                x = torch.tanh(linear(x, q, b.chunk(2)[0]) * linear(x, k))
            elif use == "halves":
                x = torch.tanh(torch.chunk(w, 3)[1] @ x.T).T.sum(1, keepdim=True) + x
            elif use == "whole":
                x = torch.tanh(linear(x, w, b))[:, :3]
            elif use == "raw":
                x = x * w.split(3)[0].cos().sum(0)
            elif use == "product":
                x = torch.tanh(x @ w.split(3)[1])
            else:
                x = x + linear(x, w.chunk(3, dim=1)[0].reshape(2, 3)).sum(1, keepdim=True)
        return self.last(x)

    model = nets.Call(forward, w=weight(6, 3), b=weight(6), last=nn.Linear(3, 2))
    check_root(nets.fill(model, seed), [(x, None) for x in X.split(size)])
