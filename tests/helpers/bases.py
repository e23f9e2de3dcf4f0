"""Tiny checkpoints with random weights, one for each family of encoders, each with a tokenizer of its own kind.

They have the layout of a Hugging Face checkpoint: config.json, model.safetensors and the tokenizer's files. Their
weights are larger than a real initialization's, so that texts differ in the output and an error in the graph shows.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.bundle import Bundle, Precision
from tests.helpers.own_corpus import OWN, own_data

TEXTS = [text for text, _ in OWN]
LONG_TEXT = " ".join(TEXTS)
"""longer than `MAX_LENGTH`"""
MAX_LENGTH = 128
_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Family:
    """One family: how its config and its tokenizer are made, and the graph that an int8 export of it must have."""

    name: str
    config: str
    """name of the config class in transformers"""
    options: Mapping[str, Any]
    tokenizer: Callable[[int], Any]
    """from the size of the vocabulary to a tokenizer"""
    vocabulary: int
    attention: str
    """what the manifest says of an int8 bundle's graph"""


def make_base(family: Family, folder: Path, **changes: Any) -> Path:
    """Write a checkpoint of `family` to `folder`; `changes` override fields of its config."""
    import transformers
    from torch import manual_seed

    tokenizer = family.tokenizer(family.vocabulary)
    fields = {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 140,
        "initializer_range": 0.15, **_SIZE, **family.options, **changes,
    }  # fmt: skip
    config = getattr(transformers, family.config)(**fields)
    manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def word_piece(of: str, size: int, **options: Any) -> Any:
    """BERT's kind: whole words, then pieces that begin with ##."""
    import transformers

    specials = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"] if of == "MPNetTokenizer" else _BRACKETS
    pieces = [*specials, *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS if c.isalnum()), *_WORDS]
    return getattr(transformers, of)(vocab=_filled({piece: i for i, piece in enumerate(pieces)}, size), **options)


def byte_pairs(of: str, size: int, *, prefix_space: bool = False) -> Any:
    """RoBERTa's kind: pairs of bytes, with or without a space before the first word."""
    import json

    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    specials = _BRACKETS if of == "PreTrainedTokenizerFast" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if of == "PreTrainedTokenizerFast":  # as ModernBERT and DeBERTa have it
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = ("pad", "unk", "cls", "sep", "mask")
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, **{f"{n}_token": t for n, t in zip(names, _BRACKETS, strict=True)}
        )
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return getattr(transformers, of)(vocab=_filled(model["vocab"], size), merges=merges, add_prefix_space=prefix_space)


def unigram(of: str, size: int) -> Any:
    """SentencePiece's kind: pieces with probabilities, a space is part of a piece."""
    import transformers

    specials = {
        "AlbertTokenizer": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        "DebertaV2Tokenizer": ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
        "CamembertTokenizer": ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"],
    }.get(of, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    pieces = [(special, 0.0) for special in specials]
    pieces += [(piece, -9.0) for piece in ("▁", *_CHARACTERS)] + [(f"▁{word}", -5.0) for word in _WORDS]
    pieces += [(f"▁filler{i}", -30.0) for i in range(size - len(pieces))]
    return getattr(transformers, of)(vocab=pieces)


def characters(size: int) -> Any:
    """One token a character, as encoders for Chinese or for DNA have it."""
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: i for i, token in enumerate([*_BRACKETS, *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(_filled(vocabulary, size), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{n}_token": t for n, t in zip(names, _BRACKETS, strict=True)}
    )


_CHARACTERS = sorted({*string.ascii_lowercase, *string.digits, *"?!.,'"})
_WORDS = sorted({word for text in TEXTS for word in re.findall("[a-z]{2,}", text.lower())})
_BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _filled(vocabulary: Mapping[str, int], size: int) -> dict[str, int]:
    """The vocabulary with tokens that no text has, up to `size`."""
    filled = dict(vocabulary)
    for i in range(len(filled), size):
        filled[f"[filler{i}]"] = i
    return filled


_ROBERTA = {"max_position_embeddings": 142, "type_vocab_size": 1}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_relative_positions": -1,
}

FAMILIES = {
    family.name: family
    for family in (
        Family("bert", "BertConfig", {}, lambda n: word_piece("BertTokenizer", n), 300, "unpadded"),
        Family(
            "bert-cased",
            "BertConfig",
            {"hidden_act": "gelu_new", "position_embedding_type": "absolute", "type_vocab_size": 1},
            lambda n: word_piece("BertTokenizer", n, do_lower_case=False),
            30_000,
            "unpadded",
        ),
        Family("bert-characters", "BertConfig", {}, characters, 300, "unpadded"),
        Family(
            "distilbert",
            "DistilBertConfig",
            {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
            lambda n: word_piece("DistilBertTokenizer", n),
            1_000,
            "unpadded",
        ),
        Family("roberta", "RobertaConfig", _ROBERTA, lambda n: byte_pairs("RobertaTokenizer", n), 600, "unpadded"),
        Family(
            "roberta-prefix-space",
            "RobertaConfig",
            _ROBERTA,
            lambda n: byte_pairs("RobertaTokenizer", n, prefix_space=True),
            50_000,
            "unpadded",
        ),
        Family(
            "xlm-roberta",
            "XLMRobertaConfig",
            _ROBERTA,
            lambda n: unigram("XLMRobertaTokenizer", n),
            250_000,
            "unpadded",
        ),
        Family(
            "camembert", "CamembertConfig", _ROBERTA, lambda n: unigram("CamembertTokenizer", n), 32_000, "unpadded"
        ),
        Family(
            "albert",
            "AlbertConfig",
            {"embedding_size": 16, "num_hidden_layers": 3, "hidden_act": "gelu_new"},
            lambda n: unigram("AlbertTokenizer", n),
            400,
            "unpadded",
        ),
        Family(
            "electra",
            "ElectraConfig",
            {"embedding_size": 16},
            lambda n: word_piece("ElectraTokenizer", n),
            500,
            "unpadded",
        ),
        Family(
            "mpnet",
            "MPNetConfig",
            {"max_position_embeddings": 142, "relative_attention_num_buckets": 32},
            lambda n: word_piece("MPNetTokenizer", n),
            500,
            "plain",
        ),
        Family(
            "deberta-v2",
            "DebertaV2Config",
            {**_DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"},
            lambda n: unigram("DebertaV2Tokenizer", n),
            128_000,
            "plain",
        ),
        Family(
            "deberta-v3",
            "DebertaV2Config",
            {**_DEBERTA, "position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
            lambda n: unigram("DebertaV2Tokenizer", n),
            300,
            "plain",
        ),
        Family(
            "modernbert",
            "ModernBertConfig",
            {"num_hidden_layers": 3, "local_attention": 32, "global_attn_every_n_layers": 3},
            lambda n: byte_pairs("PreTrainedTokenizerFast", n),
            600,
            "plain",
        ),
    )
}
Method = Literal["full", "lora"]
MakeVersion = Callable[..., "Version"]
"""from what `finetuned` takes, without the folder, to a version, which tests only read"""


@dataclass(frozen=True)
class Version:
    """A tiny base, fine-tuned and exported."""

    bundle: Bundle
    checkpoint: Path


def finetuned(name: str, folder: Path, *, method: Method = "full", precision: Precision = "int8") -> Version:
    """Fine-tune a tiny base of the family `name` on own_corpus.py and export it, as `flywheel train` does."""
    from models.data.dataset import load_dataset
    from models.training.candidate import TrainingJob
    from models.training.config import Recipe
    from models.training.families import family_of
    from models.training.finetune import finetune_classifier
    from models.training.pipeline import export
    from models.training.training_set import TrainingSet

    base = make_base(FAMILIES[name], folder / "base")
    recipe = Recipe(str(base), method=method, epochs=1, max_length=MAX_LENGTH)
    data = TrainingSet.of_corpus(load_dataset("intent", own_data(folder)))
    finetune_classifier(data, recipe, folder / "checkpoint", lambda *_: None)
    job = TrainingJob("intent", precision=precision)
    bundle, _ = export(family_of("intent"), job, data, recipe, folder / "checkpoint", folder / "bundle")
    return Version(bundle, folder / "checkpoint")
