"""Small networks that use their parameters in every way PyTorch allows."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = {
    "relu": nn.ReLU,
    "inplace": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def fill(model, seed, scale=0.8):
    """Random values for all parameters and buffers, and eval mode."""
    random = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            fan = p[0].numel() if p.ndim > 1 else 1
            p.copy_(scale * torch.randn(p.shape, generator=random) / fan**0.5)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(torch.randn(module.num_features, generator=random))
                module.running_var.copy_(torch.rand(module.num_features, generator=random) + 0.5)
    return model.eval()


class Call(nn.Module):
    """A function of parameters and submodules: forward is `function(self, *inputs)`."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def mlp(widths, activation, bias=True, norm=None):
    """Linear layers with a normalisation and an activation between them."""
    layers = []
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        if index:
            if norm is not None:
                layers.append(norm(fan_in))
            layers.append(ACTIVATIONS[activation]())
        layers.append(nn.Linear(fan_in, fan_out, bias=bias))
    return nn.Sequential(*layers)


def reused(n, h, m, activation, times):
    """One hidden layer applied several times."""
    act = ACTIVATIONS[activation]()

    def forward(self, x):
        z = act(self.enter(x))
        for _ in range(times):
            z = act(self.middle(z))
        return self.leave(z)

    parts = dict(enter=nn.Linear(n, h), middle=nn.Linear(h, h), leave=nn.Linear(h, m))
    return Call(forward, **parts)


def two_names(n, h, m, activation):
    """Two layers that share a weight but not a bias."""
    parts = dict(
        enter=nn.Linear(n, h), first=nn.Linear(h, h), second=nn.Linear(h, h), leave=nn.Linear(h, m)
    )
    parts["second"].weight = parts["first"].weight
    act = ACTIVATIONS[activation]()
    return Call(
        lambda self, x: self.leave(act(self.second(act(self.first(act(self.enter(x))))))), **parts
    )


def autoencoder(n, h, activation):
    """Decoder weight = encoder weight transposed, with a raw bias."""
    act = ACTIVATIONS[activation]()
    return Call(
        lambda self, x: functional.linear(act(self.enter(x)), self.enter.weight.T, self.shift),
        enter=nn.Linear(n, h),
        shift=nn.Parameter(torch.zeros(n)),
    )


def penalised(n, h, m):
    """A layer called as a module and its weight used in the output besides."""

    def forward(self, x):
        z = torch.tanh(self.hidden(x))
        return (
            self.leave(z) + (self.hidden.weight.square().mean() + self.hidden.bias.sum()) * x[:, :1]
        )

    return Call(forward, hidden=nn.Linear(n, h), leave=nn.Linear(h, m))


def raw(n, h, m):
    """Raw parameters, one of them unused, and a scalar gain on everything."""
    return Call(
        lambda self, x: self.gain * torch.einsum("ni,ih->nh", x, self.W).sin() @ self.V + self.b,
        W=nn.Parameter(torch.zeros(n, h)), V=nn.Parameter(torch.zeros(h, m)),
        b=nn.Parameter(torch.zeros(m)), gain=nn.Parameter(torch.zeros(())),
        unused=nn.Parameter(torch.zeros(3)), idle=nn.Linear(2, 2),
    )  # fmt: skip


def detached(n, h, m):
    """The hidden layer also feeds a part without gradients."""

    def forward(self, x):
        z = torch.tanh(self.hidden(x))
        with torch.no_grad():
            still = self.hidden(x).cos()
        return self.leave(z) + still.sum(-1, keepdim=True) * self.leave(z.detach())

    return Call(forward, hidden=nn.Linear(n, h), leave=nn.Linear(h, m))


def language_model(vocabulary, width, length, heads, layer, tied):
    """Embedding, one attention block, logits at every position."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.place = nn.Parameter(torch.zeros(length, width))
            self.block = layer(width, heads)
            self.head = nn.Linear(width, vocabulary, bias=not tied)
            if tied:
                self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.block(self.embedding(x) + self.place))

    return Model()


class Attention(nn.Module):
    """Self-attention and a residual."""

    def __init__(self, width, heads, bias=True):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x, need_weights=False)[0]


def encoder(width, heads):
    """PyTorch's own pre-norm encoder layer."""
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
    )


class Recurrent(nn.Module):
    """LSTM or GRU with a head on every step, or on the last one."""

    def __init__(self, kind, n, h, m, every, batch_first=True):
        super().__init__()
        self.cell = kind(n, h, batch_first=batch_first)
        self.head = nn.Linear(h, m)
        self.every = every

    def forward(self, x):
        steps = self.cell(x)[0]
        return self.head(steps if self.every else steps[:, -1])
