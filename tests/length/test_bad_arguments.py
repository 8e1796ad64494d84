"""Arguments of the wrong kind get typed errors, whatever they are."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import LightlikeError

P, L = ll.priors, ll.lengths
NOT_NUMBERS = ["1", True, None, 1j, b"x", [1], {}, object(), math.nan]
NOT_POSITIVE = [*NOT_NUMBERS, -1, 0, math.inf]
NOT_WHOLE = [*NOT_NUMBERS, 1.5, -1, math.inf, np.float64(2.5), torch.tensor(2.0)]
NOT_OBJECTS = ["1", 1.5, True, [1], {}, object(), torch.tensor(1.0), np.float64(1.0)]


def problem():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=g, dtype=torch.float64)
    y = x.sum(1, keepdim=True) + torch.randn(20, 1, generator=g, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    return model, x, y


MODEL, X, Y = problem()


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(MODEL, (X, Y), "gaussian")


def sampled(**options):
    given = {"chains": 2, "draws": 8, "burn_in": 2, "rank": False, "steps": 2}
    return ll.learning_coefficient(MODEL, (X, Y), "gaussian", **{**given, **options})


def volume(**options):
    return ll.effective_dimension(MODEL, (X,), "gaussian", **{"draws": 4, **options})


# Each takes a Fisher matrix and the wrong value.
CASES = {
    "Isotropic": (NOT_POSITIVE, lambda _, v: P.Isotropic(v)),
    "Isotropic mean": (
        [v for v in NOT_NUMBERS if v is not None],
        lambda F, v: ll.description_length(F, prior=P.Isotropic(mean=v)),
    ),
    "PerLayer": ([*NOT_NUMBERS, 2.0], lambda F, v: ll.description_length(F, prior=P.PerLayer(v))),
    "PerLayer rule": ([*NOT_NUMBERS, -1], lambda _, v: P.PerLayer({".*": v})),
    "PerParameter": (NOT_POSITIVE, lambda F, v: L.variational(F, prior=P.PerParameter(v))),
    "PerParameter entry": (
        [*NOT_NUMBERS, -1, math.inf, torch.ones(2), torch.ones(3, dtype=torch.complex64)],
        lambda F, v: ll.description_length(F, prior=P.PerParameter({"weight": v})),
    ),
    "FromInitialisation fresh": (
        [v for v in NOT_WHOLE if v is not None],
        lambda _, v: P.FromInitialisation(fresh=v),
    ),
    "FromInitialisation constants": (
        [v for v in (*NOT_NUMBERS, -1) if v is not None],
        lambda _, v: P.FromInitialisation(constants=v),
    ),
    "FromInitialisation seed": (NOT_WHOLE, lambda _, v: P.FromInitialisation(seed=v)),
    "spectrum": (NOT_OBJECTS, lambda F, v: ll.description_length(F, spectrum=v)),
    "epsilon": (NOT_POSITIVE, lambda F, v: L.interpolating(F, epsilon=v)),
    "interpolating draws": (NOT_WHOLE, lambda F, v: L.interpolating(F, epsilon=1.0, draws=v)),
    "interpolating seed": (
        [v for v in NOT_WHOLE if v != -1],
        lambda F, v: L.interpolating(F, epsilon=1.0, seed=v),
    ),
    "posterior": ([*NOT_OBJECTS, None], lambda F, v: L.variational(F, posterior=v)),
    "variational draws": (NOT_WHOLE, lambda F, v: L.variational(F, draws=v)),
    "bounds": ([*NOT_OBJECTS, None], lambda F, v: L.rissanen(F, bounds=v)),
    "bound": (NOT_NUMBERS, lambda F, v: L.rissanen(F, bounds=(v, 5.0))),
    "no volume": ([-5.0, 5.0, 6.0], lambda F, v: L.rissanen(F, bounds=(v, -5.0))),
    "counts": ([v for v in NOT_NUMBERS if v != [1]] + [1.5, -1, 0], lambda _, v: L.nml(v)),
    "count": ([*NOT_NUMBERS, 1.5, -1, torch.ones(2)], lambda _, v: L.nml([3, v])),
    "tic method": (NOT_OBJECTS, lambda F, v: L.tic(F, method=v)),
    "waic draws": (NOT_WHOLE, lambda F, v: L.waic(F, draws=v)),
    "coefficient": ([*NOT_OBJECTS, None], lambda _, v: L.singular(v)),
    "include": ([1.5, True, 1j, object(), "aic", [1]], lambda F, v: L.table(F, include=v)),
    "table draws": (NOT_WHOLE, lambda F, v: L.table(F, include=["aic"], draws=v)),
    "units": ([*NOT_OBJECTS, None], lambda F, v: L.table(F, include=["aic"], units=v)),
    "radius": (
        [v for v in NOT_POSITIVE if v is not None],
        lambda _, v: volume(radius=v),
    ),
    "gamma": (NOT_POSITIVE, lambda _, v: volume(gamma=v)),
    "effective n": ([v for v in NOT_WHOLE if v is not None], lambda _, v: volume(n=v)),
    "effective draws": (NOT_WHOLE, lambda _, v: volume(draws=v)),
    "effective prior": (NOT_OBJECTS, lambda _, v: volume(prior=v)),
    **{
        f"coefficient {name}": (NOT_WHOLE, lambda _, v, name=name: sampled(**{name: v}))
        for name in ("chains", "draws", "burn_in", "steps")
    },
    "temperature": (
        [v for v in NOT_POSITIVE if v is not None],
        lambda _, v: sampled(temperature=v),
    ),
    "localisation": (NOT_POSITIVE, lambda _, v: sampled(localisation=v)),
    "sampler": ([*NOT_OBJECTS, None], lambda _, v: sampled(sampler=v)),
    "method": ([*NOT_OBJECTS, None], lambda _, v: sampled(method=v)),
    "step size": ([*NOT_POSITIVE], lambda _, v: sampled(step_size=v)),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_values(F, case):
    values, call = CASES[case]
    for value in values:
        try:
            found = call(F, value)
        except LightlikeError as error:
            assert error.remedy  # noqa: PT017 — which value was taken is told below
        else:
            pytest.fail(f"{case} took {value!r}: {found}")


PRIORS = ["interpolating", "variational", "waic", "loo", "noise_variance", "table"]


@pytest.mark.parametrize("name", [*PRIORS, "rissanen", "tic", "criteria", "description_length"])
def test_what_is_no_fisher_matrix_or_no_prior(F, name):
    more = {"interpolating": {"epsilon": 1.0}, "rissanen": {"bounds": (-1.0, 1.0)}}.get(name, {})
    call = getattr(L, name, None) or ll.description_length
    for value in ("1", None, MODEL, F.root, torch.ones(2, 2)):
        with pytest.raises(LightlikeError, match="F="):
            call(value, **more)
    if name in PRIORS and name not in ("table", "loo"):
        for value in NOT_OBJECTS:
            with pytest.raises(LightlikeError, match="prior="):
                call(F, prior=value, **more)


def test_a_prior_of_another_model(F):
    other = nn.Linear(4, 1, bias=False)
    for prior in (
        P.PerParameter(torch.ones(4)), P.Isotropic(mean=other.state_dict()),
        P.PerLayer({".*": 1.0}, mean={"bias": torch.ones(1)}), P.FromInitialisation(fresh=other),
        P.PerParameter({"weight": torch.full((1, 3), math.nan)}),
        P.Isotropic(mean={"weight": torch.full((1, 3), math.inf)}),
    ):  # fmt: skip
        with pytest.raises(ll.errors.PriorError):
            ll.description_length(F, prior=prior)


@pytest.mark.parametrize(
    "call",
    [
        lambda F: ll.description_length(F, prior=P.Isotropic("evidence")),
        L.variational,
        L.waic,
        L.tic,
        L.noise_variance,
        lambda F: L.rissanen(F, bounds=(-5.0, 5.0)),
        lambda _: ll.learning_coefficient(MODEL, (X,), "gaussian"),
    ],
)
def test_labels_that_are_missing(call):
    with pytest.raises(LightlikeError, match="labels"):
        call(ll.fisher(MODEL, (X,), "gaussian"))


def test_numbers_of_numpy_are_numbers(F):
    plain = L.interpolating(F, epsilon=1.0, draws=8, seed=3)
    same = L.interpolating(F, epsilon=np.float64(1.0), draws=np.int64(8), seed=np.int64(3))
    assert same.total == plain.total
    assert P.Isotropic(10**30).resolve(F.problem).variance[0] == 1e30
    assert L.waic(F, draws=20, seed=np.int64(1)).total == L.waic(F, draws=20, seed=1).total
