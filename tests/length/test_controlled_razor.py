"""Control variates at work: the razor by quadrature with the help of an approximation."""

import numpy as np
import pytest
import torch

import lightlike as ll
from lightlike.errors import CapacityError, ChoiceError
from lightlike.length.gaussian import expand
from lightlike.length.stochastic import stochastic_razor
from lightlike.metric.kronecker.control import control_of
from lightlike.metric.operator import FisherOperator
from lightlike.spectrum.control import Control
from lightlike.spectrum.quadrature import CONTROLS, Quadrature
from oracles import networks as nets

X = nets.normal(60, 5, seed=1)
Y = torch.arange(60) % 4
UNEQUAL = ll.priors.PerLayer({"0": 0.3, ".*": 2.0})


class Dense:
    """Î written out, in the place of products."""

    def __init__(self, F):
        self.matrix, self.shape, self.device = F.dense(), F.shape, F.device
        self.precision, self.problem, self.root = F.root.precision, F.problem, F.root

    def __matmul__(self, v):
        return self.matrix @ v


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(nets.fill(nets.mlp([5, 9, 4], "tanh"), 0), (X, Y), "categorical")


@pytest.mark.parametrize("form", CONTROLS)
def test_forms_of_probes_and_their_expectation(F, form):
    """Against the entries of log(I + c M), for the probes that the quadrature took."""
    options = Quadrature(probes=8, deflate=5, control=form)
    M = control_of(F.root, options, "1 GB")
    density = ll.density(F, options, seed=3)
    Q, n = density.vectors, F.shape[0]
    values, U = torch.linalg.eigh(M.dense())
    log = (U * torch.log1p(60.0 * values.clamp_min(0.0))) @ U.T
    P = torch.eye(n, dtype=torch.float64) - Q @ Q.T
    f = torch.log1p(60.0 * density.control.values)
    assert float(f @ density.control.shares) == pytest.approx(float((P @ log).trace()), rel=1e-9)
    plain = ll.density(F, Quadrature(probes=8, deflate=5), seed=3)
    forms = f @ density.control.squares
    for index in range(8):
        # Probes are told by the parts of Î that they see: zᵀÎz is the first coefficient.
        random = torch.Generator().manual_seed(_stream(3, index))
        z = P @ torch.randn(n, generator=random, dtype=torch.float64)
        z *= (n - 5) ** 0.5 / z.norm()
        seen = float(z @ (F @ z)) / (n - 5)
        assert seen == pytest.approx(float(plain.probes[index].alphas[0]), rel=1e-9)
        assert float(z @ log @ z) == pytest.approx(float(forms[index]), rel=1e-9)


def _stream(seed, index):
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    return int(state) % 2**63


@pytest.mark.parametrize(("name", "seeds"), [
    ("equal", 40), pytest.param("equal", 300, marks=pytest.mark.slow),
    pytest.param("unequal", 300, marks=pytest.mark.slow),
])  # fmt: skip
def test_unbiased_shorter_and_covering(F, name, seeds):
    """90 % intervals; over 300 seeds their share has a standard error of 1.7 %, over 40 of 5 %."""
    prior = {"equal": ll.priors.Isotropic(1.0), "unequal": UNEQUAL}[name]
    exact = ll.description_length(F, prior=prior)
    covered, off, widths = [], [], []
    for seed in range(seeds):
        steered, plain = (
            stochastic_razor(
                Dense(F), prior, expand(F.problem),
                Quadrature(probes=12, deflate=5, control=control), seed=seed,
            )
            for control in ("ekfac", None)
        )  # fmt: skip
        low, high = steered.interval(0.9)
        covered.append(low <= exact.total <= high)
        off.append(steered.length.complexity - exact.complexity)
        widths.append((steered.length.stderr, plain.length.stderr))
        assert steered.complexity.degrees == 11
    error = np.std(off) / seeds**0.5
    assert abs(np.mean(off)) < 4 * error
    assert np.mean(covered) == pytest.approx(0.9, abs=0.9 / seeds**0.5)
    shorter = np.mean(widths, 0)
    assert shorter[0] < 0.9 * shorter[1]
    assert np.std(off) == pytest.approx(shorter[0], rel=2.5 / seeds**0.5)


def test_other_sums_are_steered_too(F):
    options = Quadrature(probes=30, deflate=5, control="blocks")
    steered, plain = (ll.density(F, o, seed=1) for o in (options, Quadrature(30, deflate=5)))
    truth = ll.spectrum(F)
    for of in (
        lambda d: (d.trace, truth.trace),
        lambda d: (d.squared_norm, float(truth.eigenvalues.square().sum())),
        lambda d: (d.effective_dimension(0.02), truth.effective_dimension(0.02)),
        lambda d: (d.sum(lambda t: 3.0 + t, positive=True), 3.0 * F.shape[0] + truth.trace),
    ):
        found, expected = of(steered)
        assert abs(found.value - expected) < 4 * found.stderr + found.bracket
        assert found.stderr < of(plain)[0].stderr
    # Blocks of layers have the exact diagonal blocks: of a matrix of one block nothing is left.
    alone = ll.fisher(nets.fill(nets.mlp([5, 9, 4], "tanh"), 0), (X,), "categorical", ["0.weight"])
    found = ll.density(alone, options, seed=1)
    assert found.logdet(60.0).stderr < 1e-3
    assert found.logdet(60.0).value == pytest.approx(ll.spectrum(alone).logdet(60.0), abs=1e-2)
    # A count is no smooth function, and not steered.
    assert steered.above(0.01) == plain.above(0.01)


def test_where_nothing_is_left_to_chance():
    found = ll.density(torch.eye(4, dtype=torch.float64), Quadrature(deflate=4))
    assert found.control is None
    zero = Control(*(torch.zeros(s, dtype=torch.float64) for s in (3, (3, 8), 3)))
    q = nets.normal(8, seed=1)
    assert zero.steer(torch.log1p, q).value == pytest.approx(float(q.mean()))


def test_a_measurement_and_its_plan():
    model = nets.fill(nets.mlp([5, 9, 4], "tanh"), 0)
    options = Quadrature(probes=12, control="ekfac")
    plain, steered = (
        ll.measure(model, (X, Y), "categorical", method=m, prior=p, progress=False, seed=4)
        for m, p in ((Quadrature(probes=12), None), (options, UNEQUAL))
    )
    exact = ll.measure(model, (X, Y), "categorical", prior=UNEQUAL, progress=False)
    assert abs(steered.length.total - exact.length.total) < 4 * steered.length.stderr
    assert steered.record["quadrature"]["control"] == "ekfac"
    assert plain.record["quadrature"]["control"] is None
    assert torch.equal(plain.spectrum.eigenvalues, steered.spectrum.eigenvalues)
    plan = ll.plan(model, (X, Y), "categorical", method=options)
    assert "ekfac as control" in str(plan)
    without = ll.plan(model, (X, Y), "categorical", method=Quadrature(probes=12))
    assert plan.memory > without.memory


def test_what_is_refused(F):
    with pytest.raises(ChoiceError, match="'diagonal'"):
        Quadrature(control="diagonal")
    with pytest.raises(ChoiceError, match="8 or more"):
        Quadrature(probes=7, control="ekfac")
    with pytest.raises(ChoiceError, match="Fisher matrix"):
        ll.density(torch.eye(4), Quadrature(control="ekfac"))
    with pytest.raises(CapacityError, match="memory"):
        stochastic_razor(
            FisherOperator(F), UNEQUAL, expand(F.problem), Quadrature(control="blocks"), memory=100
        )
