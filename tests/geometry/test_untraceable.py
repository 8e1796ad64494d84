"""Models that hide what they do: names from the data alone, each held against A, none too many."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import lightlike as ll
from oracles.networks import Call, fill, normal

INS, WIDTH, OUTS = 3, 6, 3


class Rise(torch.autograd.Function):
    """A leaky rectifier by NumPy, which no tracer looks into."""

    @staticmethod
    def forward(x):
        values = x.detach().numpy()
        return torch.from_numpy(np.where(values > 0, values, 0.1 * values))

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ARG004
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        slope = torch.where(x > 0, 1.0, 0.1).to(grad)
        return grad * slope

    @staticmethod
    def vmap(info, in_dims, x):  # noqa: ARG004
        return Rise.apply(x), in_dims[0]


def scripted(x: torch.Tensor):
    return functional.leaky_relu(x, 0.1)


def parts():
    return dict(first=nn.Linear(INS, WIDTH), last=nn.Linear(WIDTH, OUTS))


def hidden_function():
    return Call(lambda s, x: s.last(Rise.apply(s.first(x))), **parts())


def branching():
    """Which branch is taken depends on the batch."""

    def forward(s, x):
        h = s.first(x)
        h = functional.leaky_relu(h, 0.1) if float(x[0, 0]) > 0 else torch.tanh(h)
        for _ in range(int(x[0, 1] > 0)):
            h = h * 2.0
        return s.last(h)

    return Call(forward, **parts())


def compiled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        rise = torch.jit.script(scripted)
    return Call(lambda s, x: s.last(rise(s.first(x))), **parts())


def plain():
    return Call(lambda s, x: s.last(functional.leaky_relu(s.first(x), 0.1)), **parts())


def disguised():
    """Calls are made where no torch function mode sees them."""

    def forward(s, x):
        with torch._C.DisableTorchFunction():
            h = functional.leaky_relu(s.first(x), 0.1)
        return s.last(h)

    return Call(forward, **parts())


MODELS = {
    "function": hidden_function, "branching": branching, "disguised": disguised,
    "compiled": compiled,
}  # fmt: skip


def explained(model, data, head="categorical", parameters=None):
    """An explanation, none of which is more than A says; dimensions by kind."""
    F = ll.fisher(model, data, head, parameters)
    e = ll.explain(F)
    A = F.root.dense()
    rank = int(torch.linalg.matrix_rank(A))
    V = torch.from_numpy(e.directions.toarray())
    images = (A @ V).norm(dim=0) / (A.norm() * V.norm(dim=0))
    assert bool((images < 1e-13).all())
    assert e.explained + e.unexplained == e.radical == F.shape[0] - rank
    assert e.certain <= np.linalg.matrix_rank(V.numpy())
    kinds = {}
    for source in e.sources:
        kinds[source.kind] = kinds.get(source.kind, 0) + source.dimension
    return e, {kind: n for kind, n in kinds.items() if n}


def batches(n=90):
    """Batches whose first entries take either branch."""
    return [((part,), None) for part in (3 * normal(n, INS, seed=4)).split(n // 3)]


@pytest.mark.parametrize("name", MODELS)
def test_shifts_of_logits_are_seen_in_the_data(name):
    """The shift is seen; rescalings that the calls would have told may stay unexplained."""
    e, kinds = explained(fill(MODELS[name]().double(), 0, 1.2), batches())
    assert kinds["softmax shift"] == WIDTH + 1
    assert set(kinds) <= {"softmax shift", "rescaling"}
    assert e.unexplained == e.radical - sum(kinds.values())


@pytest.mark.parametrize("name", ["function", "disguised", "compiled"])
def test_what_was_not_looked_into_is_said(name):
    e, kinds = explained(fill(MODELS[name]().double(), 0, 1.2), batches())
    assert e.unexplained == WIDTH  # one rescaling a unit
    (note,) = e.summary().notes
    assert note.startswith("Not looked into: ")
    assert name != "function" or "RiseBackward" in note
    assert note in str(e)
    assert type(e.summary()).from_dict(e.to_dict()) == e.summary()
    seen, all_kinds = explained(fill(plain().double(), 0, 1.2), batches())
    assert all_kinds == kinds | {"rescaling": WIDTH}
    assert seen.summary().notes == []


@pytest.mark.parametrize("name", MODELS)
def test_dead_unread_and_repeated_units_are_seen_in_the_data(name):
    model = fill(MODELS[name]().double(), 0, 1.2)
    with torch.no_grad():
        model.last.weight[:, 0] = 0.0
        model.first.weight[2], model.first.bias[2] = model.first.weight[1], model.first.bias[1]
    _, kinds = explained(model, batches())
    # What writes the first unit, and of two equal ones all outputs but for shifts of logits.
    unread = sum(kinds.get(kind, 0) for kind in ("zero outgoing weights", "inert parameter"))
    assert unread == INS + 1
    assert kinds["duplicated unit"] >= OUTS - 1


@pytest.mark.parametrize("name", MODELS)
def test_too_few_observations_explain_all(name):
    e, kinds = explained(fill(MODELS[name]().double(), 0, 1.2), batches(3))
    assert e.unexplained == 0
    assert kinds["too few observations"] > 0


def test_rows_of_a_table_that_no_token_names():
    model = Call(
        lambda s, t: s.last(Rise.apply(s.table(t)).flatten(1)),
        table=nn.Embedding(7, 2), last=nn.Linear(4, OUTS),
    )  # fmt: skip
    tokens = torch.randint(5, (60, 2), generator=torch.Generator().manual_seed(0))
    _, kinds = explained(fill(model.double(), 0, 1.2), (tokens,))
    assert kinds["unseen embedding row"] == 2 * 2


def test_a_symmetry_that_hidden_code_breaks_is_not_claimed():
    """The calls alone would tell of rescalings; a hidden use of the same unit forbids them."""

    class Bend(Rise):
        @staticmethod
        def forward(x):
            return torch.from_numpy(np.sin(x.detach().numpy()))

        @staticmethod
        def backward(ctx, grad):
            return grad * ctx.saved_tensors[0].cos()

    def forward(s, x):
        h = functional.leaky_relu(s.first(x), 0.1)
        return s.last(h) + Bend.apply(h).sum(-1, keepdim=True)

    e, kinds = explained(fill(Call(forward, **parts()).double(), 1, 1.2), batches(), "gaussian")
    assert kinds == {}
    assert e.radical == 0
    assert all(source.verified == 0 for source in e.sources)
