"""What takes seconds to compute from the store: off the control application's event loop, and kept for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.feedback.store import StoreError
from serve.errors import NotReady

_RETRY_AFTER_S = 5
_TIMEOUT_S = 20.0
_KEPT, _MAX_AGE_S = 20, 600.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Value(Generic[T]):
    value: T
    until: float
    """in time.monotonic"""


class Computed(Generic[T]):
    """A value for each task, computed when it is asked for. Requests that come meanwhile wait for the same computation.

    A value is kept for `_KEPT` times as long as it took: that of a short log is always fresh, and whoever asks without
    pause for that of a long one keeps a twentieth of a core busy. One thread, so that it takes none of the operators.
    """

    def __init__(self, name: str, compute: Callable[[str], T]):
        self._name, self._compute = name, compute
        self._values: dict[str, asyncio.Future[_Value[T]]] = {}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def get(self, task: str) -> T:
        """The value. Raises NotReady when it takes long, or the store is unavailable; and what `compute` raises."""
        value = self._values.get(task)
        if value is None or (value.done() and not _is_fresh(value)):
            value = asyncio.get_running_loop().run_in_executor(self._threads, self._computed, task)
            self._values[task] = value
        sentence = f"{self._name} of {task} is still being computed; ask again"
        return (await within(asyncio.shield(value), sentence)).value

    def forget(self, task: str) -> None:
        """Compute the value anew when it is asked for next."""
        if task in self._values and self._values[task].done():
            del self._values[task]

    def _computed(self, task: str) -> _Value[T]:
        begun = time.monotonic()
        value = self._compute(task)
        now = time.monotonic()
        return _Value(value, now + min(_KEPT * (now - begun), _MAX_AGE_S))


def _is_fresh(value: asyncio.Future[_Value[T]]) -> bool:
    return not value.cancelled() and value.exception() is None and time.monotonic() < value.result().until


async def within(value: asyncio.Future[T], sentence: str) -> T:
    """The value. Raises NotReady with the sentence after a while, and when the store is unavailable."""
    try:
        return await asyncio.wait_for(value, _TIMEOUT_S)
    except TimeoutError:
        raise NotReady(sentence, retry_after=_RETRY_AFTER_S) from None
    except StoreError as error:
        message = f"the feedback store cannot be reached: {error}"
        raise NotReady(message, retry_after=_RETRY_AFTER_S) from error
