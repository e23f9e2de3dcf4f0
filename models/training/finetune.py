"""Fine-tune a text encoder into a classifier of labelled texts.

The loop itself is Hugging Face's `Trainer`; this module has the batches, the loss and the choice of trainable weights.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from export.checkpoint import TextModel, checkpoint_labels, load_base, load_checkpoint, save_checkpoint
from export.errors import CheckpointError
from export.pooling import pad_rows, pooled
from models.training.config import Recipe
from models.training.linear_probe import probe
from models.training.progress import ReportStage
from models.training.tokens import TokenizedExamples, tokenize
from models.training.training_set import TrainingSet

_LORA_RATE = 5.0  # adapters are small and start at zero; LoRA's usual rates are several times full fine-tuning's


def finetune_classifier(
    training_set: TrainingSet, recipe: Recipe, out: Path, report: ReportStage, start: Path | None = None
) -> list[tuple[int, float]]:
    """Train on the set's examples and write the checkpoint to `out`. The losses, as (step, loss).

    `start` is one of our checkpoints, to continue from instead of the recipe's base. The head's rows of labels that it
    does not have are fitted to its encoder before training and again after it (models/training/linear_probe.py).
    Logits are shifted by the logarithm of each label's excess while training, so that the model does not predict a
    label more often than the data has it (logit adjustment, Menon et al., 2021, https://arxiv.org/abs/2007.07314).
    Raises CheckpointError for an unknown base, or a `start` that is no classifier or has labels that the set has not.
    """
    labels, examples = training_set.labels, training_set.examples
    if start:
        model, tokenizer = resume(recipe, start, labels)
    else:
        model, tokenizer = prepare(recipe, outputs=len(labels))
    index = {label: i for i, label in enumerate(labels)}
    rows = tokenize(tokenizer, training_set.texts, recipe.max_length)
    truth = torch.tensor([index[example.label] for example in examples])
    data = TokenizedExamples(rows, truth)
    shift = torch.tensor([math.log(training_set.excess.get(label, 1.0)) for label in labels])

    def collate(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids, mask = pad_rows([row["input_ids"] for row in batch])
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["label"] for row in batch])}

    def loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        logits = model(inputs["input_ids"], inputs["attention_mask"]) + shift
        return nn.functional.cross_entropy(logits, inputs["labels"], label_smoothing=recipe.label_smoothing)

    new_rows = [index[label] for label in sorted(set(labels) - set(checkpoint_labels(start)))] if start else []

    def fit_new_rows(smoothing: float) -> None:
        if new_rows:
            features = pooled(model.encoder, rows, lambda done, total: report("probing", done, total))
            probe(model.head, features, truth, new_rows, shift, smoothing)

    fit_new_rows(recipe.label_smoothing)  # training starts at the minimum of its own loss
    losses = _run_trainer(model, data, collate, loss, recipe, lambda done, total: report("training", done, total))
    merge_adapters(model.cpu())  # the rest is quick, and some of its tensors are on the CPU
    if start and recipe.blend < 1.0:
        interpolate_weights(model, labels, start, recipe.blend)
    fit_new_rows(0.0)  # again, since training and interpolation have changed the encoder
    save(model, tokenizer, labels, out)
    return losses


@torch.no_grad()
def interpolate_weights(model: TextModel, labels: Sequence[str], start: Path, share: float) -> None:
    """Set the weights to share * trained + (1 - share) * start (WiSE-FT, https://arxiv.org/abs/2109.01903).

    This keeps old answers right. The head's rows of labels that `start` does not have stay as trained.
    """
    before, _ = load_checkpoint(start)
    old = before.encoder.state_dict()
    for name, value in model.encoder.state_dict().items():
        if value.is_floating_point():
            value.lerp_(old[name], 1 - share)
    rows = [labels.index(label) for label in checkpoint_labels(start)]
    for extended, known in ((model.head.weight, before.head.weight), (model.head.bias, before.head.bias)):
        extended[rows] = torch.lerp(extended[rows], known, 1 - share)


def prepare(recipe: Recipe, *, outputs: int) -> tuple[TextModel, PreTrainedTokenizerBase]:
    """The base model with a new head, seeded; weights that the recipe freezes are frozen. Raises CheckpointError."""
    set_up(recipe)
    encoder, tokenizer = load_base(recipe.base)
    return TextModel(_trainable(encoder, recipe), outputs), tokenizer


def resume(recipe: Recipe, start: Path, labels: Sequence[str]) -> tuple[TextModel, PreTrainedTokenizerBase]:
    """A classifier's checkpoint, its head extended to `labels`, seeded; weights that the recipe freezes are frozen.

    Raises CheckpointError when `start` is not a classifier's checkpoint or has a label that is not in `labels`.
    """
    set_up(recipe)
    known = checkpoint_labels(start)
    if lost := set(known) - set(labels):
        raise CheckpointError(f"{start} knows the label {min(lost)!r}, which the new version would not have.")
    model, tokenizer = load_checkpoint(start)
    model.head = _extended_head(model.head, known, labels)
    model.encoder = _trainable(model.encoder, recipe)
    return model, tokenizer


def _extended_head(head: nn.Linear, known: Sequence[str], labels: Sequence[str]) -> nn.Linear:
    """The head with one row for each of `labels`: `known` labels keep their row, new ones start at zero.

    A zero row gives every text the logit 0, far below that of its label: predictions stay the same until it is fitted.
    """
    extended = nn.Linear(head.in_features, len(labels))
    nn.init.zeros_(extended.weight)
    nn.init.zeros_(extended.bias)
    rows = [labels.index(label) for label in known]
    with torch.no_grad():
        extended.weight[rows] = head.weight
        extended.bias[rows] = head.bias
    return extended


def set_up(recipe: Recipe) -> None:
    """Set torch's threads and seeds as the recipe says."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)


def _trainable(encoder: nn.Module, recipe: Recipe) -> Any:
    """The encoder with the recipe's layers frozen or, for LoRA, with adapters on all linear layers."""
    if recipe.method == "lora":
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers renamed
            return get_peft_model(encoder, lora)
    _freeze(encoder, recipe.frozen_layers)
    return encoder


def _freeze(encoder: nn.Module, layers: int) -> None:
    """Freeze the embeddings and the first `layers` transformer layers, at most a third; with 0, freeze nothing.

    Layers that share their weights, as ALBERT's, are one layer here, which is trained.
    """
    if layers == 0:
        return
    stack = next((module for module in encoder.modules() if isinstance(module, nn.ModuleList)), nn.ModuleList())
    frozen = stack[: min(layers, len(stack) // 3)]
    for part in (*(m for n, m in encoder.named_children() if n == "embeddings"), *frozen):
        part.requires_grad_(False)


class _ProgressCallback(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Callable[[int, int], None]):
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps)


def _run_trainer(
    model: TextModel,
    data: TokenizedExamples,
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    recipe: Recipe,
    progress: Callable[[int, int], None],
) -> list[tuple[int, float]]:
    class _Trainer(Trainer):  # type: ignore[misc]
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
            return loss(model, inputs)

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            use_cpu=not torch.cuda.is_available(),  # without it, several workers on CPUs do not find each other
            num_train_epochs=recipe.epochs_of(len(data)),
            max_steps=recipe.max_steps or -1,
            per_device_train_batch_size=recipe.batch,
            warmup_steps=0.1,
            lr_scheduler_type="linear",
            train_sampling_strategy="group_by_length",
            seed=recipe.seed,
            data_seed=recipe.seed,
            save_strategy="no",
            report_to=[],
            logging_steps=10,
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=collate,
            optimizers=(_optimizer(model, recipe), None),
            callbacks=[_ProgressCallback(progress)],
        )
        for noisy in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(noisy)
        trainer.train()
        return [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]


def _optimizer(model: TextModel, recipe: Recipe) -> torch.optim.Optimizer:
    rate = recipe.learning_rate * (_LORA_RATE if recipe.method == "lora" else 1.0)
    return torch.optim.AdamW(
        [
            {"params": [p for p in model.encoder.parameters() if p.requires_grad], "lr": rate},
            {"params": list(model.head.parameters()), "lr": recipe.learning_rate * recipe.head_rate},
        ],
        weight_decay=0.01,
    )


def save(model: TextModel, tokenizer: PreTrainedTokenizerBase, labels: list[str], out: Path) -> None:
    """Merge LoRA adapters, and write the checkpoint."""
    merge_adapters(model)
    save_checkpoint(out, model, tokenizer, labels)


def merge_adapters(model: TextModel) -> None:
    """Merge LoRA adapters, if there are any, into the weights they adapt."""
    if hasattr(model.encoder, "merge_and_unload"):
        model.encoder = model.encoder.merge_and_unload()
