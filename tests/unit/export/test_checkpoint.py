"""A base model loads as an encoder in fp32, whatever it was saved as, or is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import logging as transformers_logging

from export.checkpoint import check_size, load_base, max_tokens, text_encoder
from export.errors import CheckpointError
from tests.helpers.bases import FAMILIES, make_base, word_piece

BERT = FAMILIES["bert"]
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(BERT, tmp_path_factory.mktemp("bert"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def save(model: Any, folder: Path, **options: Any) -> Path:
    """`model` with the tiny BERT's tokenizer."""
    model.save_pretrained(folder, **options)
    word_piece("BertTokenizer", 300).save_pretrained(folder)
    return folder


def assert_is(folder: Path, bert: Path) -> None:
    """The base in `folder` is the one in `bert`."""
    (found, _), (expected, _) = load_base(str(folder)), load_base(str(bert))
    ids = torch.tensor([[2, 95, 70, 3]])
    with torch.no_grad():
        torch.testing.assert_close(
            found(input_ids=ids).last_hidden_state, expected(input_ids=ids).last_hidden_state, rtol=0, atol=2e-2
        )


def test_a_classifier_is_a_base_without_its_head(bert: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert, num_labels=7)
    assert_is(save(model, tmp_path), bert)  # its weights are named bert.encoder...


def test_a_base_in_half_precision_is_trained_in_fp32(bert: Path, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(bert, dtype=torch.bfloat16)
    save(model, tmp_path)
    assert_is(tmp_path, bert)
    assert {parameter.dtype for parameter in load_base(str(tmp_path))[0].parameters()} == {torch.float32}


def test_weights_in_pytorchs_own_format_are_read(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "base")
    model = transformers.AutoModel.from_pretrained(bert)
    torch.save(model.state_dict(), tmp_path / "base" / "pytorch_model.bin")
    (tmp_path / "base" / "model.safetensors").unlink()
    assert_is(tmp_path / "base", bert)


def test_a_vocabulary_file_is_enough_of_a_tokenizer(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "base")
    tokenizer = load_base(str(bert))[1]
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (tmp_path / "base" / "vocab.txt").write_text("\n".join(token for token, _ in by_id))
    (tmp_path / "base" / "tokenizer.json").unlink()
    text = "tell me about the telescope"
    assert load_base(str(tmp_path / "base"))[1](text)["input_ids"] == tokenizer(text)["input_ids"]


def test_the_side_and_the_token_of_padding_do_not_matter(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "base")
    texts = ["tell me about the comet please", "the"]
    ids = [
        [row.ids for row in text_encoder(load_base(str(folder))[1], 6).encode(texts)]
        for folder in (bert, tmp_path / "base")
    ]
    assert ids[0] == ids[1]
    assert [len(row) for row in ids[0]] == [6, 3]


@pytest.mark.parametrize(
    ("name", "changes", "tokens"),
    [
        ("bert", {"max_position_embeddings": 40}, 40),
        ("roberta", {"max_position_embeddings": 42}, 40),  # RoBERTa's begin after the padding token's
        ("roberta", {"max_position_embeddings": 200}, 128),
        ("deberta-v3", {"max_position_embeddings": 40}, 128),  # relative
        ("modernbert", {"max_position_embeddings": 40}, 128),  # rotary
    ],
)
def test_the_positions_of_a_base_bound_the_length_of_texts(
    name: str, changes: dict[str, Any], tokens: int, tmp_path: Path
) -> None:
    encoder, _ = load_base(str(make_base(FAMILIES[name], tmp_path, **changes)))
    assert max_tokens(encoder, 128) == tokens


def gpt2(folder: Path) -> Path:
    return save(transformers.GPT2Model(transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=4)), folder)


def llama(folder: Path) -> Path:
    return save(transformers.LlamaModel(transformers.LlamaConfig(vocab_size=300, **TINY)), folder)


def t5(folder: Path) -> Path:
    config = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    return save(transformers.T5Model(config), folder)


def bert_decoder(folder: Path) -> Path:
    make_base(BERT, folder)
    edit_config(folder, is_decoder=True)
    return folder


def vision(folder: Path) -> Path:
    config = transformers.ViTConfig(image_size=16, patch_size=8, **TINY)
    return save(transformers.ViTModel(config), folder)


def fnet(folder: Path) -> Path:
    config = transformers.FNetConfig(vocab_size=300, **TINY)
    return save(transformers.FNetModel(config), folder)


def custom_code(model_type: str, code: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        make_base(BERT, folder)
        edit_config(
            folder, model_type=model_type, auto_map={"AutoConfig": f"{code}.Config", "AutoModel": f"{code}.Model"}
        )
        return folder

    return make


def unknown_family(folder: Path) -> Path:
    make_base(BERT, folder)
    edit_config(folder, model_type="sbert2")
    return folder


def other_weights(folder: Path) -> Path:
    """A directory whose weights are of another model than its config says."""
    make_base(FAMILIES["distilbert"], folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(make_base(BERT, folder / "bert") / name, folder / name)
    return folder


def other_tokenizer(folder: Path) -> Path:
    make_base(BERT, folder)
    word_piece("BertTokenizer", 500).save_pretrained(folder)
    return folder


def bytes_of_text(folder: Path) -> Path:
    """A tokenizer in Python, without tokenizer.json."""
    make_base(BERT, folder, vocab_size=400)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    transformers.ByT5Tokenizer(extra_ids=0).save_pretrained(folder)
    return folder


def without(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        make_base(BERT, folder)
        (folder / name).unlink()
        return folder

    return make


def truncated(folder: Path) -> Path:
    weights = make_base(BERT, folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    return folder


def adapter(folder: Path) -> Path:
    """What peft's `save_pretrained` writes."""
    (make_base(BERT, folder) / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def large_file_pointer(folder: Path) -> Path:
    """A repository that was cloned without Git LFS."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n"
    (make_base(BERT, folder) / "model.safetensors").write_text(pointer)
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "GPT-2": (gpt2, "is or has a decoder"),
    "Llama": (llama, "is or has a decoder"),
    "T5": (t5, "is or has a decoder"),
    "BERT as a decoder": (bert_decoder, "is or has a decoder"),
    "a vision model": (vision, "no encoder of texts"),
    "FNet, which mixes in padding": (fnet, "would depend on padding"),
    "GTE": (custom_code("new", "modeling"), "code of its own"),
    "NomicBERT": (custom_code("nomic_bert", "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert"), "code of its own"),
    "JinaBERT": (custom_code("bert", "jinaai/jina-bert-implementation--modeling_bert"), "code of its own"),
    "an unknown family": (unknown_family, "sbert2"),
    "weights of another family": (other_weights, "are missing"),
    "a tokenizer of another base": (other_tokenizer, "has 500 tokens and its encoder 300"),
    "a tokenizer in Python": (bytes_of_text, "cannot be written as a tokenizer.json"),
    "no config": (without("config.json"), "config.json"),
    "no weights": (without("model.safetensors"), "model.safetensors"),
    "no tokenizer": (without("tokenizer.json"), "has no tokenizer: "),
    "truncated weights": (truncated, "Cannot load"),
    "an adapter": (adapter, "merge_and_unload"),
    "a pointer of Git LFS": (large_file_pointer, "git lfs pull"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_base_is_refused(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "base")
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_base(str(folder))
    told = str(caught.value)
    assert str(folder) in told
    assert "Give " in told or "give " in told or "resize_token_embeddings" in told
    assert "\n" not in told


def test_an_encoder_that_is_too_large_for_a_file_is_refused_before_training() -> None:
    config = transformers.XLMRobertaConfig(
        vocab_size=250_002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    with torch.device("meta"):
        encoder = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    with pytest.raises(CheckpointError, match=r"has 559 million parameters.*2 GB.*Give a smaller base"):
        check_size("xlm-roberta-large", encoder)
