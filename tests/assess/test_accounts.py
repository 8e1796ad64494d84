"""Sources of null directions and saturation inside a measurement, from the call to the file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError
from oracles.networks import mlp, normal


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(4)
    model = mlp([3, 6, 3], "leaky").double().eval()
    x = normal(40, 3)
    return model, (x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


@pytest.fixture(scope="module")
def measured(problem):
    return ll.measure(
        *problem, "categorical", progress=False, explain=True, saturation=True, seed=3
    )


def test_numbers_are_those_of_the_single_questions(problem, measured):
    """And of the naive rank of dense rows, and of the closed form D − units − (f + 1)."""
    F = ll.fisher(*problem, "categorical")
    assert measured.explanation == ll.explain(F).summary()
    assert measured.saturation == ll.saturation(F, seed=3)
    assert measured.dimension == ll.dimension(F, explanation=ll.explain(F))
    A = F.root.dense().numpy()
    assert np.linalg.matrix_rank(A) == int(measured.dimension) == measured.parameters - 6 - 7
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3)).numpy()
    rows = A.reshape(40, -1, A.shape[1])[order]
    for n, d in zip(measured.saturation.sizes, measured.saturation.dimensions, strict=True):
        assert int(d) == np.linalg.matrix_rank(rows[:n].reshape(-1, A.shape[1]))


def test_the_dimension_is_proven_twice_only_where_directions_were_named(problem, measured):
    assert measured.dimension.proven_twice
    assert measured.dimension.bound == "symmetries"
    bare = ll.measure(*problem, "categorical", progress=False)
    assert not bare.dimension.proven_twice
    assert bare.explanation is bare.saturation is None
    assert bare.dimension.value == measured.dimension.value
    assert "sources" not in str(bare)


def test_they_are_printed(measured):
    text = str(measured)
    assert "proven twice" in text
    assert "13 of 13 null directions explained: softmax shift 7, rescaling 6" in text
    assert measured.saturation.verdict in text
    assert len(text.splitlines()) <= 20


def test_they_are_saved(measured, tmp_path):
    measured.save(tmp_path / "m.safetensors")
    again = ll.load(tmp_path / "m.safetensors")
    assert again.explanation == measured.explanation
    assert again.saturation == measured.saturation
    assert again.dimension == measured.dimension
    assert str(again) == str(measured)
    assert again._repr_html_() == measured._repr_html_()


def test_files_without_them_are_read(measured, tmp_path):
    """As earlier versions wrote them: neither entry is there."""
    from lightlike import store

    dataclasses.replace(measured, explanation=None, saturation=None).save(tmp_path / "a")
    tensors, header = store.read(tmp_path / "a")
    for name in ("explanation", "saturation"):
        assert header.pop(name) is None
    header["record"].pop("asked")
    store.write(tmp_path / "b", tensors, header)
    again = ll.load(tmp_path / "b")
    assert again.explanation is again.saturation is None
    assert "not measured" in ll.report(again, tmp_path / "b.html").read_text(encoding="utf-8")


def test_float32_names_directions_but_does_not_saturate(problem):
    """Named directions are decided in float64 whatever the spectrum is computed in."""
    m = ll.measure(*problem, "categorical", progress=False, dtype="float32", explain=True)
    assert m.explanation.certain == 13
    assert (m.dimension.kind, m.dimension.upper) == ("certified", m.parameters - 13)
    assert not m.dimension.proven_twice
    with pytest.raises(ChoiceError, match="float64"):
        ll.measure(*problem, "categorical", progress=False, dtype="float32", saturation=True)


@pytest.mark.parametrize("name", ["explain", "saturation"])
def test_what_cannot_be_had_is_refused_first(problem, name, monkeypatch):
    """Before anything is decomposed."""
    monkeypatch.setattr(ll.Fisher, "decomposition", lambda *_: pytest.fail("computed"))
    monkeypatch.setattr(ll.Fisher, "sketch", lambda *_, **__: pytest.fail("computed"))
    for wrong in ({"method": "sketch", name: True}, {name: "yes"}):
        with pytest.raises(ChoiceError, match=name):
            ll.measure(*problem, "categorical", progress=False, **wrong)


def test_a_spectrum_that_is_there_is_not_computed_again(problem, monkeypatch):
    F = ll.fisher(*problem, "categorical")
    s = ll.spectrum(F).settled()
    expected = ll.explain(F).summary()
    G = ll.fisher(*problem, "categorical")
    monkeypatch.setattr(ll.Fisher, "decomposition", lambda *_: pytest.fail("computed"))
    assert ll.explain(G, spectrum=s).summary() == expected


def test_what_is_excluded_and_untraced_is_said():
    """Frozen parameters, and models whose calls cannot be followed."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)
            self.frozen = nn.Linear(2, 2).requires_grad_(False)

        def forward(self, x):
            return self.inner(self.frozen(x)) if float(x.sum()) > -1e9 else x

    torch.manual_seed(0)
    m = ll.measure(Odd().eval(), (normal(5, 2).float(),), "gaussian", progress=False, explain=True)
    assert m.explanation.notes[0].startswith("Not counted: frozen.weight, frozen.bias")
    assert all(note in m.explanation._repr_html_() for note in m.explanation.notes)
    assert all(note.split(":")[0] in str(m.explanation) for note in m.explanation.notes)
