"""Null directions of whole transformers: streams ahead of normalisations, and all their terms."""

import pytest
import torch
from torch import nn

import lightlike as ll
from lightlike.integrations.widening import widened
from oracles.dense_roots import nullity as counted
from oracles.networks import fill, normal
from oracles.residual_streams import Decoder, nullity, tokens

LIKELIHOODS = ["gaussian", "categorical"]


def prepared(model, seed=3):
    """Random weights, gains of normalisations around 1."""
    model = fill(model.double(), seed, 1.2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            owner = name.split(".")[-2] if "." in name else ""
            norms = ("ahead", "then", "last", "norm", "Norm", "ln_")
            if any(word in owner for word in norms) and name.endswith("weight"):
                p.add_(1.0)
    return model


def kinds(explanation):
    found = {}
    for source in explanation.sources:
        if source.dimension:
            found[source.kind] = found.get(source.kind, 0) + source.dimension
    return found


@pytest.mark.parametrize(
    ("options", "likelihood"),
    [
        (dict(), "categorical"), (dict(bias=False), "categorical"), (dict(eps=0.0), "gaussian"),
        (dict(norm="rms", bias=False), "gaussian"), (dict(norm="rms"), "categorical"),
        (dict(norm="rms", bias=False, eps=0.0), "categorical"),
        (dict(norm="handwritten", bias=False), "categorical"),
    ],
)  # fmt: skip
def test_every_term_of_a_decoder(options, likelihood):
    model, x = prepared(Decoder(**options)), tokens(60, 5, 3)
    softmax = likelihood == "categorical"
    explanation = ll.explain(ll.fisher(model, (x,), likelihood))
    assert explanation.explained == nullity(**options, softmax=softmax)
    assert explanation.explained == counted(model, x, softmax)
    assert explanation.unexplained == 0
    assert kinds(explanation)["rotation of a normalised stream"] == (
        3 if options.get("norm", "layer") == "layer" else 6
    )


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_every_term_of_two_blocks(norm, likelihood):
    model, x = prepared(Decoder(depth=2, norm=norm)), tokens(90, 5, 3)
    softmax = likelihood == "categorical"
    explanation = ll.explain(ll.fisher(model, (x,), likelihood))
    expected = nullity(depth=2, norm=norm, softmax=softmax)
    assert (explanation.explained, explanation.unexplained) == (expected, 0)


def test_the_known_transformer():
    """D = 308, rank 191; 190 without eps, which alone breaks the scale of the stream."""
    shape = dict(vocabulary=7, length=4, width=6, hidden=5, outputs=3)
    x = tokens(80, 7, 4)
    ranks = {}
    for eps in (0.0, 1e-2):
        model = prepared(Decoder(**shape, eps=eps))
        explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
        assert explanation.unexplained == 0
        ranks[eps] = explanation.parameters - explanation.explained
        scale = [s for s in explanation.sources if s.kind == "normalised scale"]
        assert [(s.claimed, s.verified) for s in scale] == [(1, int(eps == 0.0))]
    assert ranks == {0.0: 190, 1e-2: 191}
    assert explanation.parameters == 308


@pytest.mark.parametrize(
    ("options", "likelihood"),
    [
        (dict(), "gaussian"), (dict(eps=0.0), "categorical"), (dict(norm="rms"), "categorical"),
        (dict(norm="rms", bias=False, positions=False, rotary=True, groups=1), "gaussian"),
    ],
)  # fmt: skip
def test_tied_tables(options, likelihood):
    """Rotations do not survive; shifts do with what takes them back, and scales with a gain."""
    model, x = prepared(Decoder(tied=True, **options)), tokens(60, 5, 3)
    explanation = ll.explain(ll.fisher(model, (x,), likelihood))
    assert explanation.explained == counted(model, x, likelihood == "categorical")
    assert explanation.unexplained == 0
    assert "rotation of a normalised stream" not in kinds(explanation)


def test_a_tied_table_rotates_where_the_last_gain_is_one_number():
    model = prepared(Decoder(tied=True, norm="rms"))
    with torch.no_grad():
        model.last.weight.fill_(0.7)
    x = tokens(60, 5, 3)
    explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert explanation.explained == counted(model, x)
    assert kinds(explanation)["rotation of a normalised stream"] == 6


def test_an_offset_takes_the_place_of_biases():
    """LayerNorm with an offset ahead of layers without one."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3, bias=False))
    model, x = prepared(model), normal(40, 3)
    with torch.no_grad():
        model[1].weight.add_(1.0)
    explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert explanation.explained == counted(model, x)
    assert explanation.unexplained == 0


@pytest.mark.parametrize(
    ("first", "blocks"), [(True, 1), pytest.param(False, 2, marks=pytest.mark.slow)]
)
def test_pytorchs_encoder(first, blocks):
    """Normalisation before each block, or after each sum, where attention reads the sum too."""
    layers = [
        nn.TransformerEncoderLayer(4, 2, 5, 0.0, "gelu", batch_first=True, norm_first=first)
        for _ in range(blocks)
    ]
    model = prepared(nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 3)))
    x = normal(50, 4, 3)
    explanation = ll.explain(ll.fisher(model, (x,), "gaussian"))
    assert explanation.explained == counted(model, x, tolerance=1e-12)
    assert explanation.unexplained == 0


def language_models():
    transformers = pytest.importorskip("transformers")
    common = dict(vocab_size=5, use_cache=False, bos_token_id=0, eos_token_id=0)
    gpt = dict(n_positions=3, n_embd=4, n_layer=1, n_head=2, n_inner=5)
    off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    yield 60, 5, transformers.GPT2LMHeadModel(transformers.GPT2Config(**common, **gpt, **off))
    sizes = dict(hidden_size=4, intermediate_size=5, num_hidden_layers=1, num_attention_heads=2)
    bert = dict(max_position_embeddings=3, type_vocab_size=1, pad_token_id=None)
    yield (
        60,
        5,
        transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=5, **sizes, **bert)),
    )
    common |= dict(vocab_size=7, max_position_embeddings=4)
    llama = transformers.LlamaConfig(**common, **sizes, num_key_value_heads=1, pad_token_id=None)
    yield 90, 7, transformers.LlamaForCausalLM(llama)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 2])
def test_language_models(which):
    """GPT-2, BERT and Llama of their own libraries, tied and untied, with every direction named."""
    n, vocabulary, model = list(language_models())[which]
    model = widened(prepared(model))
    x = tokens(n, vocabulary, 3)
    explanation = ll.explain(ll.fisher(model, (x,), "categorical"))
    assert explanation.unexplained == 0
    found = kinds(explanation)
    assert found["queries and keys"] == (2 if which == 2 else 8)
    assert found["values and output"] == (4 if which == 2 else 8)
