import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.errors import DataError, DeterminismError, ModelError
from lightlike.integrations.huggingface import prepare

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

from oracles import language_models as small  # noqa: E402

IGNORED = -100


class Smoothed(transformers.GPT2LMHeadModel):
    def forward(self, input_ids, attention_mask=None, labels=None, **kwargs):
        result = super().forward(input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        if result.loss is not None:
            result.loss = 0.9 * result.loss + 0.1 * result.logits.logsumexp(-1).mean()
        return result


class Holder:
    model = small.gpt2()


def silent():
    model = small.gpt2()
    nn.init.zeros_(model.transformer.ln_f.weight)
    nn.init.zeros_(model.transformer.ln_f.bias)
    return model


def smoothed():
    return small.build(Smoothed, small.gpt2().config)


def headless():
    return small.bert(transformers.BertModel)


def tuples():
    return small.bert(num_labels=3, return_dict=False)


def masked():
    return small.bert(transformers.BertForMaskedLM)


TOKENS = small.sentences(4, 3)
LISTS = {name: value.tolist() for name, value in TOKENS.items()}
ROW = {name: value[0] for name, value in TOKENS.items()}
CLASSES = torch.tensor([0, 2])
MISTAKES = {
    "trainer": (Holder, TOKENS, ModelError, "Pass its attribute .model"),
    "name of a model": (lambda: "gpt2", TOKENS, ModelError, "from_pretrained"),
    "no head": (headless, TOKENS, ModelError, "AutoModelFor"),
    "another module": (lambda: nn.Linear(2, 2), torch.ones(3, 2), ModelError, "directly"),
    "tuples": (tuples, {**TOKENS, "labels": CLASSES}, ModelError, "return_dict"),
    "no labels": (masked, TOKENS, DataError, "does not predict the next token"),
    "no labels to decode": (small.t5, TOKENS, DataError, "does not predict the next token"),
    "lists": (small.gpt2, [LISTS], DataError, "return_tensors"),
    "examples": (small.gpt2, [ROW], DataError, "collator"),
    "generation": (small.gpt2, [{**TOKENS, "max_new_tokens": 3}], DataError, "max_new_tokens"),
    "text": (small.gpt2, [{**TOKENS, "text": ["a", "b"]}], DataError, "'text'"),
    "positions": (small.gpt2, [((*TOKENS.values(),), CLASSES)], DataError, "without names"),
    "other loss": (smoothed, TOKENS, ModelError, "smoothed loss"),
    "constant": (silent, TOKENS, ModelError, "same logits"),
    "all ignored": (
        small.gpt2,
        [{**TOKENS, "labels": torch.full((2, 4), IGNORED)}],
        DataError,
        "No label",
    ),
    "embeddings": (
        small.gpt2,
        [{"inputs_embeds": torch.randn(2, 4, 8)}],
        DataError,
        "neither",
    ),
    "training": (lambda: small.gpt2().train(), TOKENS, DeterminismError, "eval"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_usual_mistakes(mistake):
    model, data, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message):
        prepare(model(), data)


def test_measuring_a_trainer_names_its_model():
    with pytest.raises(ModelError, match=r"Pass its attribute \.model"):
        ll.measure(Holder(), TOKENS, "categorical")


FAULTS = ["copied", "some ignored", "another token", "first ignored", "prepared"]


@pytest.mark.parametrize("fault", FAULTS)
def test_labels_that_copy_the_input_are_told(fault):
    model, tokens = small.gpt2(), small.sentences(4, 4)["input_ids"]
    labels = tokens.clone()
    if fault == "some ignored":
        labels[0, 1:3] = IGNORED
    elif fault == "another token":
        labels[1, 2] = (labels[1, 2] + 1) % small.VOCABULARY
    data = [{"input_ids": tokens, "labels": labels}]
    if fault == "first ignored":
        data.insert(0, {"input_ids": tokens, "labels": torch.full_like(tokens, IGNORED)})
    pair = model, data
    pair = prepare(*pair) if fault == "prepared" else pair
    m = ll.measure(*pair, "categorical", parameters="ln_f")
    told = any("huggingface.prepare" in warning for warning in m.warnings)
    assert told == (fault in ("copied", "some ignored"))
