import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError
from lightlike.length.description import DescriptionLength, KnownCounts

SCALED = (
    "fit", "displacement", "complexity", "dimension_term", "spectrum_term", "tuning_cost", "stderr",
)  # fmt: skip


def example(**changes):
    fields = {
        "fit": 40.0, "displacement": 3.0, "complexity": 5.0, "counts": KnownCounts(8, 4.5),
        "tuning_cost": 1.5, "stderr": 0.25, "kind": "estimated",
        "observations": 20, "prior": {"name": "isotropic", "variance": 1.0},
    }  # fmt: skip
    return DescriptionLength(**{**fields, **changes})


def test_terms_add_up():
    length = example()
    assert length.dimension_term == 4 * math.log(20)
    assert length.spectrum_term == 5.0 - length.dimension_term
    assert length.total == 48.0
    assert (length.units, length.scale) == ("nats", 1.0)


@pytest.mark.parametrize("missing", ["fit", "displacement"])
def test_no_total_without_labels(missing):
    length = example(**{missing: None})
    for form in (length, length.to("bits"), length.per_observation()):
        assert form.total is None
        assert getattr(form, missing) is None
        assert form.complexity > 0


def test_bits_and_back():
    length = example()
    bits = length.to("bits")
    assert bits.units == "bits"
    for field in SCALED:
        assert getattr(bits, field) == pytest.approx(getattr(length, field) / math.log(2))
    assert bits.total == pytest.approx(48 / math.log(2))
    for field in ("dimension", "effective_dimension", "kind", "observations", "prior", "scale"):
        assert getattr(bits, field) == getattr(length, field)
    assert length.to("nats") == length
    assert bits.to("bits") == bits
    back = bits.to("nats")
    assert [getattr(back, f) for f in SCALED] == pytest.approx([getattr(length, f) for f in SCALED])


def test_per_observation():
    length = example()
    each = length.per_observation()
    for field in SCALED:
        assert getattr(each, field) == pytest.approx(getattr(length, field) / 20)
    assert each.total == pytest.approx(2.4)
    assert each.scale == 1 / 20
    assert each.effective_dimension == length.effective_dimension
    assert each.per_observation() == each
    both = length.to("bits").per_observation(), each.to("bits")
    for form in both:
        assert form.total == pytest.approx(2.4 / math.log(2))
        assert (form.units, form.scale) == ("bits", 1 / 20)


@pytest.mark.parametrize("units", ["bit", "NATS", "", None])
def test_unknown_units(units):
    with pytest.raises(ChoiceError, match="'nats', 'bits'"):
        example().to(units)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().fit = 0.0


@pytest.mark.parametrize("changes", [{}, {"displacement": None}, {"units": "bits", "scale": 0.05}])
def test_to_a_dictionary_and_back(changes):
    length = example(**changes)
    terms = length.to_dict()
    assert DescriptionLength.from_dict(terms) == length
    assert terms["total"] == length.total
    assert terms["spectrum_term"] + terms["dimension_term"] == pytest.approx(5.0)
    for name, value in terms.items():
        assert f"{name}={value!r}" in repr(length)


def test_a_prior_that_is_not_gaussian_adds_a_term():
    length = example(
        name="interpolating", prior_term=-2.0, effective_draws=31.5, validity="Near an optimum."
    )
    assert length.total == 46.0
    assert length.to("bits").prior_term == pytest.approx(-2.0 / math.log(2))
    assert length.per_observation().total == pytest.approx(2.3)
    for form in (length.to("bits"), length.per_observation()):
        assert (form.effective_draws, form.name) == (31.5, "interpolating")
        assert form.total == pytest.approx(
            form.fit + form.displacement + form.complexity + form.prior_term
        )
    assert DescriptionLength.from_dict(length.to_dict()) == length


def test_terms_saved_before_there_were_other_lengths():
    terms = example().to_dict()
    for name in ("name", "prior_term", "effective_draws", "validity", "error"):
        del terms[name]
    assert DescriptionLength.from_dict(terms) == example()


class Pending:
    """Counts that are noticed when they are asked for."""

    asked = 0

    @property
    def dimension(self):
        self.asked += 1
        return 8

    @property
    def effective_dimension(self):
        self.asked += 1
        return 4.5


def test_counts_are_asked_for_when_they_are_read():
    counts = Pending()
    length = example(counts=counts)
    for form in (length, length.to("bits"), length.per_observation().to("bits")):
        assert form.total == pytest.approx(form.fit + form.displacement + form.complexity)
    assert counts.asked == 0
    for form in (length, length.to("bits"), length.per_observation()):
        known = form.settled()
        counts.asked = 0
        same = example().to(form.units)
        assert known == (same if form.scale == 1.0 else same.per_observation())
        assert known.dimension_term == form.dimension_term
        assert counts.asked == 1
        assert "dimension_term" in repr(form)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(9, 3)
    return model, x, torch.arange(9) % 3


def test_units_of_a_measurement(pair):
    model, x, y = pair
    nats, bits = (
        ll.measure(model, (x, y), "categorical", units=u, progress=False) for u in ("nats", "bits")
    )
    assert nats.length.units == "nats"
    assert bits.length.units == "bits"
    assert bits.length.total == pytest.approx(nats.length.total / math.log(2))
    assert bits.criteria == nats.criteria
    assert torch.equal(bits.nll, nats.nll)
    assert f"BIC with D {nats.criteria['bic'] / math.log(2):.1f}" in str(bits)
    with pytest.raises(ChoiceError):
        ll.measure(model, (x, y), "categorical", units="bans", progress=False)


def test_without_labels_terms_are_absent_not_zero(pair):
    model, x, y = pair
    bare = ll.measure(model, (x,), "categorical", progress=False)
    full = ll.measure(model, (x, y), "categorical", progress=False)
    assert bare.length.fit is None
    assert bare.length.displacement is None
    assert bare.length.total is None
    assert bare.nll is None
    assert bare.length.complexity == full.length.complexity > 0
    assert bare.length.effective_dimension == full.length.effective_dimension
    np.testing.assert_array_equal(bare.spectrum.eigenvalues, full.spectrum.eigenvalues)
    assert bare.length.per_observation().to("bits").total is None


def test_fit_is_the_sum_of_the_losses(pair):
    model, x, y = pair
    m = ll.measure(model, (x, y), "categorical", progress=False)
    losses = nn.functional.cross_entropy(model.double()(x.double()), y, reduction="none")
    torch.testing.assert_close(m.nll, losses.detach(), rtol=1e-12, atol=0)
    assert m.length.fit == pytest.approx(float(m.nll.sum()), rel=1e-13)
