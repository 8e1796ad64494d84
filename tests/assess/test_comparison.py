"""Several networks on the same data."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor, nn

import lightlike as ll
from lightlike.assess.comparison import paired_error
from lightlike.errors import ChoiceError, ComparisonError


def net(width: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.LeakyReLU(0.1), nn.Linear(width, 3))


def data(n: int = 20, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def made(model: nn.Module, what: tuple[Tensor, ...] | None = None, **options) -> ll.Measurement:
    likelihood = options.pop("likelihood", "categorical")
    return ll.measure(model, what or data(), likelihood, progress=False, **options)


@pytest.fixture(scope="module")
def measured() -> dict[str, ll.Measurement]:
    return {f"net {w}": made(net(w, seed=w)) for w in (2, 5, 9)}


def test_sorted_by_length_with_paired_errors(measured):
    """Differences and standard errors as written out by hand from the losses."""
    found = ll.compare(measured)
    totals = {name: m.length.total for name, m in measured.items()}
    assert [e.name for e in found.entries] == sorted(totals, key=totals.__getitem__)
    best = measured[found.best.name]
    assert found.best.difference == 0.0
    assert found.best.stderr == 0.0
    x, y = data()
    for entry in found.entries[1:]:
        m = measured[entry.name]
        assert entry.difference == pytest.approx(m.length.total - best.length.total)
        losses = [
            nn.functional.cross_entropy(
                net(int(name[4:]), seed=int(name[4:]))(x), y, reduction="none"
            )
            for name in (entry.name, found.best.name)
        ]
        apart = (losses[0] - losses[1]).detach().double()
        expected = math.sqrt(len(apart)) * float(apart.std(correction=1))
        assert entry.stderr == pytest.approx(expected, rel=1e-5)
        assert (entry.dimension, entry.parameters) == (int(m.dimension), m.parameters)


def test_the_error_covers_what_new_data_change(measured):
    """Fits of two fixed networks on many samples: the difference varies as the error says."""
    x, y = data(40 * 200, seed=5)
    losses = [
        nn.functional.cross_entropy(net(3, seed=s)(x), y, reduction="none").detach().double()
        for s in (1, 2)
    ]
    one, two = (
        [dataclasses.replace(measured["net 2"], nll=part) for part in loss.split(40)]
        for loss in losses
    )
    errors = torch.tensor([paired_error(a, b) for a, b in zip(one, two, strict=True)])
    differences = torch.tensor(
        [float((a.nll - b.nll).sum()) for a, b in zip(one, two, strict=True)]
    )
    assert 0.85 < float(differences.std() / errors.mean()) < 1.15


def test_units_and_held_out_scores(measured):
    """Bits are nats over log 2, everywhere."""
    nats, bits = ll.compare(measured, held_out={"net 5": 1.5}), ll.compare(measured, units="bits")
    for a, b in zip(nats.entries, bits.entries, strict=True):
        for field in ("total", "difference", "stderr", "fit", "complexity", "displacement"):
            assert getattr(b, field) == pytest.approx(getattr(a, field) / math.log(2))
    scores = {e.name: e.held_out for e in nats.entries}
    assert scores == {"net 2": None, "net 5": 1.5, "net 9": None}
    assert "1.5000" in str(nats)
    assert "—" in str(nats)


def test_saved_results_compare_without_model_or_data(measured, tmp_path):
    """Paths do as well as measurements."""
    for name, m in measured.items():
        m.save(tmp_path / name)
    assert ll.compare({name: tmp_path / name for name in measured}) == ll.compare(measured)


def test_one_network_alone(measured):
    """It is the best, and there is no order to doubt."""
    found = ll.compare({"it": measured["net 2"]})
    assert found.best.name == "it"
    assert len(found.warnings) == len([w for w in found.warnings if "notes of their own" in w])


def test_the_cost_of_choosing_is_told(measured):
    """log M for the best of M."""
    assert any(f"{math.log(3):.1f} nats" in w for w in ll.compare(measured).warnings)


def test_networks_that_cannot_be_told_apart_are_named(measured):
    """The same network twice."""
    twice = {"a": measured["net 2"], "b": made(net(2, seed=2))}
    found = ll.compare(twice)
    assert found.entries[1].difference == 0.0
    assert any("could turn the order" in w for w in found.warnings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(what=data(20, seed=2)), "different data"),
        (dict(prior=ll.priors.Isotropic(2.0)), "different priors"),
        (dict(prior=ll.priors.Isotropic(1.0, mean=0.5)), "different priors"),
        (dict(likelihood=ll.likelihoods.Categorical(ignore_index=1)), "different"),
        (dict(what=data()[:1]), "without labels"),
    ],
)
def test_unlike_things_are_refused(measured, options, said):
    """Data, likelihood, prior, labels; fingerprints are named."""
    other = made(net(4), **options)
    with pytest.raises(ComparisonError, match=said) as caught:
        ll.compare({"first": measured["net 2"], "second": other})
    if said == "different data":
        for m in (measured["net 2"], other):
            assert m.record["fingerprint"]["data"][:16] in str(caught.value)


def spread(value):
    return ll.priors.PerParameter({name: value for name, _ in net(2).named_parameters()}, mean=0.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (spread(0.01), spread(100.0)),
        (
            ll.priors.FromInitialisation(constants=0.01),
            ll.priors.FromInitialisation(constants=100.0),
        ),
        (
            ll.priors.Isotropic(mean=net(2, 7).state_dict()),
            ll.priors.Isotropic(mean=net(2, 8).state_dict()),
        ),
    ],
)
def test_priors_of_one_name_are_told_apart_by_their_numbers(one, other):
    """The same network under two priors is no comparison of networks."""
    pair = {"one": made(net(2), prior=one), "other": made(net(2), prior=other)}
    with pytest.raises(ComparisonError, match="different priors"):
        ll.compare(pair)
    same = {"one": pair["one"], "again": made(net(2, seed=4), prior=one)}
    assert len(ll.compare(same).entries) == 2


def test_other_mistakes(measured):
    """Nothing, unknown units, a score of nobody."""
    with pytest.raises(ComparisonError, match="nothing to compare"):
        ll.compare({})
    with pytest.raises(ChoiceError, match="'nats', 'bits'"):
        ll.compare(measured, units="bytes")
    with pytest.raises(ChoiceError, match="a mapping"):
        ll.compare([measured["net 2"]])
    with pytest.raises(ChoiceError, match="finite"):
        ll.compare(measured, held_out={"net 2": math.nan})
    assert len(ll.compare({1: measured["net 2"], 2: measured["net 5"]}).entries) == 2
    with pytest.raises(ComparisonError, match="one name"):
        ll.compare({1: measured["net 2"], "1": measured["net 5"]})
    with pytest.raises(ChoiceError, match="'net 7'"):
        ll.compare(measured, held_out={"net 7": 1.0})


def test_as_json_text_and_html(measured):
    """All forms hold all networks."""
    found = ll.compare(measured)
    again = json.loads(json.dumps(found.to_dict()))
    assert [e["name"] for e in again["entries"]] == [e.name for e in found.entries]
    for text in (str(found), found._repr_html_()):
        assert all(name in text for name in measured)
    assert "<script" not in found._repr_html_()


def test_names_are_escaped(measured):
    """A name is text, in markup of terminals and pages too."""
    found = ll.compare({"[red]<b>x</b>": measured["net 2"]})
    assert "[red]<b>x</b>" in str(found)
    assert "<b>" not in found._repr_html_()


def test_as_a_frame(measured):
    """A row a network."""
    pytest.importorskip("pandas")
    frame = ll.compare(measured).to_frame()
    assert list(frame.index) == [e.name for e in ll.compare(measured).entries]
    assert float(frame["total"].iloc[0]) == ll.compare(measured).best.total


def test_sketches_are_not_compared_with_whole_measurements(measured):
    sketched = made(net(4), method=ll.Sketch(draws=1))
    with pytest.raises(ComparisonError, match="row sketches"):
        ll.compare({"whole": measured["net 2"], "sketched": sketched})
