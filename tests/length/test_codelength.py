import json
import math

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import ChoiceError
from lightlike.length.codelength import CodeLength, as_code_length

LENGTH = CodeLength(
    name="test", total=30.0, fit=20.0, stderr=math.inf, kind="estimated", observations=10,
    note="a note", warnings=("mind",), record={"draws": 3},
)  # fmt: skip


def test_units_and_shares():
    bits = LENGTH.to("bits")
    assert bits.total == pytest.approx(30 / math.log(2))
    assert bits.penalty == pytest.approx(10 / math.log(2))
    assert bits.to("nats").total == pytest.approx(30)
    each = bits.per_observation()
    assert each.fit == pytest.approx(2 / math.log(2))
    assert each.per_observation() is each
    with pytest.raises(ChoiceError, match="'bits'"):
        LENGTH.to("bytes")


def test_as_json():
    plain = json.loads(json.dumps(LENGTH.to_dict(), allow_nan=False))
    assert plain["stderr"] is None
    assert plain["warnings"] == ["mind"]
    assert plain["penalty"] == 10


def test_from_a_description_length():
    torch.manual_seed(0)
    x = torch.randn(9, 2)
    L = ll.description_length(ll.fisher(nn.Linear(2, 1), (x, x[:, :1]), "gaussian"))
    found = as_code_length("razor", L, "note")
    assert (found.total, found.fit, found.kind) == (L.total, L.fit, L.kind)
    assert found.to("bits").total == pytest.approx(L.to("bits").total)
    silent = ll.description_length(ll.fisher(nn.Linear(2, 1), (x,), "gaussian"))
    assert as_code_length("razor", silent) is None
