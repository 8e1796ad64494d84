"""What Hugging Face models say of their initialisation, against their own initialiser."""

import math

import pytest
import torch

import lightlike as ll
from lightlike.errors import PriorError
from lightlike.length.priors import FromInitialisation
from lightlike.problem.problem import Problem

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

from oracles import language_models as small  # noqa: E402

TOKENS = {"input_ids": torch.arange(10).reshape(2, 5) + 1}
KINDS = {
    "gpt2": small.gpt2,
    "bert": small.bert,
    "llama": small.llama,
    "masked bert": lambda: small.bert(head=transformers.BertForMaskedLM),
}


@pytest.mark.parametrize("kind", KINDS)
def test_read_from_the_config_as_a_fresh_model_has_it(kind):
    model = KINDS[kind]()
    problem = Problem(model, [TOKENS], "categorical")
    read = FromInitialisation(constants=7.0).resolve(problem)
    build = lambda: type(model)(model.config)  # noqa: E731
    fresh = FromInitialisation(fresh=build, constants=7.0).resolve(problem)
    assert float(read.variance.min()) > 0
    for entry in problem.selection.entries:
        here = slice(entry.start, entry.stop)
        drawn = read.variance[here] != 7.0
        assert bool(drawn.any()) == bool((fresh.variance[here] != 7.0).any()), entry.name
        if int(drawn.sum()) > 20:
            one, other = read.variance[here][drawn].mean(), fresh.variance[here].mean()
            assert float(other / one) == pytest.approx(1, abs=5 * math.sqrt(2 / entry.size))
    assert bool((read.mean == (read.mean != 0)).all())


def test_residual_projections_of_gpt2():
    problem = Problem(small.gpt2(), [TOKENS], "categorical")
    parts = problem.selection.split(FromInitialisation(constants=1.0).resolve(problem).variance)
    assert float(parts["transformer.h.1.mlp.c_fc.weight"][0, 0]) == pytest.approx(0.02**2)
    assert float(parts["transformer.h.1.mlp.c_proj.weight"][0, 0]) == pytest.approx(0.02**2 / 4)


def test_a_model_with_a_scheme_of_its_own_is_refused():
    tokens = TOKENS["input_ids"]
    data = [{"input_ids": tokens, "decoder_input_ids": tokens}]
    problem = Problem(small.t5(), data, "categorical")
    with pytest.raises(PriorError, match=r"'shared.weight' of a Embedding was initialised is not"):
        FromInitialisation(constants=1.0).resolve(problem)
    model = small.gpt2()
    model.config.n_layer = 200  # as if its residual projections were scaled otherwise
    wrong = Problem(model, [TOKENS], "categorical")
    model._init_weights = lambda module: type(small.gpt2())._init_weights(small.gpt2(), module)
    with pytest.raises(PriorError, match=r"c_proj.weight' of a Conv1D was initialised is not"):
        FromInitialisation(constants=1.0).resolve(wrong)


def test_the_model_is_left_alone(untouched):
    model = small.gpt2()
    problem = Problem(model, [TOKENS], "categorical")
    with untouched(model):
        FromInitialisation(constants=1.0).resolve(problem)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_are_not_guessed():
    peft = pytest.importorskip("peft", reason="the extra `hf` is not installed")
    adapted = peft.get_peft_model(
        small.gpt2(), peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    ).eval()
    F = ll.fisher(adapted, [TOKENS], "categorical")
    with pytest.raises(PriorError, match="lora_A"):
        ll.description_length(F, prior=FromInitialisation(constants=1.0))
