"""The errors a client can cause or meet, and when to raise each. Only this module knows HTTP status codes."""

from __future__ import annotations

from typing import Any, ClassVar


class RequestError(Exception):
    """Base class. Its body has `error` (a sentence), `code` (stable, for programs) and the `details`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after: int | None = None, **details: Any):
        super().__init__(message)
        self.retry_after = retry_after
        self.details = details

    def body(self) -> dict[str, Any]:
        return {"error": str(self), "code": self.code, **self.details}


class NotHttp(RequestError):
    """Raise when a request is not valid HTTP; HAProxy answers most of these itself, and names this code too."""

    status, code = 400, "bad_request"


class NotJson(RequestError):
    """Raise when the body is not valid JSON."""

    status, code = 400, "not_json"


class NotFound(RequestError):
    """Raise for a path, a model or a version that does not exist."""

    status, code = 404, "not_found"


class Gone(RequestError):
    """Raise for something that existed and was deleted on purpose, such as a prediction past its retention."""

    status, code = 410, "gone"


class Forbidden(RequestError):
    """Raise when an operator's endpoint is called without the token, or a web page may have sent a change."""

    status, code = 403, "forbidden"


class MethodNotAllowed(RequestError):
    """Raise when the path exists but not with this method."""

    status, code = 405, "method_not_allowed"


class Conflict(RequestError):
    """Raise when the request conflicts with the current state, such as a rollback without a previous champion."""

    status, code = 409, "conflict"


class BodyTooLarge(RequestError):
    """Raise as soon as a body is known to exceed the limit; do not read the rest."""

    status, code = 413, "body_too_large"


class UnsupportedMediaType(RequestError):
    """Raise when the body is declared to be something other than JSON."""

    status, code = 415, "unsupported_media_type"


class InvalidRequest(RequestError):
    """Raise when the JSON does not have the shape of the request; `fields` says where and why.

    Without `fields`, write the message as "field: reason".
    """

    status, code = 422, "invalid_request"

    def __init__(self, message: str, *, fields: list[dict[str, str]] | None = None, **details: Any):
        where, _, reason = message.partition(": ")
        super().__init__(message, fields=fields or [{"field": where, "reason": reason}], **details)


class Overloaded(RequestError):
    """Raise when accepting the request would make it and others late; always with `retry_after`.

    For `full_s` seconds every other request would be refused as well.
    """

    status, code = 503, "overloaded"

    def __init__(self, message: str, *, retry_after: int, full_s: float = 0.0):
        super().__init__(message, retry_after=retry_after)
        self.full_s = full_s


class NotReady(RequestError):
    """Raise when a model is still loading, or its worker died; always with `retry_after`."""

    status, code = 503, "not_ready"


class DeadlineExceeded(RequestError):
    """Raise when the response would come after the client's deadline."""

    status, code = 504, "deadline_exceeded"


class ClientLeft(RequestError):
    """Raise when the client has disconnected; nginx's status code, which only the metrics see."""

    status, code = 499, "client_left"


class Internal(RequestError):
    """Raise in place of any unforeseen exception; the cause goes to the log, never to the client."""

    status, code = 500, "internal"
