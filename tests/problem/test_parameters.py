import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from lightlike.errors import ParameterError
from lightlike.problem.parameters import select


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
        self.norm = nn.LayerNorm(2)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.mix = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embed.weight
        self.again = self.mix


NAMES = ["scale", "body.0.weight", "body.0.bias", "body.2.weight", "norm.weight", "norm.bias"]
SIZES = [1, 12, 4, 8, 2, 2]


def names(selection):
    return [e.name for e in selection.entries]


def test_all_by_default():
    selection = select(Net())
    assert names(selection) == NAMES
    assert [e.size for e in selection.entries] == SIZES
    assert selection.size == 29
    assert (selection.excluded, selection.excluded_size) == ((), 0)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", NAMES),
        (".", NAMES),
        ("weight$", ["body.0.weight", "body.2.weight", "norm.weight"]),
        (r"^body\.0", ["body.0.weight", "body.0.bias"]),
        ("norm|scale", ["scale", "norm.weight", "norm.bias"]),
        (r"(?i)BIAS", ["body.0.bias", "norm.bias"]),
    ],
)
def test_regular_expression(pattern, expected):
    selection = select(Net(), pattern)
    assert names(selection) == expected
    assert selection.size + selection.excluded_size == 29
    assert set(selection.excluded) == set(NAMES) - set(expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1), st.sampled_from([list, tuple, set, iter]))
def test_list_of_names_in_any_order(chosen, kind):
    selection = select(Net(), kind(chosen))
    assert names(selection) == [n for n in NAMES if n in chosen]
    assert selection.size == sum(s for n, s in zip(NAMES, SIZES, strict=True) if n in chosen)
    assert selection.size + selection.excluded_size == 29
    edges = [0, *(e.stop for e in selection.entries)]
    assert [(e.start, e.stop) for e in selection.entries] == list(itertools.pairwise(edges))


def test_layers():
    layers = select(Net()).layers()
    assert {layer: [e.name for e in entries] for layer, entries in layers.items()} == {
        "": ["scale"],
        "body.0": ["body.0.weight", "body.0.bias"],
        "body.2": ["body.2.weight"],
        "norm": ["norm.weight", "norm.bias"],
    }


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 99))
def test_flatten_and_split_are_inverse(chosen, seed):
    model = Net()
    selection = select(model, list(chosen))
    values = {n: p.detach() for n, p in model.named_parameters()}
    flat = torch.randn(selection.size, generator=torch.Generator().manual_seed(seed))
    parts = selection.split(flat)
    assert {n: p.shape for n, p in parts.items()} == {n: values[n].shape for n in chosen}
    assert torch.equal(selection.flatten(parts), flat)
    again = selection.split(selection.flatten(values))
    assert all(torch.equal(again[n], values[n]) for n in chosen)


def test_tied_weights_count_once():
    selection = select(Tied())
    assert names(selection) == ["embed.weight", "mix.weight", "mix.bias", "head.bias"]
    assert selection.size == 15 + 9 + 3 + 5
    assert [e.aliases for e in selection.entries] == [
        ("head.weight",),
        ("again.weight",),
        ("again.bias",),
        (),
    ]


@pytest.mark.parametrize(
    "choice",
    ["^head.weight", "^embed", ["head.weight"], ["embed.weight"], ["head.weight", "embed.weight"]],
    ids=str,
)
def test_tied_weights_are_found_under_any_name(choice):
    selection = select(Tied(), choice)
    assert names(selection) == ["embed.weight"]
    assert selection.size == 15
    assert selection.excluded == ("mix.weight", "mix.bias", "head.bias")


@pytest.mark.parametrize("choice", [None, "body"])
def test_frozen_parameters_are_excluded_and_listed(choice):
    model = Net()
    model.body[0].requires_grad_(False)
    selection = select(model, choice)
    assert "body.2.weight" in names(selection)
    assert not {"body.0.weight", "body.0.bias"} & set(names(selection))
    assert {"body.0.weight", "body.0.bias"} <= set(selection.excluded)
    assert selection.size + selection.excluded_size == 29


def test_parametrised_weights_are_found_by_their_own_names():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)))
    assert names(select(model)) == ["0.bias", *(
        f"0.parametrizations.weight.original{k}" for k in range(2)
    )]  # fmt: skip


def test_empty_parameters_have_no_coordinates():
    model = Net()
    model.nothing = nn.Parameter(torch.zeros(0, 3))
    assert select(model).size == 29


def frozen():
    return Net().requires_grad_(False)


def partly_frozen():
    model = Net()
    model.scale.requires_grad_(False)
    return model


def lazy():
    return nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))


def complex_model():
    model = Net()
    model.wave = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    return model


def shared():
    model = Net()
    model.copy = nn.Parameter(model.body[0].weight.data)
    return model


def shared_view():
    model = Net()
    model.row = nn.Parameter(model.body[0].weight.data[0])
    return model


BAD = {
    "no_parameter": (nn.Tanh, None, "out of 0"),
    "all_frozen": (frozen, None, "No trainable parameter is selected out of 6"),
    "only_frozen_match": (partly_frozen, "scale", "No trainable parameter is selected"),
    "nothing_listed": (Net, [], "No trainable parameter is selected"),
    "no_match": (Net, "conv", "No parameter name matches 'conv'.*'scale', 'body.0.weight'"),
    "bad_expression": (Net, "body(", "'body\\(' is not a valid regular expression"),
    "unknown": (Net, ["scale", "body.0.wieght"], "called 'body.0.wieght'.*'body.0.weight'"),
    "unlike_any": (Net, ["qqq"], "called 'qqq'.*'scale', 'body.0.weight'"),
    "frozen_listed": (partly_frozen, ["scale"], "'scale' is frozen"),
    "not_names": (Net, [3], "called 3"),
    "number": (Net, 3, "parameters=3"),
    "lazy": (lazy, None, "'1.weight' has no shape yet"),
    "complex": (complex_model, None, "'wave' is complex"),
    "meta": (lambda: Net().to("meta"), None, "'scale' is on the meta device"),
    "shared": (shared, None, "'body.0.weight'.*share memory|'copy'.*share memory"),
    "shared_view": (shared_view, None, "share memory"),
}


@pytest.mark.parametrize(("make", "choice", "words"), BAD.values(), ids=BAD)
def test_bad_selections(make, choice, words):
    with pytest.raises(ParameterError, match=words):
        select(make(), choice)


def test_many_names_are_cut_short():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(10)))
    with pytest.raises(ParameterError, match=r"'5.bias' and 8 more"):
        select(model, "conv")


def test_frozen_complex_parameters_are_constants():
    model = complex_model()
    model.wave.requires_grad_(False)
    assert select(model).excluded == ("wave",)


@pytest.mark.parametrize("choice", [None, "body", ["nope"]])
def test_selection_leaves_the_model(untouched, choice):
    model = Net()
    with untouched(model):
        try:
            select(model, choice)
        except ParameterError:
            assert choice == ["nope"]
