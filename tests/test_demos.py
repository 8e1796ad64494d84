import pytest
import torch

import lightlike as ll
from lightlike.demos import accuracy, load_digits, train_mlp


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_digits_are_split_without_overlap_or_loss(digits):
    assert len(digits.train[0]) + len(digits.held_out[0]) == 1797
    assert digits.train[0].shape[1:] == (64,)
    assert 0 <= float(digits.train[0].min()) <= float(digits.train[0].max()) <= 1
    other = load_digits(1)
    assert not torch.equal(other.train[0], digits.train[0])


def test_training_learns_and_leaves_the_random_state(digits):
    before = torch.get_rng_state()
    model = train_mlp(digits)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert accuracy(model, digits.held_out) > 0.9


@pytest.mark.slow
def test_demo_measures_what_it_trained(tmp_path, digits):
    path = tmp_path / "digits.safetensors"
    m = ll.demo(progress=False, out=path)
    dead = int((digits.train[0].abs().sum(0) == 0).sum())
    hidden, last = 32, 16
    # Rescalings of leaky units, softmax shifts, and weights of pixels that are never on.
    assert int(m.dimension) <= m.parameters - hidden - (last + 1) - 16 * dead
    assert m.length.total < 0.25 * m.criteria["uniform"]
    assert m.record["held_out"]["accuracy"] > 0.9
    assert len(str(m).splitlines()) <= 19
    assert ll.load(path).length == m.length
    assert ll.load(path).record["held_out"] == m.record["held_out"]
