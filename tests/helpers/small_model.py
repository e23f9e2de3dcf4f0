"""A model that is small and untrained, for what any model must do."""

from __future__ import annotations

from typing import Any


def small_classifier(longest: int) -> tuple[Any, Any]:
    """An untrained TextModel of two layers and five labels, always the same, and the default base's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    from export.base_model import DEFAULT_BASE
    from export.checkpoint import TextModel, load_base

    _, tokenizer = load_base(DEFAULT_BASE)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=longest, **size)
    return TextModel(BertModel(config, add_pooling_layer=False), 5).eval(), tokenizer
