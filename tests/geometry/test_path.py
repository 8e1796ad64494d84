"""Fisher–Rao lengths of paths, against distances in closed form."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import nn

import lightlike as ll
from oracles.networks import Call, fill, mlp, normal


def logit(p):
    return math.log(p / (1 - p))


def constant(size):
    """Outputs that are parameters, whatever the input."""
    return Call(lambda self, x: self.h.expand(len(x), -1), h=nn.Parameter(torch.zeros(size)))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_bernoulli(p, q):
    """2 |arcsin √p − arcsin √q|, the distance on the circle."""
    F = ll.fisher(constant(1), (torch.zeros(3, 1),), "bernoulli")
    length = ll.fisher_length(F, [torch.tensor([logit(p)]), torch.tensor([logit(q)])])
    expected = 2 * abs(math.asin(math.sqrt(p)) - math.asin(math.sqrt(q)))
    # Points are float32 here; the path is between those.
    assert float(length) == pytest.approx(expected, rel=2e-6, abs=1e-7)
    assert length.error <= 1e-6 * length.value


def test_gaussian_location_is_euclidean_over_sigma():
    model = nn.Linear(1, 2).double()
    F = ll.fisher(model, (torch.zeros(4, 1),), ll.likelihoods.Gaussian(variance=0.25), ["bias"])
    points = [torch.tensor(p, dtype=torch.float64) for p in ([0.0, 0.0], [3.0, 4.0], [3.0, 5.0])]
    length = ll.fisher_length(F, points)
    assert float(length) == pytest.approx(12.0, rel=1e-14)
    assert length.segments == pytest.approx((10.0, 2.0))
    assert length.error < 1e-12
    assert length.evaluations == 2 * 8 * 3 * 4


def test_softmax_biases_against_an_integral_over_the_simplex():
    """∫ 2 |d√p/dt| dt: the metric is the round one of the sphere p ↦ 2√p."""
    start, stop = normal(4, seed=1), 2 * normal(4, seed=2)

    def speed(t):
        h = start + t * (stop - start)
        p = torch.softmax(h, 0)
        rate = p * ((stop - start) - (p * (stop - start)).sum())
        return float((rate.square() / p).sum().sqrt())

    F = ll.fisher(constant(4), (torch.zeros(2, 1),), "categorical")
    length = ll.fisher_length(F, [start, stop], relative_error=1e-9)
    assert float(length) == pytest.approx(quad(speed, 0, 1, epsrel=1e-12)[0], rel=1e-9)
    # No path is shorter than the great circle.
    p, q = torch.softmax(start, 0), torch.softmax(stop, 0)
    assert float(length) >= 2 * math.acos(float((p * q).sqrt().sum()))
    assert float(ll.fisher_length(F, [start, start + 1.0])) < 1e-14


def test_poisson():
    """2 |√a − √b| between rates a and b."""
    F = ll.fisher(constant(1), (torch.zeros(3, 1),), "poisson")
    a, b = (torch.tensor([x], dtype=torch.float64) for x in (math.log(0.3), math.log(20.0)))
    expected = 2 * (math.sqrt(20.0) - math.sqrt(0.3))
    assert float(ll.fisher_length(F, [a, b], relative_error=1e-9)) == pytest.approx(expected, 1e-9)


def test_checkpoints_segments_and_the_way_back():
    model = fill(mlp([3, 4, 3], "tanh").double(), 0)
    x = normal(8, 3)
    F = ll.fisher(model, (x,), "categorical")
    other = fill(copy.deepcopy(model), 1)
    theta = F.problem.theta
    there = F.at(other.state_dict()).problem.theta
    length = ll.fisher_length(F, [model.state_dict(), other.state_dict()])
    middle = ll.fisher_length(F, [theta, (theta + there) / 2, there])
    back = ll.fisher_length(F, [there, theta])
    assert len(middle.segments) == 2
    assert sum(middle.segments) == pytest.approx(middle.value)
    assert float(length) == pytest.approx(float(middle), rel=2e-6)
    assert float(length) == pytest.approx(float(back), rel=2e-6)

    def speed(t):
        A = F.at(theta + t * (there - theta)).root.dense()
        return float((A @ (there - theta)).norm())

    assert float(length) == pytest.approx(quad(speed, 0, 1, epsrel=1e-6)[0], rel=2e-6)
    near = theta + 1e-3 * normal(len(theta), seed=4)
    step = float((F.root.dense() @ (near - theta)).norm())
    assert float(ll.fisher_length(F, [theta, near])) == pytest.approx(step, rel=1e-2)


def test_a_rescaling_has_length_nothing():
    """Along the curve that moves weights through a leaky unit, chords are nearly radical."""
    model = fill(mlp([2, 3, 2], "leaky").double(), 0)
    F = ll.fisher(model, (normal(6, 2),), "gaussian")
    points, ordinary = [], []
    for scale in torch.linspace(1.0, 1.02, 4, dtype=torch.float64):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            moved[0].weight[0] *= scale
            moved[0].bias[0] *= scale
            moved[2].weight[:, 0] /= scale
        points.append(F.at(moved.state_dict()).problem.theta)
        ordinary.append(F.problem.theta + (scale - 1.0) * normal(len(points[0]), seed=2))
    lengths = [float(ll.fisher_length(F, p, relative_error=0.01)) for p in (points, ordinary)]
    assert lengths[0] < 0.02 * lengths[1]


def test_a_straight_line_in_the_radical_has_length_nothing():
    model = fill(mlp([2, 3, 3], "tanh").double(), 0)
    F = ll.fisher(model, (normal(6, 2),), "categorical")
    shift = torch.cat([torch.zeros(9), torch.eye(3)[1].repeat(3), torch.ones(3)]).double()
    length = ll.fisher_length(F, [F.problem.theta, F.problem.theta + shift])
    assert length.value <= length.error < 1e-14
    assert ll.subspaces(F)[0].contains(shift)


def test_what_is_no_path_is_refused():
    F = ll.fisher(fill(mlp([2, 2], "tanh").double(), 0), (normal(4, 2),), "gaussian")
    theta = F.problem.theta
    with pytest.raises(ll.errors.ChoiceError, match="two points"):
        ll.fisher_length(F, [theta])
    with pytest.raises(ll.errors.ChoiceError, match="between 0 and 1"):
        ll.fisher_length(F, [theta, theta], relative_error=0.0)
    for options in ({"relative_error": "a"}, {"evaluations": -3}):
        with pytest.raises(ll.errors.ChoiceError, match=next(iter(options))):
            ll.fisher_length(F, [theta, theta], **options)
    with pytest.raises(ll.errors.ParameterError, match=r"\(3,\)"):
        ll.fisher_length(F, [theta, torch.zeros(3)])


@pytest.mark.slow
def test_an_error_that_is_not_reached_is_no_length():
    F = ll.fisher(constant(1), (torch.zeros(3, 1),), "bernoulli")
    ends = [torch.tensor([-300.0]), torch.tensor([301.0])]
    with pytest.raises(ll.errors.ConsistencyError, match="96 evaluations"):
        ll.fisher_length(F, ends, evaluations=4)
    assert float(ll.fisher_length(F, ends)) == pytest.approx(math.pi, rel=1e-6)


@pytest.mark.parametrize("seed", [7, 39, 40, 42, 55])
def test_the_error_covers_where_units_switch(seed):
    """The speed jumps there; held against the midpoint rule on the written-out derivative."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    x = torch.randn(1 + seed % 3, 2, dtype=torch.float64)
    F = ll.fisher(model, (x,), "gaussian")
    start = F.problem.theta
    step = 3 * torch.randn_like(start)
    times = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    w, b, v, _ = (start + times[:, None] * step).split([8, 4, 4, 1], 1)
    dw, db, dv, dc = step.split([8, 4, 4, 1])
    inner = torch.einsum("thi,xi->txh", w.view(-1, 4, 2), x) + b[:, None]
    rise = (x @ dw.view(4, 2).T + db) * (inner > 0)
    change = (v[:, None] * rise).sum(-1) + inner.relu() @ dv + dc
    truth = float(change.square().mean(1).sqrt().mean())
    length = ll.fisher_length(F, [start, start + step])
    assert abs(length.value - truth) <= length.error + 1e-4 * truth
    assert length.error <= 1e-3 * length.value + 1e-12
