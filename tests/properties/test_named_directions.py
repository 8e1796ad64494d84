"""Named null directions of random models: never more than there are, equal for equal models."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lightlike as ll
from oracles.networks import Call, mlp, normal
from oracles.nullities import case
from oracles.reference import whitened

STEPS = (
    "linear", "again", "tanh", "relu", "leaky", "skip", "bent skip", "batch norm", "layer norm",
    "rms norm", "gain", "constant", "number", "cut", "gate", "softmax", "stopped", "assigned",
    "in place", "shared bias", "transposed", "pool", "clamp", "max",
)  # fmt: skip


class Program(nn.Module):
    """A random sequence of calls on vectors, some of which break symmetries."""

    def __init__(self, steps, widths, outputs, seed):
        super().__init__()
        self.steps = steps
        self.parts = nn.ModuleList()
        width = widths[0]
        for step, target in zip(steps, widths[1:], strict=True):
            part = nn.Identity()
            if step == "linear":
                part, width = nn.Linear(width, target, bias=target % 3 > 0), target
            elif step in ("skip", "bent skip", "again", "gate", "shared bias", "transposed"):
                part = nn.Linear(width, width)
            elif step == "batch norm":
                part = nn.BatchNorm1d(width)
            elif step in ("layer norm", "rms norm"):
                kind = nn.LayerNorm if step == "layer norm" else nn.RMSNorm
                part = kind(width, eps=1e-2)
            elif step == "gain":
                part = nn.ParameterList([torch.ones(width), torch.zeros(width)])
            self.parts.append(part)
        self.last = nn.Linear(width, outputs)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.double().parameters():
                fan = p[0].numel() if p.ndim > 1 else 1
                p.copy_(1.2 * torch.randn(p.shape, generator=random, dtype=p.dtype) / fan**0.5)
            for m in self.modules():
                if isinstance(m, nn.BatchNorm1d):
                    m.running_mean.copy_(torch.randn(len(m.running_mean), generator=random))
        self.eval()

    def forward(self, x):
        for step, part in zip(self.steps, self.parts, strict=True):
            x = getattr(self, "do_" + step.replace(" ", "_"))(x, part)
        return self.last(x)

    def do_linear(self, x, part):
        return part(x)

    do_batch_norm = do_layer_norm = do_rms_norm = do_linear

    def do_again(self, x, part):
        return part(functional.leaky_relu(part(x)))

    def do_tanh(self, x, _):
        return torch.tanh(x)

    def do_relu(self, x, _):
        return functional.relu(x)

    def do_leaky(self, x, _):
        return functional.leaky_relu(x, 0.2)

    def do_skip(self, x, part):
        return x + part(x)

    def do_bent_skip(self, x, part):
        return x - 0.5 * functional.relu(part(x))

    def do_gain(self, x, part):
        return x * part[0] + part[1]

    def do_constant(self, x, _):
        return x + 0.7

    def do_number(self, x, _):
        return -x / 3

    def do_cut(self, x, _):
        first, second = x[..., :1], x[..., 1:]
        return torch.cat([functional.relu(second), first], -1)

    def do_gate(self, x, part):
        return x * torch.sigmoid(part(x))

    def do_softmax(self, x, _):
        return torch.softmax(x, -1)

    def do_stopped(self, x, _):
        return x + x.detach().abs()

    def do_assigned(self, x, _):
        x = x.clone()
        x[:, 0] = 2 * x[:, 0]
        return x

    def do_in_place(self, x, _):
        return (x + x).mul_(0.5).relu_()

    def do_shared_bias(self, x, part):
        return part(x) + part.bias

    def do_transposed(self, x, part):
        return functional.relu(part(x)) @ part.weight

    def do_pool(self, x, _):
        return functional.avg_pool1d(x[:, None], 2, 1, padding=1)[:, 0, : x.shape[1]]

    def do_clamp(self, x, _):
        return x.clamp(min=0)

    def do_max(self, x, _):
        return torch.maximum(x, x.mean(-1, keepdim=True))


programs = st.lists(st.sampled_from(STEPS), min_size=1, max_size=5).flatmap(
    lambda steps: st.tuples(
        st.just(steps),
        st.lists(st.integers(2, 4), min_size=len(steps) + 1, max_size=len(steps) + 1),
    )
)


def check(model, x, head):
    """The explanation against naive singular values of a naively written A."""
    F = ll.fisher(model, (x,), head)
    e = ll.explain(F)
    A = whitened(model, [(x, None)], head)
    s = np.linalg.svd(A, compute_uv=False)
    null = A.shape[1] - int((s > max(F.root.shape) * np.finfo(float).eps * s[0]).sum())
    assert 0 <= e.certain <= null
    assert e.explained + e.unexplained == F.shape[0] - int(ll.dimension(F, explanation=e))
    # Independently counted, what was verified has the rank that is claimed at least.
    directions = e.directions.toarray()
    if directions.shape[1]:
        lengths = np.linalg.norm(directions, axis=0)
        assert np.abs(A @ (directions / lengths)).max() <= 1e-11 * max(s[0], 1e-300)
        assert np.linalg.matrix_rank(directions / lengths, tol=1e-6) >= e.certain
    return e, null


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    program=programs,
    n=st.integers(2, 40),
    head=st.sampled_from(["gaussian", "categorical"]),
    seed=st.integers(0, 99),
)
def test_never_more_than_there_are(program, n, head, seed):
    steps, widths = program
    check(Program(steps, widths, 2, seed), 1.3 * normal(n, widths[0], seed=seed), head)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(
    program=programs,
    n=st.integers(2, 60),
    head=st.sampled_from(["gaussian", "categorical"]),
    seed=st.integers(0, 9999),
)
def test_never_more_than_there_are_in_many_models(program, n, head, seed):
    steps, widths = program
    check(Program(steps, widths, 3, seed), 1.3 * normal(n, widths[0], seed=seed), head)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_between_two_linear_layers(step):
    steps = ["linear", step, "linear"]
    check(Program(steps, [3, 4, 4, 3], 2, 0), normal(40, 3, seed=1), "gaussian")


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), activation=st.sampled_from(["leaky", "relu", "tanh"]))
def test_permuted_and_rescaled_units_change_nothing(seed, activation):
    random = np.random.Generator(np.random.PCG64(seed))
    model = mlp([3, 5, 4, 2], activation).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            fan = p[0].numel() if p.ndim > 1 else 1
            p.copy_(torch.from_numpy(random.standard_normal(p.shape)) / fan**0.5)
    x = 1.5 * normal(80, 3, seed=seed)

    def answer():
        F = ll.fisher(model, (x,), "categorical")
        e = ll.explain(F)
        return int(ll.dimension(F)), sorted(
            (s.kind, s.where, s.dimension) for s in e.sources if s.dimension
        )

    before = answer()
    order = torch.from_numpy(random.permutation(5))
    scale = 1.0
    if activation != "tanh":
        scale = torch.from_numpy(random.uniform(0.5, 2.0, 5))
    with torch.no_grad():
        first, second = model[0], model[2]
        first.weight.copy_((first.weight.T * scale).T[order])
        first.bias.copy_((first.bias * scale)[order])
        second.weight.copy_((second.weight / scale)[:, order])
    assert answer() == before


@pytest.mark.parametrize("index", range(20))
def test_certificates_of_networks_of_known_rank(index):
    """No certificate is wrong, and these families are explained in full."""
    known = case(index)
    F = ll.fisher(known.model, (known.x,), known.head)
    e = ll.explain(F)
    d = ll.dimension(F, explanation=e)
    assert d.value == d.lower == d.upper == known.parameters - known.nullity
    assert d.kind == "exact"
    assert d.proven_twice
    assert e.certain <= known.nullity
    assert e.unexplained == 0
    fewest = min(F.root.shape[0], known.parameters - e.certain)
    assert d.bound == (
        "data"
        if fewest < known.parameters - e.certain
        else "symmetries"
        if e.certain
        else "parameters"
    )


def test_a_model_that_cannot_be_followed_still_tells_what_data_tell():
    def forward(self, x):
        # Numbers leave PyTorch's sight and come back.
        shift = float(self.first(x).detach().numpy().mean())
        return self.last(torch.tanh(self.first(x)) + 0 * shift)

    model = Call(forward, first=nn.Linear(3, 4), last=nn.Linear(4, 3)).double().eval()
    x = normal(40, 3)
    x[:, 0] = 0
    e, null = check(model, x, "categorical")
    assert e.certain == null == 4 + 5
