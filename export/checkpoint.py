"""The trained model in PyTorch: a Hugging Face encoder, mean pooling and a linear head.

A checkpoint is a directory in Hugging Face's layout (`config.json` with `id2label`, `model.safetensors`, the
tokenizer's files) plus `head.safetensors`, so that the encoder opens in any tool for Hugging Face models.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from export.base_model import resolve_base
from export.errors import CheckpointError
from export.pooling import mean_pooled

_HEAD_FILE = "head.safetensors"


class TextModel(nn.Module):
    """Encoder, mean pooling over the attention mask, and a linear head.

    `normalize=False` is a classifier: `forward` gives logits of shape (batch, labels).
    `normalize=True` is a ranker's tower: unit vectors of shape (batch, dimensions).
    """

    def __init__(self, encoder: PreTrainedModel, outputs: int, *, normalize: bool = False, dropout: float = 0.1):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, outputs)
        self.normalize = normalize
        nn.init.normal_(self.head.weight, std=encoder.config.hidden_size**-0.5 if normalize else 0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask, both (batch, length), to the output, (batch, labels or dimensions)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.output(hidden, attention_mask)

    def output(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooling and head: hidden states, (batch, length, hidden), to (batch, labels or dimensions)."""
        out: Tensor = self.head(self.dropout(mean_pooled(hidden, attention_mask)))
        return nn.functional.normalize(out, dim=-1) if self.normalize else out


def load_base(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder and its tokenizer. Raises CheckpointError when it is neither on disk nor on the hub."""
    where = resolve_base(name)
    try:
        return AutoModel.from_pretrained(where, add_pooling_layer=False), AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"Cannot load the base model {name!r}: {str(error).splitlines()[0]} "
            "Give a directory with a Hugging Face encoder, or a name the hub knows (needs a network)."
        ) from error


def save_checkpoint(folder: Path, model: TextModel, tokenizer: PreTrainedTokenizerBase, labels: list[str]) -> None:
    """Write the checkpoint; `labels` become `id2label` (empty for a ranker's tower)."""
    folder.mkdir(parents=True, exist_ok=True)
    if labels:
        model.encoder.config.id2label = dict(enumerate(labels))
        model.encoder.config.label2id = {label: i for i, label in enumerate(labels)}
    model.encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    head = {"weight": model.head.weight.detach(), "bias": model.head.bias.detach()}
    save_file(head, folder / _HEAD_FILE, metadata={"normalize": str(model.normalize)})


def checkpoint_labels(folder: Path) -> list[str]:
    """The labels of a classifier's checkpoint, in the order of its head. Raises CheckpointError when it has none."""
    _check(folder)
    try:
        names = orjson.loads((folder / "config.json").read_bytes())["id2label"]
        return [names[str(i)] for i in range(len(names))]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a classifier's checkpoint: its config.json has no labels.") from error


def _check(folder: Path) -> None:
    if not (folder / _HEAD_FILE).is_file():
        raise CheckpointError(f"{folder} is not a Flywheel checkpoint: it has no {_HEAD_FILE}.")


def load_checkpoint(folder: Path, *, normalize: bool) -> tuple[TextModel, PreTrainedTokenizerBase]:
    """The model, in evaluation mode, and its tokenizer. Raises CheckpointError when `folder` is not a checkpoint."""
    _check(folder)
    encoder, tokenizer = load_base(str(folder))
    head = load_file(folder / _HEAD_FILE)
    model = TextModel(encoder, head["weight"].shape[0], normalize=normalize)
    model.head.load_state_dict(head)
    with torch.no_grad():
        return model.eval(), tokenizer
