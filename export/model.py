"""A bundle's model in memory: the encoder's session and, where the bundle has one, the linear reader beside it.

The linear reader answers the texts that it is sure of, in microseconds. The encoder reads the others, and the answer is
a blend of both (docs/decisions/0035-two-readers.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.bundle import Bundle, LinearRecord, Stage
from export.linear import Floats, LinearReader, Reading
from export.providers import GpuOptions, Providers
from export.session import OnnxSession, run_by_length, text_encoder
from export.tokenizer import Ids, TextEncoder

_MAX_READINGS = 4096  # of texts that go on to the encoder; those of dropped requests stay until there are so many


class Readers:
    """The linear reader and the blend: what becomes of a text's reading, alone and beside the encoder's logits.

    `labels` are the bundle's, none for a ranker. `early`: whether the linear reader may answer alone. `only`: it has
    to, as there is no encoder.
    """

    def __init__(
        self,
        linear: LinearReader,
        record: LinearRecord,
        labels: Sequence[str],
        *,
        early: bool = True,
        only: bool = False,
    ):
        self.linear, self.blend, self.only = linear, record.blend, only
        rule = record.early if early else None
        self.answers_early = rule is not None or (only and bool(labels))
        self._min_known = 0.0 if only or rule is None else rule.min_known
        self._above = [
            0.0 if only or rule is None else max(rule.above, rule.label_above.get(label, 0.0)) for label in labels
        ]

    def early(self, reading: Reading) -> Floats | None:
        """The logits of an early answer, (labels,); None when the linear reader is not sure enough."""
        if not self.answers_early or reading.known < self._min_known:
            return None
        logits = reading.logits * np.float32(self.blend.linear_alone)
        best = int(logits.argmax())
        probability = 1 / float(np.add.reduce(np.exp(logits - logits[best])))
        return logits if probability > self._above[best] else None

    def blended(self, encoder: Floats, linear: Floats) -> Floats:
        """Both readers' logits, each (texts, labels), to the answer's."""
        return np.float32(self.blend.encoder) * encoder + np.float32(self.blend.linear) * linear


class Parts(NamedTuple):
    """What the final outputs of two readers are made of: logits, (texts, labels)."""

    encoder: Floats
    linear: Floats
    blended: Floats
    early: NDArray[np.bool_]
    """(texts,): whether the linear reader answers alone, and not the blend"""


class Outputs(NamedTuple):
    """What a classifier gives for some texts: logits, (texts, labels)."""

    final: Floats
    parts: Parts | None
    """None for a model of one reader"""


class Model:
    """Computes a text's final logits or vector from its token ids. `run` and `early` are thread-safe.

    An answer depends on its text alone, not on the other texts of a batch.
    """

    def __init__(self, bundle: Bundle, encoder: TextEncoder, session: OnnxSession | None, readers: Readers | None):
        if session is None and readers is None:
            raise ValueError("a model needs a reader")
        self.bundle, self.encoder, self.session, self.readers = bundle, encoder, session, readers
        present: dict[Stage, bool] = {"linear": readers is not None, "encoder": session is not None}
        self.stages: tuple[Stage, ...] = tuple(stage for stage in present if present[stage])
        """the readers of a text that is not answered early, in order"""
        self._readings: dict[Ids, Reading] = {}  # of texts that go on to the encoder

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        providers: Providers = "auto",
        threads: int = 1,
        gpu: GpuOptions | None = None,
        shared: bool = False,
        early_answers: bool = True,
    ) -> Model:
        """The bundle's model; the options are those of OnnxSession. Raises BundleError, ProviderError."""
        session, record, readers = None, bundle.manifest.linear, None
        if bundle.manifest.has_encoder:
            session = OnnxSession(bundle, providers=providers, threads=threads, gpu=gpu, shared=shared)
        if record is not None:
            linear, only = LinearReader.of_bundle(bundle, record), session is None
            readers = Readers(linear, record, bundle.manifest.labels, early=early_answers, only=only)
        return cls(bundle, session.encoder if session else text_encoder(bundle), session, readers)

    @property
    def provider(self) -> str:
        """The execution provider of the encoder; numpy where there is none."""
        return self.session.provider if self.session else "numpy"

    @property
    def answers_early(self) -> bool:
        """Whether `early` may answer a text."""
        return self.readers is not None and self.readers.answers_early

    @property
    def on_gpu(self) -> bool:
        return self.session is not None and self.session.on_gpu

    @property
    def batch_tokens(self) -> int:
        """As OnnxSession's."""
        return self.session.batch_tokens if self.session else 256

    @property
    def padding_cost(self) -> float:
        """As OnnxSession's."""
        return self.session.padding_cost if self.session else 0.0

    def early(self, ids: Ids) -> Floats | None:
        """The final logits of a text that the linear reader is sure of, (labels,); None: `run` must read it."""
        if self.readers is None or not self.readers.answers_early:
            return None
        reading = self.readers.linear.read(ids)
        if (logits := self.readers.early(reading)) is None:
            if len(self._readings) >= _MAX_READINGS:
                self._readings.clear()
            self._readings[ids] = reading
        return logits

    def run(self, rows: Sequence[Ids]) -> Floats:
        """Outputs of texts that are not answered early: (texts, labels), blended, or (texts, dimensions)."""
        if self.session is None:
            return np.stack([self._answer_alone(ids) for ids in rows])
        output = self.session.run(rows)
        if self.readers is None:
            return output
        return self.readers.blended(output, np.stack([self._linear_logits(ids) for ids in rows]))

    def predict(self, texts: Sequence[str], *, batch: int = 32) -> Floats:
        """Texts to the outputs that the server would give, (texts, labels or dimensions), in order."""
        rows = [encoded.ids for encoded in self.encoder.encode(texts)]
        early = [self.early(ids) for ids in rows]
        unread = [ids for ids, found in zip(rows, early, strict=True) if found is None]
        rest = iter(run_by_length(self.run, unread, batch) if unread else ())
        return np.stack([next(rest) if found is None else found for found in early])

    def outputs(self, texts: Sequence[str]) -> Outputs:
        """`predict` of a classifier, with what each reader gives, for an evaluation."""
        if self.session is None or self.readers is None:
            return Outputs(self.predict(texts), None)
        rows = [encoded.ids for encoded in self.encoder.encode(texts)]
        readings = [self.readers.linear.read(ids) for ids in rows]
        encoder, linear = run_by_length(self.session.run, rows), np.stack([reading.logits for reading in readings])
        blended, early = self.readers.blended(encoder, linear), [self.readers.early(reading) for reading in readings]
        final = np.stack([whole if found is None else found for whole, found in zip(blended, early, strict=True)])
        return Outputs(final, Parts(encoder, linear, blended, np.array([found is not None for found in early])))

    def warm_up(self) -> float:
        """Run the shapes that serving uses; the seconds a token in a batch. Raises BundleError for a wrong output."""
        return self.session.warm_up() if self.session else 0.0

    def _linear_logits(self, ids: Ids) -> Floats:
        assert self.readers is not None
        reading = self._readings.pop(ids, None)
        return (reading or self.readers.linear.read(ids)).logits

    def _answer_alone(self, ids: Ids) -> Floats:
        assert self.readers is not None
        return self.readers.linear.read(ids).logits * np.float32(self.readers.blend.linear_alone)
