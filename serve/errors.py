"""The errors a client can cause or meet, each with when to raise it. Status codes exist here and nowhere below."""

from __future__ import annotations

from typing import Any, ClassVar


class RequestError(Exception):
    """Base: an answer with `error` (a sentence), `code` (stable, for programs) and what `details` add."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after: int | None = None, **details: Any):
        super().__init__(message)
        self.retry_after = retry_after
        self.details = details

    def body(self) -> dict[str, Any]:
        return {"error": str(self), "code": self.code, **self.details}


class NotJson(RequestError):
    """Raise when the body does not parse, before looking at what it means."""

    status, code = 400, "not_json"


class NotFound(RequestError):
    """Raise for a path, a model or a version that does not exist."""

    status, code = 404, "not_found"


class Gone(RequestError):
    """Raise for what existed and was deleted on purpose, such as a prediction past its time."""

    status, code = 410, "gone"


class Forbidden(RequestError):
    """Raise when an operator's endpoint is called without the token, or a web page may have sent a change."""

    status, code = 403, "forbidden"


class MethodNotAllowed(RequestError):
    """Raise when the path exists but not with this method."""

    status, code = 405, "method_not_allowed"


class Conflict(RequestError):
    """Raise when what is asked for contradicts what is so now, such as a rollback with nothing to go back to."""

    status, code = 409, "conflict"


class BodyTooLarge(RequestError):
    """Raise as soon as a body is known to exceed the limit; do not read the rest."""

    status, code = 413, "body_too_large"


class UnsupportedMediaType(RequestError):
    """Raise when the body is declared to be something other than JSON."""

    status, code = 415, "unsupported_media_type"


class InvalidRequest(RequestError):
    """Raise when the JSON does not have the shape of the request; `fields` says where and why.

    Without `fields` the message is "where: why".
    """

    status, code = 422, "invalid_request"

    def __init__(self, message: str, *, fields: list[dict[str, str]] | None = None, **details: Any):
        where, _, why = message.partition(": ")
        super().__init__(message, fields=fields or [{"field": where, "reason": why}], **details)


class Overloaded(RequestError):
    """Raise when taking the request on would make it and others late; always with `retry_after`.

    For `full_s` seconds any other request would be refused as well.
    """

    status, code = 503, "overloaded"

    def __init__(self, message: str, *, retry_after: int, full_s: float = 0.0):
        super().__init__(message, retry_after=retry_after)
        self.full_s = full_s


class NotReady(RequestError):
    """Raise when a model is still loading, or its worker died; always with `retry_after`."""

    status, code = 503, "not_ready"


class DeadlineExceeded(RequestError):
    """Raise when the answer would come too late to be of use."""

    status, code = 504, "deadline_exceeded"


class ClientLeft(RequestError):
    """Raise when nobody waits for the answer any more; nginx's number, which nobody reads but the metrics."""

    status, code = 499, "client_left"


class Internal(RequestError):
    """Raise in place of any unforeseen exception; the cause goes to the log, never to the client."""

    status, code = 500, "internal"
