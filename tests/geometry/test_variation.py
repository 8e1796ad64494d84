"""The dimension along a path and near a point."""

import json

import pytest
import torch

import lightlike as ll
from geometry.test_saturation import generic
from lightlike.errors import ChoiceError, ModelError, ParameterError
from lightlike.geometry.variation import _draw
from oracles.networks import Call, normal

WIDTHS = [3, 8, 2]
D = 50


@pytest.fixture(scope="module", name="F")
def fisher():
    return ll.fisher(generic(WIDTHS), (normal(80, 3, seed=1),), "gaussian")


def fading(F, names, share):
    """θ with a hidden unit's weights under some names scaled down."""
    theta = F.problem.theta.clone()
    parts = F.problem.selection.split(theta)
    for name in names:
        column = parts[name][:, 2] if name == "2.weight" else parts[name][2]
        column.mul_(share)
    return theta


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (["2.weight"], 4),  # its 3 incoming weights and its bias reach nothing
        # tanh(0) = 0 and tanh'(0) = 1: its 2 outgoing weights multiply nothing, and its bias does
        # what those of the outputs do.
        (["0.weight", "0.bias"], 3),
        (["0.weight", "0.bias", "2.weight"], 6),
    ],
)
def test_a_unit_that_fades_takes_its_directions_with_it(F, names, lost):
    points = [fading(F, names, share) for share in (1.0, 0.5, 0.0)]
    path = ll.dimension_path(F, points)
    assert [int(d) for d in path.dimensions] == [D, D, D - lost]
    assert {d.kind for d in path.dimensions} == {"exact"}
    assert path.distances[0] == 0.0
    assert path.distances[2] == pytest.approx(2 * path.distances[1])
    near = ll.dimension_near(F.at(points[2]), 0.5, draws=3)
    assert int(near.here) == D - lost
    assert near.counts == {D: 3}
    assert (near.least, near.greatest, near.generic) == (D, D, D)
    assert near.singular
    assert f"at least {lost} short of it" in str(near)


def test_a_generic_point_is_not_singular(F):
    near = ll.dimension_near(F, 1e-3, 3, region="sphere")
    assert not near.singular
    assert near.counts == {D: 3}
    assert near == ll.dimension_near(F, 1e-3, 3, region="sphere")
    assert "no point drawn shows" in str(near)


def test_checkpoints_as_state_dicts(F):
    other = generic(WIDTHS, seed=9)
    flat = torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    path = ll.dimension_path(F, iter([generic(WIDTHS).state_dict(), other.state_dict(), flat]))
    assert [int(d) for d in path.dimensions] == [D, D, D]
    assert path.distances[1] == path.distances[2]
    assert path.distances[1] == pytest.approx(float((flat - F.problem.theta).norm()), rel=1e-12)


def test_a_straight_line(F):
    other = generic(WIDTHS, seed=9)
    flat = torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    there = ll.fisher(other, (normal(5, 3),), "gaussian")
    for end in (flat, other.state_dict(), there):
        line = ll.between(F, end, 4)
        assert len(line) == 4
        assert torch.equal(line[0], F.problem.theta)
        assert torch.equal(line[3], flat)
        torch.testing.assert_close(line[1], F.problem.theta * 2 / 3 + flat / 3)


@pytest.mark.parametrize("D", [1, 3, 200])
def test_points_are_uniform_in_ball_and_sphere(D):
    """E ‖u‖² / r² = D / (D + 2) in a ball; coordinates have variance r² / D on a sphere."""
    random = torch.Generator().manual_seed(0)
    centre = torch.full((D,), 3.0, dtype=torch.float64)
    ball = torch.stack([_draw(centre, 2.0, "ball", random) for _ in range(800)]) - centre
    sphere = torch.stack([_draw(centre, 2.0, "sphere", random) for _ in range(800)]) - centre
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((800,), 2.0, dtype=torch.float64))
    shares = ball.square().sum(1) / 4
    assert float(shares.max()) <= 1.0
    spread = float(shares.std()) / 800**0.5
    assert abs(float(shares.mean()) - D / (D + 2)) < 4 * spread
    assert float(sphere.mean(0).norm()) < 4 * 2.0 / 800**0.5


def test_points_that_do_not_fit_are_named(F):
    theta = F.problem.theta
    with pytest.raises(ParameterError, match=r"^Point 1: The point has shape \(3,\)"):
        ll.dimension_path(F, [theta, theta[:3]])
    with pytest.raises(ParameterError, match=r"^Point 0: .*not finite"):
        ll.dimension_path(F, [theta * float("nan")])
    with pytest.raises(ModelError, match=r"^Point 1: .*NaN"):
        ll.dimension_path(F, [theta, torch.full_like(theta, 1e308)])
    with pytest.raises(ParameterError, match=r"^The end of the line"):
        ll.between(F, theta[:3], 4)


def test_choices(F):
    with pytest.raises(ChoiceError, match="no points"):
        ll.dimension_path(F, [])
    with pytest.raises(ChoiceError, match="2 or more"):
        ll.between(F, F.problem.theta, 1)
    for option, bad in {"radius": 0.0, "draws": 0, "region": "cube"}.items():
        with pytest.raises(ChoiceError, match=option):
            ll.dimension_near(F, **{"radius": 1.0, option: bad})


def test_the_world_is_left_as_it_was(untouched):
    model, x = generic(WIDTHS), normal(30, 3)
    with untouched(model, x):
        F = ll.fisher(model, (x,), "gaussian")
        near = ll.dimension_near(F, 0.1, 2, seed=3)
        path = ll.dimension_path(F, ll.between(F, 0 * F.problem.theta, 3), "svd")
    assert int(path.dimensions[-1]) == 2  # the last layer's biases
    for result in (near, path):
        json.dumps(result.to_dict(), allow_nan=False)
        assert max(map(len, str(result).splitlines())) <= 100


def test_lower_precision_is_never_called_exact():
    model = Call(lambda self, x: self.net[1:](self.net[0](x).float().double()), net=generic(WIDTHS))
    F = ll.fisher(model.eval(), (normal(40, 3),), "gaussian")
    near = ll.dimension_near(F, 0.1, 2)
    assert near.generic == max(d.lower for d in (near.here, *near.dimensions))
    assert {d.kind for d in near.dimensions if d.lower < d.upper} <= {"certified"}
