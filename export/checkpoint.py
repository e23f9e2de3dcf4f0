"""The trained model in PyTorch: a Hugging Face encoder, mean pooling and a linear head.

A checkpoint is a directory in Hugging Face's layout (`config.json` with `id2label`, `model.safetensors`, the
tokenizer's files) plus `head.safetensors`, so that the encoder opens in any tool for Hugging Face models. A classifier
may have a linear reader in `linear/` (export/linear.py).
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import orjson
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from export.base_model import resolve_base
from export.bundle import LINEAR, LinearRecord
from export.errors import CheckpointError
from export.linear import LinearReader
from export.pooling import mean_pooled
from export.symbols import spelled_symbols
from export.tokenizer import TextEncoder

_HEAD_FILE = "head.safetensors"
_RECORD = "reader.json"  # beside the linear reader's arrays
_MAX_PARAMETERS = 500_000_000  # 2 GB in fp32, protobuf's limit, less what the nodes and a head take


class TextModel(nn.Module):
    """Encoder, mean pooling over the attention mask, and a linear head: logits of labels, or a ranker's projections."""

    def __init__(self, encoder: PreTrainedModel, outputs: int, *, dropout: float = 0.1):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask, both (batch, length), to the output, (batch, outputs)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.output(hidden, attention_mask)

    def output(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooling and head: hidden states, (batch, length, hidden), to (batch, outputs)."""
        out: Tensor = self.head(self.dropout(mean_pooled(hidden, attention_mask)))
        return out


def load_base(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder, in fp32, and its tokenizer. Raises CheckpointError when they are not there or are no encoder.

    Never runs code of the checkpoint's own. Weights of heads, as of a BertForSequenceClassification, are left out.
    """
    where = resolve_base(name)
    transformers_logging.disable_progress_bar()  # it shows a bar for every file it reads
    transformers_logging.set_verbosity_error()  # and reports weights that are left out, which are no fault
    fields = _load(name, lambda: PreTrainedConfig.get_config_dict(where))[0]
    if "AutoModel" in (fields.get("auto_map") or {}):
        raise CheckpointError(
            f"The base model {name!r} needs Python code of its own (auto_map in its config.json), which Flywheel does "
            "not run. Give a base of a family that transformers contains, such as BERT, DeBERTa or ModernBERT."
        )
    config = _load(name, lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
    encoder_class = _encoder_class(name, config)
    # Not the dtype of the file, which may be half precision: training and parity are in fp32. A pooler has weights that
    # many checkpoints lack, and is not used.
    options: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # to tell them in our words
    if "add_pooling_layer" in signature(encoder_class.__init__).parameters:
        options["add_pooling_layer"] = False
    encoder, loaded = _load(name, lambda: encoder_class.from_pretrained(where, **options))
    other = [key for key, *_ in loaded["mismatched_keys"]]
    if missing := sorted(key for key in {*loaded["missing_keys"], *other} if "pooler" not in key):
        raise CheckpointError(
            f"The base model {name!r} has no weights for {missing[0]} ({len(missing)} are missing or of another size), "
            f"which would be random. Save it again from {encoder_class.__name__}, or give another base."
        )
    check_size(name, encoder)
    tokenizer = _load(name, lambda: AutoTokenizer.from_pretrained(where, trust_remote_code=False))
    _check_tokenizer(name, encoder, tokenizer)
    return encoder, tokenizer


def _load(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # transformers, safetensors and tokenizers raise a dozen types for a damaged directory
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"Cannot load the base model {name!r}: {lines[0].rstrip('. ')}. {_remedy(Path(name))}"
        ) from error


def _remedy(folder: Path) -> str:
    """What to do about a base model that does not load."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return (
            "This is an adapter: merge it into its model with merge_and_unload() and save that. Give the new directory."
        )
    weights = folder / "model.safetensors"
    if (
        weights.is_file()
        and weights.stat().st_size < 1000
        and weights.read_bytes().startswith(b"version https://git-lfs")
    ):
        return "Its weights are a pointer of Git LFS: run git lfs pull there, or give another directory."
    return "Give a directory with a Hugging Face encoder, or a name the hub knows (needs a network)."


def _encoder_class(name: str, config: Any) -> type[PreTrainedModel]:
    """The class of the encoder. Raises CheckpointError for what is no encoder of texts."""
    kind = config.model_type
    generates = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False) or generates:
        raise CheckpointError(
            f"The base model {name!r} ({kind}) generates text: it is or has a decoder. "
            "Give an encoder, such as BERT, RoBERTa, DeBERTa or ModernBERT."
        )
    found = MODEL_MAPPING.get(type(config), None)
    encoder_class: type[PreTrainedModel] | None = found[0] if isinstance(found, tuple) else found
    inputs = signature(encoder_class.forward).parameters if encoder_class else {}
    if encoder_class is None or not {"input_ids", "attention_mask"} <= set(inputs):
        raise CheckpointError(
            f"The base model {name!r} ({kind}) takes no token ids with an attention mask: it is no encoder of texts, "
            "or its answers would depend on padding. Give an encoder, such as BERT, RoBERTa, DeBERTa or ModernBERT."
        )
    return encoder_class


def check_size(name: str, encoder: nn.Module) -> None:
    """Raises CheckpointError for an encoder whose graph is larger than an ONNX file can be, while it is exported."""
    size = sum(parameter.numel() for parameter in encoder.parameters())
    if size > _MAX_PARAMETERS:
        raise CheckpointError(
            f"The base model {name!r} has {size / 1e6:.0f} million parameters. A model of more than "
            f"{_MAX_PARAMETERS / 1e6:.0f} million is over 2 GB in fp32, which ONNX cannot hold in a file. "
            "Give a smaller base."
        )


def _check_tokenizer(name: str, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises CheckpointError when serving cannot do what `tokenizer` does, or it is of another model."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(
            f"The tokenizer of the base model {name!r} ({type(tokenizer).__name__}) cannot be written as a "
            "tokenizer.json, from which the server reads it. Give a base whose tokenizer is a fast one."
        )
    known, rows = len(tokenizer), encoder.get_input_embeddings().num_embeddings
    if known > rows:
        raise CheckpointError(
            f"The tokenizer of the base model {name!r} has {known} tokens and its encoder {rows}: they do not belong "
            "together. If tokens were added, save the encoder again after resize_token_embeddings."
        )
    if not {*tokenizer.get_vocab().values()} - {*tokenizer.all_special_ids}:  # transformers' own, in place of none
        raise CheckpointError(
            f"The base model {name!r} has no tokenizer: its directory lacks tokenizer.json or the vocabulary. "
            "Give a directory to which the tokenizer was saved as well."
        )


def text_encoder(tokenizer: PreTrainedTokenizerBase, max_length: int) -> TextEncoder:
    """The encoder that a server has for `tokenizer`: a model is trained on the token ids that it will get."""
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a TextEncoder changes its tokenizer
    return TextEncoder(own, max_length, spelled_symbols(own))


def max_tokens(encoder: PreTrainedModel, wanted: int) -> int:
    """The number of tokens, at most `wanted`, that the encoder takes in one text: it may have fewer positions.

    Tried, since families count positions differently: RoBERTa's begin at the padding token's id, DeBERTa has none.
    """

    @torch.no_grad()
    def takes(length: int) -> bool:
        ids = torch.full((1, length), int(encoder.config.pad_token_id == 0))  # a token that is not padding
        try:
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        except (IndexError, RuntimeError):
            return False
        return True

    training = encoder.training
    encoder.eval()
    low, high = 0, wanted + 1  # of which `low` is taken, and `high` is not
    if takes(wanted):
        low = wanted
    while high - low > 1 and low < wanted:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    encoder.train(training)
    return low


def save_checkpoint(folder: Path, model: TextModel, tokenizer: PreTrainedTokenizerBase, labels: list[str]) -> None:
    """Write the checkpoint; `labels` become `id2label` (empty for a ranker)."""
    folder.mkdir(parents=True, exist_ok=True)
    if labels:
        model.encoder.config.id2label = dict(enumerate(labels))
        model.encoder.config.label2id = {label: i for i, label in enumerate(labels)}
    model.encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    head = {"weight": model.head.weight.detach(), "bias": model.head.bias.detach()}
    save_file(head, folder / _HEAD_FILE)


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


def load_checkpoint(folder: Path) -> tuple[TextModel, PreTrainedTokenizerBase]:
    """The model, in evaluation mode, and its tokenizer. Raises CheckpointError when `folder` is not a checkpoint."""
    _check(folder)
    encoder, tokenizer = load_base(str(folder))
    head = load_file(folder / _HEAD_FILE)
    model = TextModel(encoder, head["weight"].shape[0])
    model.head.load_state_dict(head)
    with torch.no_grad():
        return model.eval(), tokenizer


def save_linear(folder: Path, reader: LinearReader, record: LinearRecord) -> None:
    """Write the linear reader of a classifier's checkpoint to its folder."""
    reader.save(folder / LINEAR)
    (folder / LINEAR / _RECORD).write_text(record.model_dump_json(), encoding="utf-8")


def linear_record(folder: Path) -> LinearRecord | None:
    """How the checkpoint's linear reader was trained; None when it has none. Raises CheckpointError."""
    file = folder / LINEAR / _RECORD
    if not file.is_file():
        return None
    try:
        return LinearRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{file} is damaged: {error.errors()[0]['msg']}. Train the version again.") from error
