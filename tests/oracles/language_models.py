"""Tiny Hugging Face models with weights from a seed, and sentences of unequal length."""

import torch
import transformers

VOCABULARY = 50
WIDTHS = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 8,
}


def gpt2(attention="sdpa", **settings):
    return build(
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(
            n_embd=8, n_layer=2, n_head=2, n_positions=8, n_inner=12, vocab_size=VOCABULARY,
            bos_token_id=0, eos_token_id=0, attn_implementation=attention, **settings,
        ),
    )  # fmt: skip


def bert(head=transformers.BertForSequenceClassification, attention="sdpa", **settings):
    return build(
        head,
        transformers.BertConfig(
            vocab_size=VOCABULARY, attn_implementation=attention, **WIDTHS, **settings
        ),
    )


def llama(attention="sdpa"):
    return build(
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, num_key_value_heads=1, attn_implementation=attention, **WIDTHS
        ),
    )


def t5():
    return build(
        transformers.T5ForConditionalGeneration,
        transformers.T5Config(
            vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2,
            decoder_start_token_id=0,
        ),
    )  # fmt: skip


def vit():
    return build(
        transformers.ViTForImageClassification,
        transformers.ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
            image_size=4, patch_size=2, num_labels=3,
        ),
    )  # fmt: skip


def build(head, config):
    """A model away from its initial point, where biases are zero and outputs nearly constant."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = head(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def sentences(*lengths, width=None, seed=0):
    """Random tokens (sentences, width), padded with 0, and their attention mask."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    tokens = torch.randint(1, VOCABULARY, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": tokens * mask, "attention_mask": mask}
