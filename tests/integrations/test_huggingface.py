import copy
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightlike as ll
from lightlike.integrations.huggingface import prepare
from oracles.reference import whitened

transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
peft = pytest.importorskip("peft", reason="the extra `hf` is not installed")

from oracles import language_models as small  # noqa: E402

EPS = np.finfo(np.float64).eps
IGNORED = -100


def shifted(labels):
    """The label of each position for a model of the next token, written out."""
    out = torch.full_like(labels, IGNORED)
    for sentence in range(len(labels)):
        for position in range(labels.shape[1] - 1):
            out[sentence, position] = labels[sentence, position + 1]
    return out


def hidden(batch):
    """The tokens as labels, padding ignored."""
    return torch.where(batch["attention_mask"] == 1, batch["input_ids"], IGNORED)


class Logits(nn.Module):
    """A model that takes its arguments by position and returns the logits alone."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def naive(model, reference):
    """A from backward passes of a float64 copy, with all that its code calls float32 in float64."""
    names = list(reference[0][0])
    tuples = [(tuple(inputs[n] for n in names), labels) for inputs, labels in reference]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(Tensor, "float", Tensor.double)
        return whitened(Logits(model, names), tuples, "categorical", ignore_index=IGNORED)


def compare(model, batches, plain, reference):
    """Assert that rows of A are those of the naive reference, which has batches of its own."""
    rows = naive(plain, reference)
    fisher = ll.fisher(model, batches, "categorical")
    scale, square = (rows**2).sum(), rows.T @ rows
    dense = fisher.root.dense().numpy()
    assert abs(dense.T @ dense - square).max() <= 1e-12 * scale
    assert abs(fisher.dense().numpy() - square).max() <= 1e-12 * scale
    gram = fisher.root.gram().numpy()
    assert abs(gram - dense @ dense.T).max() <= 1e-12 * scale
    values = np.linalg.svd(rows, compute_uv=False)[: len(gram)] ** 2
    found = np.linalg.eigvalsh(gram)[::-1][: len(values)]
    assert abs(found - values).max() <= 1e-12 * scale
    assert fisher.root.precision == EPS
    return fisher


def own_loss(model, data, first):
    """The mean over all labels of a model's own loss, in a float64 copy, and their number.

    Args:
        model: The model.
        data: Batches with labels.
        first: First position whose label is used: a next token has one from the second on.
    """
    double = copy.deepcopy(model).double()
    counts = [int((batch["labels"][:, first:] != IGNORED).sum()) for batch in data]
    with torch.no_grad():
        losses = [float(double(**batch).loss) for batch in data]
    return float(np.average(losses, weights=counts)), sum(counts)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_classifier_with_padding(attention):
    model = small.bert(attention=attention, num_labels=3)
    batches = [small.sentences(5, 3), small.sentences(4, 2, 1, seed=1)]
    labels = [torch.tensor([2, 0]), torch.tensor([1, 1, 0])]
    data = [{**b, "labels": y} for b, y in zip(batches, labels, strict=True)]
    fisher = compare(*prepare(model, data), model, list(zip(batches, labels, strict=True)))
    assert fisher.problem.survey.observations == 5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_next_token_of_tied_gpt2(attention):
    model = small.gpt2(attention)
    batches = [small.sentences(5, 3), small.sentences(4, seed=1)]
    labels = [hidden(b) for b in batches]
    labels[0][0, 2] = IGNORED
    data = [{**b, "labels": y} for b, y in zip(batches, labels, strict=True)]
    twin, aligned = prepare(model, data)
    reference = [(b, shifted(y)) for b, y in zip(batches, labels, strict=True)]
    fisher = compare(twin, aligned, model, reference)
    assert fisher.problem.survey.observations == 3 + 2 + 3
    # 50 · 8 tokens, tied to the head; 8 · 8 positions; two blocks; the last normalisation.
    block = (8 * 24 + 24) + (8 * 8 + 8) + (8 * 12 + 12) + (12 * 8 + 8) + 4 * 8
    assert fisher.shape[0] == 50 * 8 + 8 * 8 + 2 * block + 2 * 8
    assert model.lm_head.weight is model.transformer.wte.weight


def test_casts_to_float32_cost_no_digits():
    model = small.llama("eager")
    batch = small.sentences(4, 3)
    labels = shifted(hidden(batch))
    unprepared = ll.fisher(model, [{**batch, "labels": labels}], "categorical").root
    assert unprepared.precision == np.finfo(np.float32).eps
    fisher = compare(*prepare(model, [batch]), model, [(batch, labels)])
    dimension = ll.dimension(fisher)
    assert dimension.kind == "exact"
    assert int(dimension) == np.linalg.matrix_rank(naive(model, [(batch, labels)]))


def language_model(kind):
    if kind == "masked":
        return small.bert(transformers.BertForMaskedLM)
    if kind == "tokens":
        return small.bert(transformers.BertForTokenClassification, num_labels=4)
    return {"causal": small.gpt2, "rotary": small.llama, "decoder": small.t5}[kind]()


@pytest.mark.parametrize("kind", ["masked", "tokens", "causal", "rotary", "decoder"])
def test_mean_nll_is_the_models_own_loss(kind):
    model = language_model(kind)
    batches = [small.sentences(5, 3, 2), small.sentences(4, 4, seed=1)]
    data = []
    for batch in batches:
        labels = hidden(batch) % 4 if kind == "tokens" else hidden(batch)
        labels = labels.masked_fill((batch["attention_mask"] == 0), IGNORED)
        labels[0, :2] = IGNORED
        data.append({**batch, "labels": labels})
    twin, aligned = prepare(model, data)
    survey = ll.fisher(twin, aligned, "categorical").problem.survey
    first = 1 if kind in ("causal", "rotary") else 0
    loss, counted = own_loss(model, data, first)
    assert (survey.observations, aligned.shift) == (counted, first)
    assert float(survey.nll.mean()) == pytest.approx(loss, rel=1e-6)


def test_encoder_and_decoder():
    model = small.t5()
    batch = small.sentences(3, 2)
    labels = torch.tensor([[4, 9, 1], [7, 1, IGNORED]])
    twin, aligned = prepare(model, [{**batch, "labels": labels}])
    late = torch.tensor([[0, 4, 9], [0, 7, 1]])
    inputs = {**batch, "decoder_input_ids": late}
    fisher = compare(twin, aligned, model, [(inputs, labels)])
    assert fisher.problem.survey.observations == 5


def test_images():
    model = small.vit()
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 2, 1])
    twin, batches = prepare(model, {"pixel_values": x, "labels": y})
    compare(twin, batches, model, [({"pixel_values": x}, y)])


def test_multiple_choice():
    model = small.bert(transformers.BertForMultipleChoice)
    batch = {name: t.view(2, 3, -1) for name, t in small.sentences(4, 3, 2, 4, 4, 1).items()}
    labels = torch.tensor([2, 0])
    compare(*prepare(model, {**batch, "labels": labels}), model, [(batch, labels)])


@pytest.mark.parametrize(("classes", "likelihood"), [(1, "gaussian"), (3, "bernoulli")])
def test_heads_for_numbers_and_several_labels(classes, likelihood):
    model = small.bert(num_labels=classes)
    batch, y = small.sentences(4, 3), torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])[:, :classes]
    twin, batches = prepare(model, {**batch, "labels": y[:, 0] if classes == 1 else y})
    nll = ll.fisher(twin, batches, likelihood).problem.survey.nll
    with torch.no_grad():
        loss = copy.deepcopy(model).double()(**batch, labels=y.double()).loss
    # Cross-entropy is averaged over classes; squared error lacks the ½ and the constant.
    own = 3 * loss if classes == 3 else loss / 2 + np.log(2 * np.pi) / 2
    assert float(nll.mean()) == pytest.approx(float(own), rel=1e-12)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("kind", ["classifier", "next token"])
def test_adapters_are_measured_and_nothing_else(kind):
    if kind == "classifier":
        config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
        base = small.bert(num_labels=3)
    else:
        config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        base = small.gpt2()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(base, config).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, so that A would not matter
                nn.init.normal_(parameter)
    batch = small.sentences(4, 3)
    labels = torch.tensor([1, 2]) if kind == "classifier" else hidden(batch)
    twin, aligned = prepare(model, [{**batch, "labels": labels}])
    wanted = labels if kind == "classifier" else shifted(labels)
    fisher = compare(twin, aligned, model, [(batch, wanted)])
    selection = fisher.problem.selection
    measured = {entry.name for entry in selection.entries}
    assert measured == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora" in n or "modules_to_save" in n for n in measured)
    assert set(selection.excluded) == {
        n for n, p in model.named_parameters() if not p.requires_grad
    }


def test_without_labels_every_token_but_padding_is_predicted():
    model = small.gpt2()
    batch = small.sentences(5, 3)
    tokens = batch["input_ids"]
    surveys = [
        ll.fisher(*prepare(model, data), "categorical").problem.survey
        for data in (batch, [{**batch, "labels": hidden(batch)}])
    ]
    assert [s.observations for s in surveys] == [4 + 2, 4 + 2]
    assert torch.equal(surveys[0].nll, surveys[1].nll)
    everything = ll.fisher(*prepare(model, tokens), "categorical").problem.survey
    assert everything.observations == 4 + 4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutting_into_batches_changes_nothing(size):
    model = small.gpt2()
    batch = small.sentences(5, 3, 4)
    whole, cut = (
        ll.fisher(*prepare(model, batch, batch_size=n), "categorical", "wpe|ln_f")
        for n in (16, size)
    )
    a, b = whole.dense(), cut.dense()
    assert float((a - b).abs().max()) <= 1e-12 * float(a.trace())


def test_tokenizers_batches_and_loaders():
    model = small.bert(num_labels=3)
    y = torch.tensor([0, 2, 1])
    plain = {**small.sentences(5, 3, 4), "labels": y}
    rows = [{name: value[i] for name, value in plain.items()} for i in range(3)]
    forms = [plain, transformers.BatchEncoding(plain), DataLoader(rows, batch_size=2)]
    traces = [ll.fisher(*prepare(model, form), "categorical").trace() for form in forms]
    assert traces == pytest.approx([traces[0]] * 3, rel=1e-12)


LABELS = st.lists(
    st.lists(st.sampled_from([IGNORED, 1, 2, 3]), min_size=5, max_size=5), min_size=1, max_size=3
)
GPT2 = small.gpt2()


@settings(max_examples=25, deadline=None)
@given(LABELS.filter(lambda rows: any(y != IGNORED for row in rows for y in row[1:])))
def test_labels_stand_beside_the_logits_before_them(rows):
    labels = torch.tensor(rows)
    tokens = small.sentences(*[5] * len(rows))["input_ids"]
    with torch.no_grad():
        logits = copy.deepcopy(GPT2).double()(tokens).logits
    expected = [
        float(-torch.log_softmax(logits[i, t], -1)[rows[i][t + 1]])
        for i in range(len(rows))
        for t in range(4)
        if rows[i][t + 1] != IGNORED
    ]
    twin, aligned = prepare(GPT2, {"input_ids": tokens, "labels": labels})
    (batch,) = aligned
    assert len(batch["logits_to_keep"]) == batch["labels"].shape[1]
    assert bool((batch["labels"] != IGNORED).any(0).all())
    nll = ll.fisher(twin, aligned, "categorical").problem.survey.nll
    assert nll.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["classifier", "next token", "float16"])
def test_everything_is_left_as_it_was(kind, untouched):
    model = small.gpt2() if kind == "next token" else small.bert(num_labels=3)
    model = model.half() if kind == "float16" else model
    batch = {**small.sentences(4, 3), "labels": torch.tensor([0, 2])}
    if kind == "next token":
        batch["labels"] = hidden(batch)
    config, state = model.config.to_dict(), dict(vars(model))
    with untouched(model, *batch.values()):
        m = ll.measure(*prepare(model, [batch]), "categorical", parameters="ln_f|classifier")
    assert (model.config.to_dict(), vars(model)) == (config, state)
    assert m.parameters == (16 if kind == "next token" else 3 * 8 + 3)


def test_names_and_class_are_the_models():
    model = small.gpt2()
    twin, _ = prepare(model, small.sentences(4, 3))
    assert isinstance(twin, transformers.GPT2LMHeadModel)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert [name for name, _ in twin.named_parameters(remove_duplicate=False)] == names


@pytest.mark.slow
def test_example(capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "gpt2.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "D = 3,936 parameters, N = 88 observations, K = 2,288 rows" in out
    assert "(exact, gap" in out
