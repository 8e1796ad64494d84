"""The tracker in the hands of real training libraries."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightlike as ll

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the libraries; none of ours is expected
    pytest.mark.slow,
]


def data(n=24):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=generator)
    return x, x[:, :3].argmax(-1)


def test_lightning(tmp_path):
    """Steps, losses, the same weights as without; the state comes back from a checkpoint."""
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(callbacks, steps, checkpoint=None):
        torch.manual_seed(1)
        module = Module()
        trainer = lightning.Trainer(
            max_steps=steps, callbacks=callbacks, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            default_root_dir=tmp_path,
        )  # fmt: skip
        loader = DataLoader(TensorDataset(*data()), batch_size=8)
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=False)
        return trainer, module

    tracker = ll.Tracker(data(), "categorical", every=2)
    trainer, watched = fit([tracker.lightning()], 5)
    _, plain = fit([], 5)
    assert tracker.history.column("step") == [1, 3, 5]
    assert all(loss is not None for loss in tracker.history.column("loss"))
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = ll.Tracker(data(), "categorical", every=2)
    fit([again.lightning()], 7, tmp_path / "run.ckpt")
    assert again.history.snapshots[:3] == tracker.history.snapshots
    assert again.history.column("step") == [1, 3, 5, 7]


def test_hugging_face(tmp_path):
    """Steps of their Trainer; the same weights as without."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=6, n_embd=8, n_layer=1, n_head=2, num_labels=3, pad_token_id=0
    )
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"input_ids": torch.randint(1, 11, (6,), generator=generator), "labels": i % 3}
        for i in range(12)
    ]
    batch = {
        "input_ids": torch.stack([row["input_ids"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }

    def fit(callbacks):
        torch.manual_seed(0)
        model = transformers.GPT2ForSequenceClassification(config)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=4, report_to=[],
            save_strategy="no", use_cpu=True, disable_tqdm=True, seed=3, logging_steps=1,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=callbacks
        )
        trainer.train()
        return model

    tracker = ll.Tracker([batch], "categorical", parameters="score|ln_f", every=2)
    watched, plain = fit([tracker.huggingface()]), fit([])
    assert tracker.history.column("step") == [1, 3]
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
