"""A task's first version: a linear reader alone, trained in seconds from the seed corpus, and without torch.

A server answers with it while the version with an encoder is trained (docs/decisions/0039-first-start.md). It has no
checkpoint, so no training continues from it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.base_model import resolve_base
from export.bundle import SYMBOLS, sha256_of, write_bundle
from export.symbols import spelled_symbols
from export.tokenizer import TextEncoder
from models.training.candidate import TrainedCandidate, TrainingJob
from models.training.families import family_of
from models.training.pipeline import BUNDLE, CORPUS, manifest_fields, own_work_folder
from models.training.progress import ReportStage

NOTE = (
    "This is the task's first version, trained in seconds: it compares words and has no encoder yet. The version with "
    "an encoder is more accurate, and replaces it when its training has ended."
)


def build_first_version(job: TrainingJob, home: Path, report: ReportStage) -> TrainedCandidate:
    """Fit, evaluate and write a version without an encoder. Nothing outside `home/work` changes.

    Raises DatasetError for a task without a seed corpus.
    """
    from export.model import Model

    family = family_of(job.task)
    with own_work_folder(job, home) as folder:
        report("first version", 0, 0)
        recipe = family.recipe(job, home)
        data = family.load(job, home, recipe)
        data.save_corpus(folder / f"{CORPUS}{family.corpus_ending}")
        file = Path(resolve_base(recipe.base)) / "tokenizer.json"
        encoder = TextEncoder(file, recipe.max_length, spelled_symbols(Tokenizer.from_file(str(file))))
        reader, record = family.fit_without_encoder(
            data, [encoded.ids for encoded in encoder.encode(data.texts)], recipe
        )
        fields: dict[str, Any] = {
            **manifest_fields(family, job, data, recipe, (NOTE,)),
            "precision": "fp32",
            "linear": record.model_copy(update={"tokenizer": sha256_of(file)}),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        parts: dict[str, Any] = {"model": None, "tokenizer": file, "arrays": reader.arrays}
        assets = {SYMBOLS: encoder.symbols} if encoder.symbols else {}
        draft = write_bundle(folder / "draft", fields=fields, assets=assets, **parts)
        evaluated = family.evaluate(job.task, data, Model.open(draft), None)
        fields["metrics"] = evaluated.metrics
        parts |= {"assets": assets | evaluated.assets, "towers": evaluated.towers}
        bundle = write_bundle(folder / BUNDLE, fields=fields, **parts)
        return TrainedCandidate(
            task=job.task,
            bundle=bundle.path,
            parameters={"base": recipe.base, **record.model_dump(include={"max_ngram", "sublinear", "regularization"})},
            metrics=evaluated.metrics,
            losses=[],
            lineage=data.lineage,
            confusion=None,  # drawing it would take longer than the training
            report=data.report,
            notes=bundle.manifest.notes,
        )
