"""Contracted layers in random settings: every answer of the root, against two other sources."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from oracles import networks as nets
from oracles.roots import check_root

# PyTorch's own remark on even kernels.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

seeds = st.integers(0, 9999)
few = st.integers(1, 3)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
LIKELIHOODS = ["gaussian", "categorical", "bernoulli", "poisson", "heteroscedastic_gaussian"]


def cut(x, sizes):
    """Batches of the given sizes, and one of what is left."""
    parts, start = [], 0
    for size in sizes:
        parts.append(x[start : start + size])
        start += size
    return [(part, None) for part in [*parts, x[start:]] if len(part)]


@st.composite
def tasks(draw, shape, tokens=0):
    """Inputs in random batches, and a seed."""
    n, seed = draw(st.integers(1, 5)), draw(seeds)
    x = nets.normal(n, *shape, seed=seed)
    if tokens:
        x = torch.randint(tokens, (n, *shape), generator=nets.generator(seed))
    sizes = draw(st.lists(st.integers(1, 3), max_size=2))
    return cut(x, sizes), seed


def headed(body, x, last):
    """A body, a bounded function, and a head on the mean over positions or on each."""
    h = body(x.float() if x.is_floating_point() else x)
    channel = h.ndim - 1 if last or h.ndim == 2 else 1
    head = nn.Linear(h.shape[channel], 2)

    def forward(self, x):
        h = torch.tanh(self.body(x)).movedim(channel, -1)
        return self.head(h.flatten(1, -2).mean(1) if h.ndim > 2 else h)

    return nets.Call(forward, body=body, head=head)


def check(body, task, likelihood="gaussian", last=True, dtype=torch.float64, contracted=True):
    """Measure a layer inside a small network; all calls are contracted unless told otherwise."""
    batches, seed = task
    body.eval()
    model = nets.fill(headed(body, batches[0][0], last), seed).to(dtype)
    root = check_root(model, batches, likelihood)
    if contracted:
        assert all(unit.contracted for unit in root.units)
        assert set(root.sweep.ways) == {"aligned"}
    return root


@st.composite
def convolutions(draw, transposed):
    """A convolution with random settings, and the shape of its input."""
    dims = draw(few)
    most = 4 if dims < 3 else 3

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    groups, (ins, outs) = draw(few), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    kernel, dilation = each(1, 3), each(1, 2)
    options = dict(groups=groups, dilation=dilation, bias=draw(st.booleans()))
    if transposed:
        options |= dict(stride=each(1, 3), padding=each(0, 1))
        bounds = [max(s, d) for s, d in zip(options["stride"], dilation, strict=True)]
        options["output_padding"] = tuple(draw(st.integers(0, b - 1)) for b in bounds)
    else:
        options |= draw(
            st.sampled_from([
                dict(padding="same"), dict(padding="valid"),
                dict(padding=each(0, 2), stride=each(1, 3)),
                dict(padding=each(0, 1), stride=each(1, 2), padding_mode="circular"),
                dict(padding=each(0, 1), stride=each(1, 2), padding_mode="reflect"),
                dict(padding=each(0, 1), stride=each(1, 2), padding_mode="replicate"),
            ])
        )  # fmt: skip
    kinds = {
        False: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        True: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    }
    layer = kinds[transposed][dims - 1](groups * ins, groups * outs, kernel, **options)
    shape = (groups * ins, *each(2, most))
    try:
        with torch.no_grad():
            assume(layer(torch.zeros(1, *shape)).numel() > 0)
    except RuntimeError:  # the kernel is larger than the input
        assume(False)
    return layer, shape


@settings(max_examples=25, deadline=None)
@given(
    convolutions(transposed=False), st.sampled_from(LIKELIHOODS), st.sampled_from(DTYPES), st.data()
)
def test_convolutions(convolution, likelihood, dtype, data):
    layer, shape = convolution
    check(layer, data.draw(tasks(shape)), likelihood, False, dtype)


@settings(max_examples=20, deadline=None)
@given(
    convolutions(transposed=True), st.sampled_from(LIKELIHOODS), st.sampled_from(DTYPES), st.data()
)
def test_transposed_convolutions(convolution, likelihood, dtype, data):
    layer, shape = convolution
    check(layer, data.draw(tasks(shape)), likelihood, False, dtype)


@settings(max_examples=25, deadline=None)
@given(
    few,
    few,
    st.booleans(),
    st.lists(few, max_size=2),
    st.sampled_from(LIKELIHOODS),
    st.sampled_from(DTYPES),
    st.data(),
)
def test_linear_layers(ins, outs, bias, positions, likelihood, dtype, data):
    task = data.draw(tasks((*positions, ins)))
    check(nn.Linear(ins, outs, bias=bias), task, likelihood, True, dtype)


@st.composite
def normalisations(draw):
    """A normalisation in eval mode, the shape of its input, and whether channels come last."""
    channels, bias = draw(st.sampled_from([2, 4])), draw(st.booleans())
    kind = draw(st.sampled_from(["layer", "rms", "group", "batch 1d", "batch 2d", "instance"]))
    positions = draw(st.lists(few, min_size=1, max_size=2))
    if kind in ("layer", "rms"):
        shape = (channels,) if draw(st.booleans()) else (positions[-1], channels)
        full = (*positions[:-1], *shape) if len(shape) == 2 else (*positions, *shape)
        layer = nn.LayerNorm(shape, bias=bias) if kind == "layer" else nn.RMSNorm(shape)
        return layer, full, True
    if kind == "batch 1d":
        return nn.BatchNorm1d(channels), (channels, *positions[:1]), False
    if kind == "batch 2d":
        return nn.BatchNorm2d(channels), (channels, *positions, *positions)[:3], False
    if kind == "instance":
        layer = nn.InstanceNorm1d(channels, affine=True, track_running_stats=True)
        return layer, (channels, positions[0] + 1), False
    # PyTorch refuses one value a channel.
    shape = channels, positions[0] + 1, *positions[1:]
    return nn.GroupNorm(draw(st.sampled_from([1, 2])), channels), shape, False


@settings(max_examples=25, deadline=None)
@given(normalisations(), st.sampled_from(LIKELIHOODS), st.data())
def test_normalisations(normalisation, likelihood, data):
    layer, shape, last = normalisation
    check(layer, data.draw(tasks(shape)), likelihood, last, contracted=False)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), few, st.booleans(), st.lists(few, min_size=1, max_size=2), st.data())
def test_embeddings(size, depth, padding, positions, data):
    index = data.draw(st.integers(-size, size - 1)) if padding else None
    layer = nn.Embedding(size, depth, padding_idx=index)
    check(layer, data.draw(tasks(positions, tokens=size)), "categorical")


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["x + w", "w + x", "x * w", "w * x", "add", "mul", "x.mul", "expand"]),
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 7), st.booleans(), st.data(),
)  # fmt: skip
def test_elementwise_parameters(how, positions, width, mask, lean, data):
    """Shapes that are broadcast along any of the dimensions, those of the samples included."""
    full = (1, positions, width)
    shape = tuple(1 if mask >> i & 1 else n for i, n in enumerate(full))
    while lean and len(shape) > 0 and shape[0] == 1:
        shape = shape[1:]
    functions = {
        "x + w": lambda x, w: x + w, "w + x": lambda x, w: w + x, "x * w": lambda x, w: x * w,
        "w * x": lambda x, w: w * x, "add": torch.add, "mul": torch.mul,
        "x.mul": lambda x, w: x.mul(w),
        "expand": lambda x, w: torch.cat([w.expand(len(x), positions, width), x], 1),
    }  # fmt: skip
    body = nets.Call(lambda self, x: functions[how](x, self.w), w=nn.Parameter(torch.zeros(shape)))
    check(body, data.draw(tasks((positions, width))), contracted=False)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4), st.integers(2, 3),
    st.lists(st.sampled_from(["linear", "turned", "product", "added", "table", "conv", "mean"]),
             min_size=1, max_size=4),
    st.booleans(), st.data(),
)  # fmt: skip
def test_one_weight_used_in_many_ways(width, positions, uses, raw, data):
    """A square matrix as a linear layer, its transpose, a table, and a kernel of one pixel."""

    def forward(self, t):
        w, h = self.w, functional.embedding(t, self.w)
        for use in uses:
            if use == "linear":
                h = torch.tanh(functional.linear(h, w, self.b))
            elif use == "turned":
                h = torch.tanh(functional.linear(h, w.T))
            elif use == "product":
                h = torch.tanh(h @ w)
            elif use == "added":
                flat = torch.addmm(self.b, h.reshape(-1, width), w)
                h = torch.tanh(flat).view(h.shape)
            elif use == "table":
                h = h + functional.embedding(t.flip(-1), w)
            elif use == "conv":
                h = torch.tanh(functional.conv1d(h.transpose(1, 2), w[..., None])).transpose(1, 2)
            else:
                h = h.mean(1, keepdim=True)
        h = h if raw else h.mean(1)
        return functional.linear(h, w)

    model = nets.Call(
        forward, w=nn.Parameter(torch.zeros(width, width)), b=nn.Parameter(torch.zeros(width))
    )
    batches, seed = data.draw(tasks((positions,), tokens=width))
    check_root(nets.fill(model, seed), batches, "categorical")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.sampled_from(["conv", "linear", "norm"]), st.data())
def test_layers_in_other_layouts(steps, ahead, kind, data):
    """Positions folded into the batch, behind or ahead of the samples."""
    layers = {"conv": nn.Conv1d(2, 3, 2), "linear": nn.Linear(3, 2), "norm": nn.LayerNorm(3)}

    def forward(self, x):
        x = x.transpose(0, 1) if ahead else x
        lead = x.shape[:2]
        h = torch.tanh(self.layer(x.flatten(0, 1))).unflatten(0, lead)
        h = h.transpose(0, 1) if ahead else h
        return self.head(h.sum(1).flatten(1))

    width = {"conv": 6, "linear": 4, "norm": 6}[kind]
    model = nets.Call(forward, layer=layers[kind], head=nn.Linear(width, 2))
    batches, seed = data.draw(tasks((steps, 2, 3)))
    root = check_root(nets.fill(model, seed), batches)
    assert set(root.sweep.ways) == {"aligned"}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("ending", [nn.Flatten, lambda: nets.Call(channels_last_mean)])
def test_batch_normalisation_of_a_single_image(frozen, ending):
    """PyTorch's batched backward pass is wrong here; see `normalisation.batch_norm`."""
    body = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Tanh(), ending())
    x = nets.normal(3, 1, 4, 4)
    width = body.eval()(x[:1].float()).shape[1]
    model = nets.fill(nn.Sequential(body, nn.Linear(width, 2)), 0).double()
    body[1].requires_grad_(not frozen)
    root = check_root(model, [(x[:1], None), (x[1:], None)])
    assert root.sweep.ways == ["aligned"] * 2


def channels_last_mean(_, x):
    return x.movedim(1, -1).flatten(1, -2).mean(1)
