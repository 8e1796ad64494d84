"""What is no option is refused as such, before anything is computed."""

import math

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError, DataError, PriorError
from lightlike.length.priors import FromInitialisation, Isotropic, PerLayer, PerParameter
from lightlike.numbers import check_positive, check_seed, check_whole

X = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]


def line():
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.5)
    return model


@pytest.fixture(scope="module", name="F")
def fisher():
    noise = torch.tensor([0.1, -0.1] * 6, dtype=torch.float64)[:, None]
    return ll.fisher(line(), (X, 0.5 * X + noise), "gaussian")


LENGTHS = {
    "variational": ll.lengths.variational,
    "noise variance": ll.lengths.noise_variance,
    "interpolating": lambda F, **o: ll.lengths.interpolating(F, epsilon=1.0, **o),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_no_prior_is_the_normal_one(F, name):
    def total(**options):
        found = LENGTHS[name](F, **options)
        return getattr(found, "length", found).total

    assert total() == total(prior=None) == total(prior=Isotropic(1.0))
    with pytest.raises(ChoiceError, match="prior"):
        total(prior=1.0)


CALLS = {
    "table draws": lambda F: ll.lengths.table(F, draws="x"),
    "table seed": lambda F: ll.lengths.table(F, seed="a"),
    "table half draws": lambda F: ll.lengths.table(F, draws=2.5),
    "waic seed": lambda F: ll.lengths.waic(F, seed="a"),
    "waic draws": lambda F: ll.lengths.waic(F, draws=True),
    "variational seed": lambda F: ll.lengths.variational(F, seed="a"),
    "variational draws": lambda F: ll.lengths.variational(F, draws="x"),
    "interpolating seed": lambda F: ll.lengths.interpolating(F, epsilon=1.0, seed=0.5),
    "interpolating epsilon": lambda F: ll.lengths.interpolating(F, epsilon=True),
    "tolerance": lambda F: ll.lengths.rissanen(F, bounds=(-2, 2), tolerance="x"),
    "rissanen draws": lambda F: ll.lengths.rissanen(F, bounds=(-2, 2), draws="x"),
    "rissanen seed": lambda F: ll.lengths.rissanen(F, bounds=(-2, 2), seed="a"),
    "bounds": lambda F: ll.lengths.rissanen(F, bounds="x"),
    "ragged bounds": lambda F: ll.lengths.rissanen(F, bounds=[(0, 1), (2,)]),
    "one bound": lambda F: ll.lengths.rissanen(F, bounds=1.0),
    "complex bounds": lambda F: ll.lengths.rissanen(F, bounds=(0j, 1j)),
    "named bounds": lambda F: ll.lengths.rissanen(F, bounds={"weight": "x"}),
    "location radius": lambda _: ll.lengths.nml_location([0.0], radius="1"),
    "location variance": lambda _: ll.lengths.nml_location([0.0], radius=1.0, variance=True),
    **{
        f"effective dimension {name}={value!r}": lambda _, o={name: value}: (
            ll.effective_dimension(line(), (X,), "gaussian", **o)
        )
        for name, value in [
            ("draws", 2.5), ("draws", "x"), ("radius", "1"), ("seed", "a"), ("n", "9"),
            ("gamma", "1"),
        ]
    },
    **{
        f"learning coefficient {name}={value!r}": lambda _, o={name: value}: (
            ll.learning_coefficient(line(), (X, X), "gaussian", **o)
        )
        for name, value in [
            ("draws", 100.5), ("chains", "4"), ("seed", "a"), ("localisation", "1"),
            ("temperature", True), ("burn_in", None), ("step_size", [1]),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_options_that_are_none(F, name):
    with pytest.raises(ChoiceError, match="is not a choice"):
        CALLS[name](F)


@pytest.mark.parametrize(
    "y", ["a", ["a", "b"], [[1.0], [1.0, 2.0]], None, [1j, 2.0], torch.tensor([1j]), [object()]]
)
def test_locations_that_are_no_numbers(y):
    with pytest.raises(DataError, match=r"no array of numbers|complex"):
        ll.lengths.nml_location(y, radius=1.0)


def test_locations_keep_their_digits():
    y = [0.1, 0.2, 1 / 3]
    expected = sum((v - sum(y) / 3) ** 2 for v in y) / 2 + 1.5 * math.log(2 * math.pi)
    assert ll.lengths.nml_location(y, radius=1.0).fit == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Isotropic(True),
        lambda: PerLayer({".*": True}),
        lambda: Isotropic(mean=True).resolve(ll.fisher(line(), (X,), "gaussian").problem),
    ],
)
def test_truth_is_no_variance(make):
    with pytest.raises(PriorError):
        make()


def test_variances_of_no_parameter():
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)).double().eval()
    model[0].bias.requires_grad_(False)
    problem = ll.fisher(model, (X,), "gaussian").problem
    names = [entry.name for entry in problem.selection.entries]
    given = dict.fromkeys(names, 2.0)
    with pytest.raises(PriorError, match=r"'typo' gives no parameter.*'0\.weight'"):
        PerParameter({**given, "typo": 3.0}).resolve(problem)
    # Variances of what is frozen, and means of that and of buffers, do no harm.
    start = model.state_dict()
    found = PerParameter({**given, "0.bias": 1.0}, mean=start).resolve(problem)
    assert torch.equal(found.mean, problem.theta)
    assert torch.equal(Isotropic(mean=start).resolve(problem).mean, problem.theta)
    resolved = FromInitialisation(constants=1.0, mean=start).resolve(problem)
    assert torch.equal(resolved.mean, problem.theta)


def test_checks_name_the_option_and_the_choice():
    for value in (True, 1.0, "1", None, 1):
        with pytest.raises(ChoiceError, match=r"rounds=.*whole number, 2 or more"):
            check_whole("rounds", value, 2)
    for value in (True, 0, -1.0, math.inf, math.nan, "1", 1j):
        with pytest.raises(ChoiceError, match=r"width=.*finite number above 0"):
            check_positive("width", value)
    for value in (False, 0.5, "a", None, 2**63):
        with pytest.raises(ChoiceError, match="seed="):
            check_seed(value)
    check_whole("rounds", 2, 2)
    check_positive("width", 1)
    check_seed(-1)
