"""The same problem at another point of parameter space."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lightlike as ll


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).eval()


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 3, generator=generator), torch.arange(7) % 3


def _moved(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*other.parameters(), *(b for b in other.buffers() if b.ndim)):
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(2)))
    return other


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_state_dict_gives_the_other_model_with_its_buffers(dtype: str) -> None:
    """Everything at the new point is what a problem made there gives; the old one stays."""
    model, data = _model(), _data()
    other = _moved(model)
    here = ll.fisher(model, data, "categorical", dtype=dtype)
    before = here.root.gram()
    there, direct = here.at(other.state_dict()), ll.fisher(other, data, "categorical", dtype=dtype)
    assert torch.equal(there.root.gram(), direct.root.gram())
    assert torch.equal(there.problem.theta, direct.problem.theta)
    assert there.problem.fingerprint == direct.problem.fingerprint
    assert there.problem.survey.nll is not None
    assert direct.problem.survey.nll is not None
    assert torch.equal(there.problem.survey.nll, direct.problem.survey.nll)
    assert torch.equal(here.root.gram(), before)


def test_a_vector_moves_the_selected_parameters_only() -> None:
    """A selection of layers: the others stay where they were."""
    model, data = _model(), _data()
    here = ll.fisher(model, data, "categorical", parameters=r"^3\.")
    theta = here.problem.theta + 0.25
    expected = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in expected[3].parameters():
            parameter.add_(0.25)
    data = data[0].double(), data[1]
    direct = ll.fisher(expected, data, "categorical", parameters=r"^3\.")
    torch.testing.assert_close(here.at(theta).root.gram(), direct.root.gram())


def test_a_sketched_problem_keeps_its_draws() -> None:
    """The rows at the other point are those of the other point's sketch with the same draws."""
    model, data = _model(), _data()
    other = _moved(model)
    sketch = ll.fisher(model, data, "categorical").sketch(ll.Sketch(draws=1))
    draws = next(iter(sketch.roots())).problem
    moved = draws.at(other.state_dict())
    assert draws.draws is not None
    direct = ll.fisher(other, data, "categorical").problem.sketched(draws.draws)
    assert moved.survey.rows == direct.survey.rows
    assert moved.draws == direct.draws


def test_tied_weights_go_by_any_name() -> None:
    """A state dict names a tied parameter twice."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    other = _moved(model)
    here = ll.fisher(model, _data(), "categorical")
    direct = ll.fisher(other, _data(), "categorical")
    assert torch.equal(here.at(other.state_dict()).problem.theta, direct.problem.theta)


@pytest.mark.parametrize(
    ("theta", "said"),
    [
        (torch.zeros(5), r"shape \(5,\)"),
        ({"3.weight": torch.zeros(3, 4)}, "no entry for"),
        ({"nothing": torch.zeros(3)}, "'nothing'"),
        ({"3.weight": torch.zeros(2, 2)}, r"\(2, 2\)"),
    ],
)
def test_what_does_not_fit_is_told(theta: object, said: str) -> None:
    """Wrong sizes and names are errors."""
    here = ll.fisher(_model(), _data(), "categorical")
    with pytest.raises(ll.errors.ParameterError, match=said):
        here.at(theta)  # type: ignore[arg-type]


def test_a_point_with_infinite_outputs_is_refused() -> None:
    """No metric where the model's outputs are not finite."""
    here = ll.fisher(_model(), _data(), "categorical")
    with pytest.raises(ll.errors.ModelError, match="NaN or infinite"):
        here.at(torch.full_like(here.problem.theta, 1e308))
