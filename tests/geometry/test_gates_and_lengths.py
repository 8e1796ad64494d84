"""Gated units, normalised weights, last layers in any spelling: closed forms and plain counts."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import lightlike as ll
from oracles.dense_roots import nullity as counted
from oracles.networks import Call, fill, normal

INS, WIDTH, OUTS = 3, 5, 2
# The reference differentiates in batches what PyTorch has no batched rule for.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def kinds(explanation):
    found = {}
    for source in explanation.sources:
        if source.dimension:
            found[source.kind] = found.get(source.kind, 0) + source.dimension
    return found


def explained(model, x, head="gaussian", twin=None):
    """An explanation in full, of as many directions as plain differentiation leaves."""
    e = ll.explain(ll.fisher(model, (x,), head))
    assert e.unexplained == 0
    assert e.explained == counted(twin or model, x, head == "categorical")
    assert all(source.verified == source.claimed for source in e.sources)
    return kinds(e)


def layers(*, bias=True, outs=OUTS):
    return dict(
        gate=nn.Linear(INS, WIDTH, bias), value=nn.Linear(INS, WIDTH, bias),
        last=nn.Linear(WIDTH, outs, bias),
    )  # fmt: skip


def halves(function):
    """Gate and value as halves of one layer."""

    def forward(self, x):
        value, gate = self.both(x).chunk(2, -1)
        return self.last(value * function(gate))

    return Call(forward, both=nn.Linear(INS, 2 * WIDTH), last=nn.Linear(WIDTH, OUTS))


def gated(function, **options):
    return Call(
        lambda self, x: self.last(function(self.gate(x)) * self.value(x)), **layers(**options)
    )


GATES = {
    "swish": (lambda: gated(functional.silu), 1),
    "swish without biases": (lambda: gated(functional.silu, bias=False), 1),
    "gelu": (lambda: gated(functional.gelu), 1),
    "sigmoid of halves": (lambda: halves(torch.sigmoid), 1),
    "glu": (lambda: nn.Sequential(nn.Linear(INS, 2 * WIDTH), nn.GLU(), nn.Linear(WIDTH, OUTS)), 1),
    "rectifier": (lambda: gated(functional.leaky_relu), 2),
    "rectifier of halves": (lambda: halves(functional.leaky_relu), 2),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_leaves_a_scale_to_its_value_and_a_rectifier_one_to_the_gate(name):
    build, each = GATES[name]
    model, x = fill(build().double(), 4, 1.2), normal(90, INS)
    assert explained(model, x) == {"rescaling": each * WIDTH}


def test_gates_over_channels():
    stack = [nn.Conv1d(2, 6, 3), nn.GLU(1), nn.Flatten(), nn.Linear(9, OUTS)]
    assert explained(fill(nn.Sequential(*stack).double(), 1, 1.2), normal(80, 2, 5)) == {
        "rescaling": 3
    }


def test_products_of_products():
    """Of (r a)(r b) c each factor keeps a scale of its own; r² of one unit has one for both."""

    def forward(self, x):
        rise = functional.leaky_relu
        return self.last(rise(self.gate(x)) * rise(self.value(x)) * rise(self.more(x)))

    three = Call(forward, more=nn.Linear(INS, WIDTH), **layers())
    x = normal(250, INS)
    assert explained(fill(three.double(), 2, 1.2), x) == {"rescaling": 3 * WIDTH}

    def squared(self, x):
        rise = functional.leaky_relu(self.gate(x))
        return self.last(rise * rise)

    parts = layers()
    two = Call(squared, gate=parts["gate"], last=parts["last"])
    assert explained(fill(two.double(), 2, 1.2), x) == {"rescaling": WIDTH}


def test_a_product_that_is_added_to_a_factor():
    """z = a b + a: a may scale, b may not."""

    def forward(self, x):
        rise = functional.leaky_relu(self.gate(x))
        return self.last(rise * functional.leaky_relu(self.value(x)) + rise)

    model = fill(Call(forward, **layers()).double(), 3, 1.2)
    with torch.no_grad():
        model.value.bias.zero_()  # every unit is on and off
    assert explained(model, normal(120, INS)) == {"rescaling": WIDTH}


def test_a_product_that_is_the_output():
    """What one factor gains, the other loses; rectified, so that nothing else is free."""

    def forward(self, x):
        rise = functional.leaky_relu
        return rise(self.gate(x)) * rise(self.value(x))

    parts = layers()
    model = Call(forward, gate=parts["gate"], value=parts["value"])
    assert explained(fill(model.double(), 3, 1.2), 3 * normal(60, INS)) == {"rescaling": WIDTH}


def test_a_square_that_no_normalisation_takes():
    """A unit that is always on is linear, and yet its square sees a shift."""
    parts = layers()
    model = Call(
        lambda s, x: s.last(functional.leaky_relu(s.gate(x)).square()),
        gate=parts["gate"], last=parts["last"],
    )  # fmt: skip
    fill(model.double(), 2, 1.2)
    with torch.no_grad():
        model.gate.bias[0] = 20.0
    assert explained(model, normal(120, INS)) == {"rescaling": WIDTH}


def test_rescaled_gates_change_neither_dimension_nor_explanation():
    model, x = fill(gated(functional.silu).double(), 4, 1.2), normal(90, INS)
    before, expected = explained(model, x), model(x).detach()
    factor = torch.rand(WIDTH, generator=torch.Generator().manual_seed(0)).double() + 0.5
    with torch.no_grad():
        model.value.weight.mul_(factor[:, None])
        model.value.bias.mul_(factor)
        model.last.weight.div_(factor)
    torch.testing.assert_close(model(x), expected)
    assert explained(model, x) == before


def normalised(*, legacy=False, dim=0):
    """Two layers with normalised weights around tanh."""
    wrap = nn.utils.weight_norm if legacy else parametrizations.weight_norm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(
            wrap(nn.Linear(INS, WIDTH), dim=dim), nn.Tanh(), wrap(nn.Linear(WIDTH, OUTS), dim=dim)
        )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("dim", "lengths"), [(0, WIDTH + OUTS), (1, INS + WIDTH), (None, 2)])
def test_the_length_of_a_normalised_weight_is_free(legacy, dim, lengths):
    model = fill(normalised(legacy=legacy, dim=dim).double(), 2, 1.2)
    # Modules of the old kind cannot be copied.
    twin = fill(normalised(dim=dim).double(), 2, 1.2)
    found = explained(model, normal(60, INS), twin=twin)
    assert found == {"length of a normalised weight": lengths}


def test_lengths_of_kernels():
    first = parametrizations.weight_norm(nn.Conv1d(2, 3, 3))
    model = nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(9, OUTS))
    found = explained(fill(model.double(), 2, 1.2), normal(80, 2, 5))
    assert found == {"length of a normalised weight": 3}


SPELT = {
    "functional": lambda w: functional.normalize(w, dim=1),
    "norm": lambda w: w / w.norm(dim=1, keepdim=True),
    "linalg": lambda w: w / torch.linalg.vector_norm(w, dim=-1, keepdim=True),
}


@pytest.mark.parametrize("way", SPELT)
def test_a_classifier_by_cosines(way):
    """Only directions of the classes' weights count."""

    def forward(self, x):
        return 3.0 * functional.linear(torch.tanh(self.first(x)), SPELT[way](self.rows))

    model = Call(forward, first=nn.Linear(INS, 4), rows=nn.Parameter(torch.zeros(3, 4)))
    found = explained(fill(model.double(), 5, 1.2), normal(60, INS))
    assert found == {"length of a normalised weight": 3}


def test_a_length_that_is_used_is_not_null():
    def forward(self, x):
        return functional.linear(torch.tanh(self.first(x)), self.rows) * self.rows.norm()

    model = Call(forward, first=nn.Linear(INS, 4), rows=nn.Parameter(torch.zeros(3, 4)))
    e = ll.explain(ll.fisher(fill(model.double(), 5), (normal(60, INS),), "gaussian"))
    assert (e.explained, e.unexplained) == (0, 0)


def raw(shape):
    return dict(first=nn.Linear(INS, 4), w=nn.Parameter(torch.zeros(shape)))


B = dict(b=nn.Parameter(torch.zeros(3)))
LAST = {
    "matmul": (lambda s, h, _: h @ s.w + s.b, raw((4, 3)) | B, 5),
    "matmul alone": (lambda s, h, _: h @ s.w, raw((4, 3)), 4),
    "transposed": (lambda s, h, _: h @ s.w.t() + s.b, raw((3, 4)) | B, 5),
    "einsum": (lambda s, h, _: torch.einsum("nh,hk->nk", h, s.w) + s.b, raw((4, 3)) | B, 5),
    "einsum turned": (lambda s, h, _: torch.einsum("kh,nh->nk", s.w, h), raw((3, 4)), 4),
    "addmm": (lambda s, h, _: torch.addmm(s.b, h, s.w), raw((4, 3)) | B, 5),
    "bilinear": (
        lambda s, h, x: s.last(h, x),
        dict(first=nn.Linear(INS, 4), last=nn.Bilinear(4, INS, 3)), 13,
    ),
    "bilinear turned": (
        lambda s, h, x: s.last(x, h),
        dict(first=nn.Linear(INS, 4), last=nn.Bilinear(INS, 4, 3)), 13,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAST)
def test_logits_may_be_shifted_however_the_last_layer_is_written(name):
    """One direction for each of its inputs, and one for the bias."""
    function, parts, count = LAST[name]
    model = Call(lambda s, x: function(s, torch.tanh(s.first(x)), x), **parts)
    fill(model.double(), 6, 1.2)
    assert explained(model, normal(90, INS), "categorical") == {"softmax shift": count}


def test_linear_features_ahead_of_a_bilinear_form_may_be_mixed():
    """W_k ↦ X⁻ᵀ W_k undoes x ↦ X x: r² directions, and no shift, as z is no constant."""

    def forward(self, x, z):
        return self.last(self.first(x), z)

    model = Call(forward, first=nn.Linear(INS, 2, bias=False), last=nn.Bilinear(2, 3, 4))
    fill(model.double(), 3, 1.2)
    x, z = normal(80, INS, seed=1), normal(80, 3, seed=2)
    e = ll.explain(ll.fisher(model, [((x, z), None)], "gaussian"))
    assert kinds(e) == {"linear factorisation": 4}
    assert e.explained == counted(model, (x, z)) == e.radical
