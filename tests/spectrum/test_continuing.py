"""A search that is cut off goes on from the last state, with the same result to the bit."""

import pytest
import torch
from products_only import Operator

import lightlike as ll
from lightlike import store
from lightlike.errors import ChoiceError
from oracles.matrices import planted

CASES = {
    "plain": ([1 / (1 + i) ** 2 for i in range(120)], {"count": 4}),
    "copies, missed at first": ([2.0] * 4 + [0.6**i for i in range(50)], {"count": 6}),
    "blocks": ([0.8**i for i in range(60)], {"count": 4, "block": 3}),
    "restarts": (
        [1 - i / 120 for i in range(120)],
        {"count": 2, "memory": 8 * 120 * 40, "chance": 1e-2},
    ),
    "low rank": ([3.0, 2.0, 1.0] + [0.0] * 40, {"count": 5}),
}


class KilledError(Exception):
    pass


def same(one, other):
    for name in ("eigenvalues", "eigenvectors", "residuals", "errors"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.beyond, one.noise, one.products, one.reasons) == (
        other.beyond, other.noise, other.products, other.reasons,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_from_any_step(case):
    values, options = CASES[case]
    full = planted(values)
    states = []
    whole = ll.lanczos(full, **options, keep=lambda s: states.append(copied(s)))
    assert len(states) > 5
    if case == "restarts":
        assert "restarts" in whole.reasons[1]
    # Every one of the first and last, and some between: each takes the rest of the search.
    for state in [*states[:3], *states[3:-4:11], *states[-4:]]:
        same(ll.lanczos(full, **options, state=state), whole)


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("at", [1, 9, 20])
def test_killed_and_continued_from_a_file(at, tmp_path):
    values, options = CASES["plain"]
    full = planted(values)
    path = tmp_path / "state.safetensors"
    done = 0

    def keep(state):
        nonlocal done
        store.write(path, state, {"kind": "lanczos"})
        done += 1
        if done == at:
            raise KilledError

    with pytest.raises(KilledError):
        ll.lanczos(full, **options, keep=keep)
    operator = Operator(full)
    found = ll.lanczos(operator, **options, state=store.read(path)[0])
    whole = ll.lanczos(full, **options)
    same(found, whole)
    assert operator.count == whole.products - at  # nothing is done twice


@pytest.mark.parametrize(
    "other", [{"count": 5}, {"seed": 1}, {"block": 2}, {"tolerance": 1e-6}, {"chance": 1e-3}]
)
def test_states_of_another_search_are_refused(other):
    full = planted(CASES["plain"][0])
    states = []
    ll.lanczos(full, 4, keep=states.append)
    with pytest.raises(ChoiceError, match="another search"):
        ll.lanczos(full, **{"count": 4, **other}, state=states[0])
    with pytest.raises(ChoiceError, match="another search"):
        ll.lanczos(full, 4, state={})
