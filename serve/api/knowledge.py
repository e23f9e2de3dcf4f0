"""The knowledge base below /v2/knowledge: questions and answers, kept in the store by the control application.

Entries are plain text and are returned as they came: nothing in them is interpreted. Replicas follow the store by
themselves (serve/engine/knowledge.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from pydantic import Field, StringConstraints, field_validator, model_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.feedback.store import KnowledgeFull, Store, StoreError
from models.knowledge.types import Entry, StoredEntry, language_tag
from models.tasks.base import Strict, not_blank
from serve.api.operations import authorize
from serve.api.request import read_body, require_json
from serve.api.responses import json_response, plain
from serve.api.validation import parse_json, validate
from serve.browser_guard import accepted_hosts, refuse_pages
from serve.config import Config
from serve.engine.knowledge import KnowledgeBase
from serve.errors import Conflict, InvalidRequest, NotFound, NotReady

BASE = "/v2/knowledge"
MAX_IN_REQUEST = 1_000
"""entries of one PUT, and ids of one DELETE"""
MAX_MATCHES = 50
MAX_PAGE = 1_000
_DEFAULT_PAGE = 100
_RETRY_AFTER_S = 5
_TIMEOUT_S = 20.0
_DELETE_TIMEOUT_S = 600.0  # rewrites the whole SQLite file
T = TypeVar("T")

_Text = Annotated[str, StringConstraints(strict=True)]


class Entries(Strict):
    """`{"entries": [...]}`: all are stored, or none."""

    entries: list[Entry] = Field(min_length=1, max_length=MAX_IN_REQUEST)

    @model_validator(mode="after")
    def _ids_differ(self) -> Entries:
        seen: dict[str, int] = {}
        for i, entry in enumerate(self.entries):
            if (first := seen.setdefault(entry.key, i)) != i:
                what = "id" if entry.id is not None else "question"
                raise ValueError(f"entries[{i}] has the {what} of entries[{first}]; send one of them")
        return self


class Deletion(Strict):
    """The entries to delete: those with `ids`, or `all`."""

    ids: list[_Text] | None = Field(None, min_length=1, max_length=MAX_IN_REQUEST)
    all: bool = Field(False, strict=True)

    @model_validator(mode="after")
    def _ids_or_all(self) -> Deletion:
        if (self.ids is not None) == self.all:
            raise ValueError('give either "ids" or "all": true')
        return self


class Search(Strict):
    """A text, and how many entries that are near it are asked for."""

    text: Annotated[str, StringConstraints(strict=True, max_length=20_000)] = Field(examples=["can I return a gift?"])
    limit: int = Field(5, ge=1, le=MAX_MATCHES, strict=True)
    language: _Text | None = Field(None, description="BCP 47; entries of this language come before others")
    min_similarity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="default: knowledge.min_similarity; 0 shows what is near, whether near enough or not",
    )

    @field_validator("text")
    @classmethod
    def _text_not_blank(cls, text: str) -> str:
        return not_blank(text)

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str | None) -> str | None:
        return None if language is None else language_tag(language)


class KnowledgeApi:
    """The endpoints."""

    def __init__(self, config: Config, store: Store):
        self._config, self._store = config, store
        self._base = KnowledgeBase(config.home, store)
        self._hosts = accepted_hosts(config.server.host, config.server.hosts)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="knowledge")

    def routes(self) -> list[Route]:
        return [
            Route(BASE, plain(self.page), methods=["GET"]),
            Route(BASE, plain(self.put), methods=["PUT"]),
            Route(BASE, plain(self.delete), methods=["DELETE"]),
            Route(f"{BASE}/search", plain(self.search), methods=["POST"]),
            Route(f"{BASE}/{{id}}", plain(self.get_one), methods=["GET"]),
            Route(f"{BASE}/{{id}}", plain(self.put_one), methods=["PUT"]),
            Route(f"{BASE}/{{id}}", plain(self.delete_one), methods=["DELETE"]),
        ]

    async def page(self, request: Request) -> Response:
        """A page of the entries in the order of their ids, and the state of the knowledge base."""
        authorize(request, self._config.server)
        after, limit = _page(request)
        entries = await self._query(lambda store: store.knowledge.page(after, limit))
        state = await self._query(lambda store: store.knowledge.state())
        return json_response(
            {
                "entries": [_shown(entry) for entry in entries],
                "next": entries[-1].id if len(entries) == limit else None,
                "total": state.entries,
                "waiting": state.waiting,
                "revision": state.revision,
                "min_similarity": self._config.knowledge.min_similarity,
                "max_entries": self._config.knowledge.max_entries,
            }
        )

    async def put(self, request: Request) -> Response:
        """Add or replace entries: all of the request, or none."""
        given = validate(Entries, await self._change(request))
        return await self._put(given.entries)

    async def _put(self, entries: list[Entry]) -> Response:
        max_entries = self._config.knowledge.max_entries
        try:
            written = await self._query(lambda store: store.knowledge.put(entries, max_entries))
        except KnowledgeFull as error:
            raise Conflict(str(error), limit=max_entries) from None
        return json_response({**asdict(written), "ids": [entry.key for entry in entries]})

    async def delete(self, request: Request) -> Response:
        """Delete entries, with their bytes in the store."""
        given = validate(Deletion, await self._change(request))
        if given.ids is None:
            deleted = await self._query(lambda store: store.knowledge.delete_all(), _DELETE_TIMEOUT_S)
        else:
            ids = set(given.ids)
            deleted = await self._query(lambda store: store.knowledge.delete(ids), _DELETE_TIMEOUT_S)
        return json_response({"deleted": deleted})

    async def get_one(self, request: Request) -> Response:
        authorize(request, self._config.server)
        id_ = request.path_params["id"]
        entry = await self._query(lambda store: store.knowledge.get(id_))
        if entry is None:
            raise _unknown(id_)
        return json_response(_shown(entry))

    async def put_one(self, request: Request) -> Response:
        value, id_ = await self._change(request), request.path_params["id"]
        if isinstance(value, dict) and value.setdefault("id", id_) != id_:
            raise InvalidRequest("id: differs from the id in the path; leave it out")
        return await self._put([validate(Entry, value)])

    async def delete_one(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        refuse_pages(request.headers, self._hosts)
        authorize(request, self._config.server)
        if not await self._query(lambda store: store.knowledge.delete({id_}), _DELETE_TIMEOUT_S):
            raise _unknown(id_)
        return json_response({"deleted": 1})

    async def search(self, request: Request) -> Response:
        """The entries nearest to a text, as predictions get them."""
        require_json(request)
        asked = validate(Search, parse_json(await self._read(request)))
        least = self._config.knowledge.min_similarity if asked.min_similarity is None else asked.min_similarity

        def find(store: Store) -> Any:
            self._base.refresh()
            return self._base.search(asked.text, asked.language, asked.limit, least)

        return json_response({"matches": [asdict(match) for match in await self._query(find)]})

    async def _change(self, request: Request) -> Any:
        """The body of a request that changes something. Raises as `refuse_pages`, `authorize` and `read_body` do."""
        refuse_pages(request.headers, self._hosts)
        authorize(request, self._config.server)
        return parse_json(await self._read(request))

    async def _read(self, request: Request) -> bytes:
        limits = self._config.limits
        return await read_body(request, limits.body_bytes, time.monotonic() + limits.deadline_s)

    async def _query(self, query: Callable[[Store], T], timeout_s: float = _TIMEOUT_S) -> T:
        """Return `query(store)`, run in a thread. Raises NotReady when the store is unavailable or does not answer."""
        doing = asyncio.get_running_loop().run_in_executor(self._threads, query, self._store)
        try:
            return await asyncio.wait_for(doing, timeout_s)
        except KnowledgeFull:
            raise
        except StoreError as error:
            message = f"the feedback store cannot be reached: {error}"
            raise NotReady(message, retry_after=_RETRY_AFTER_S) from error
        except TimeoutError:
            sentence = f"the feedback store has not answered for {timeout_s:g} s; what was asked may still be done"
            raise NotReady(sentence, retry_after=_RETRY_AFTER_S) from None


def _page(request: Request) -> tuple[str | None, int]:
    """`after` and `limit` of the query. Raises InvalidRequest."""
    given = dict(request.query_params)
    if unknown := sorted(given.keys() - {"after", "limit"}):
        raise InvalidRequest(f"{unknown[0][:100]}: there is no such parameter here; there are: after, limit")
    limit = given.get("limit", str(_DEFAULT_PAGE))
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= MAX_PAGE):
        raise InvalidRequest(f"limit: {limit[:20]!r} is not a number from 1 to {MAX_PAGE}")
    return given.get("after"), int(limit)


def _shown(entry: StoredEntry) -> dict[str, Any]:
    return {
        "id": entry.id, "question": entry.question, "answer": entry.answer, "language": entry.language,
        "tags": list(entry.tags), "updated": entry.at,
    }  # fmt: skip


def _unknown(id_: str) -> NotFound:
    return NotFound(f"there is no entry {id_[:100]!r}; GET {BASE} lists them")
