"""Every error that a client can see, with its wire facts.

    DreamserveError
    +-- InvalidRequest         400  a field has a bad value; `fields` names it
    |   +-- InvalidImage       400  a picture could not be had or read; names its field
    |   +-- AddOnMisfit        400  an add-on does not fit the model; names it and its field
    +-- InvalidFields          400  several fields have bad values
    +-- InvalidJson            400  the body is no JSON object
    +-- BodyTooLarge           413
    +-- BodyTooSlow            408
    +-- HeadersTooLarge        431
    +-- InvalidKey             401
    +-- ModelNotFound          404
    +-- JobNotFound            404
    +-- NotServed              400  documented call that this server does not offer
    |   +-- NotAllowed         403  the key may not use a model or a feature
    +-- RateLimited            429  retryable
    |   +-- TooManyOpen        429  retryable: the key has as many open jobs as it may have
    +-- MonthlyLimit           429  the key's pictures of this month are used up
    +-- Overloaded             503  retryable: queues are full
    +-- Cancelled              409
    +-- GenerationFailed       500  the pipeline refused or broke
    |   +-- NonFiniteLatents   500
    |   +-- OutOfMemory        503  retryable
    +-- ModelLoadFailed        503  retryable: the weights could not be had, or do not fit
    +-- ModelNotRunning        503  no deployment serves the model
    +-- ReloadFailed           500  the weights of a model could not be taken up
    +-- SafetyCheckFailed      500  nothing unchecked leaves
    +-- StorageUnavailable     503  retryable
    +-- JobStoreUnavailable    503  retryable
    +-- ReplicaLost            503  retryable: a replica died with the request
    +-- WeightsRefused         500  the files of a model or add-on may not be loaded

Instances take positional arguments only and pass them to `super().__init__`, so they survive the
trip between Ray actors. Match on the class or its attributes, never on the type's name: across
actors Ray wraps the class. `public_message` is all a client sees; `str(error)` may say more and
goes to the log.
"""

from typing import ClassVar

__all__ = [
    "AddOnMisfit",
    "BodyTooLarge",
    "BodyTooSlow",
    "Cancelled",
    "DreamserveError",
    "GenerationFailed",
    "HeadersTooLarge",
    "InvalidFields",
    "InvalidImage",
    "InvalidJson",
    "InvalidKey",
    "InvalidRequest",
    "JobNotFound",
    "JobStoreUnavailable",
    "ModelLoadFailed",
    "ModelNotFound",
    "ModelNotRunning",
    "MonthlyLimit",
    "NonFiniteLatents",
    "NotAllowed",
    "NotServed",
    "OutOfMemory",
    "Overloaded",
    "RateLimited",
    "ReloadFailed",
    "ReplicaLost",
    "SafetyCheckFailed",
    "StorageUnavailable",
    "TooManyOpen",
    "WeightsRefused",
    "echoed",
]

_MAX_ECHOED = 96  # characters; no id of a catalogue is longer


def echoed(value: object) -> str:
    """Return what a message repeats of a value that is not ours: its beginning."""
    return str(value)[:_MAX_ECHOED]


class DreamserveError(Exception):
    """Base of all errors. The first argument, if any, is a detail for the log."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    message: ClassVar[str] = "Internal server error. Please try again."
    retryable: ClassVar[bool] = False  # the same job may succeed when it is run again
    is_outage: ClassVar[bool] = False  # says nothing about the job: such runs are not counted

    def __init__(self, *args: object) -> None:
        super().__init__(*args)

    @property
    def public_message(self) -> str:
        """What the client reads; holds no path, key or address."""
        return self.message

    @property
    def fields(self) -> dict[str, list[str]]:
        """Messages per request field, empty when no field is to blame."""
        return {}


class InvalidRequest(DreamserveError):
    """A field has a bad value: `InvalidRequest(field, message)`."""

    status = 400
    code = "invalid_request"
    message = "The request is not valid."

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field, self.detail = field, detail

    @property
    def public_message(self) -> str:
        """The detail, which is written for clients."""
        return self.detail

    @property
    def fields(self) -> dict[str, list[str]]:
        """The field to blame with its message."""
        return {self.field: [self.detail]}


class InvalidImage(InvalidRequest):
    """An input picture could not be had or read: `InvalidImage(field, message)`."""

    code = "invalid_image"


class AddOnMisfit(InvalidRequest):
    """An add-on that the request names does not fit the model: `AddOnMisfit(field, message)`."""

    code = "add_on_misfit"


class InvalidFields(DreamserveError):
    """Several fields have bad values: `InvalidFields({field: [message, ...], ...})`."""

    status = 400
    code = "invalid_fields"
    message = InvalidRequest.message

    def __init__(self, messages: dict[str, list[str]] | None = None) -> None:
        super().__init__(messages)
        self._messages = messages or {}

    @property
    def public_message(self) -> str:
        """All messages as one text."""
        return " ".join(text for texts in self._messages.values() for text in texts) or self.message

    @property
    def fields(self) -> dict[str, list[str]]:
        """The fields to blame with their messages."""
        return self._messages


class InvalidJson(DreamserveError):
    """The body is no JSON object."""

    status = 400
    code = "invalid_json"
    message = "Invalid API Request"


class BodyTooLarge(DreamserveError):
    """The body, or what it holds besides pictures, is over a limit: `BodyTooLarge(limit_bytes)`."""

    status = 413
    code = "body_too_large"
    message = "The request body is too large."


class BodyTooSlow(DreamserveError):
    """The body had not arrived after `http.body_timeout_s`: `BodyTooSlow(timeout_s)`."""

    status = 408
    code = "body_too_slow"
    message = "The request body did not arrive in time."


class HeadersTooLarge(DreamserveError):
    """The headers are over `http.max_header_bytes`: `HeadersTooLarge(limit_bytes)`."""

    status = 431
    code = "headers_too_large"
    message = "The request headers are too large."


class InvalidKey(DreamserveError):
    """No key, an unknown or a revoked one."""

    status = 401
    code = "invalid_key"
    message = "Invalid Api Key"


class ModelNotFound(DreamserveError):
    """`model_id` is missing or not in the catalogue."""

    status = 404
    code = "model_not_found"
    message = "Model id not found"


class JobNotFound(DreamserveError):
    """No job of this id belongs to the key."""

    status = 404
    code = "job_not_found"
    message = "Request not found"


class NotServed(DreamserveError):
    """A call or feature that this server does not offer: `NotServed(message)`."""

    status = 400
    code = "not_served"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def public_message(self) -> str:
        """The detail, which is written for clients."""
        return self.detail


class RateLimited(DreamserveError):
    """The key sends too much: `RateLimited(retry_after_s)`."""

    status = 429
    code = "rate_limited"
    message = "Rate limit exceeded"
    retryable = True

    def __init__(self, retry_after_s: float = 30.0) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class TooManyOpen(RateLimited):
    """The key has as many open jobs as it may: `TooManyOpen(limit, num_open, retry_after_s)`.

    limit: jobs that one key may have open. num_open: those that it has open.
    """

    def __init__(self, limit: int, num_open: int, retry_after_s: float = 30.0) -> None:
        super().__init__(retry_after_s)
        self.args = (limit, num_open, retry_after_s)
        self.limit, self.num_open = limit, num_open

    @property
    def public_message(self) -> str:
        """The documented text of V6 and V7, which names the limit."""
        return f"{self.message}. Maximum {self.limit} queued requests allowed."


class MonthlyLimit(DreamserveError):
    """The pictures that the key may ask for in a month are used up."""

    status = 429
    code = "monthly_limit"
    message = "Your monthly limit exceeded"


class NotAllowed(NotServed):
    """The key may not use a model or a feature that others may: `NotAllowed(message)`."""

    status = 403
    code = "not_allowed"


class Overloaded(DreamserveError):
    """The queues are full: `Overloaded(retry_after_s)`."""

    status = 503
    code = "overloaded"
    message = "Service temporarily unavailable. Please try again later."
    retryable = is_outage = True

    def __init__(self, retry_after_s: float = 30.0) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class Cancelled(DreamserveError):
    """The job was cancelled by its client."""

    status = 409
    code = "cancelled"
    message = "The request was cancelled."


class GenerationFailed(DreamserveError):
    """The pipeline refused the request or broke."""

    code = "generation_failed"
    message = "Failed, Try Again"


class NonFiniteLatents(GenerationFailed):
    """The model produced NaN or infinite values; a black picture would hide it."""

    code = "non_finite_latents"
    message = "Failed: the model produced non-finite values for this request."


class OutOfMemory(GenerationFailed):
    """The device has no memory for even one request of this size."""

    status = 503
    code = "out_of_memory"
    message = "Failed: not enough GPU memory for this request. Try a smaller size."
    retryable = True


class ModelLoadFailed(DreamserveError):
    """A model that shares its replica could not be brought into memory: `ModelLoadFailed(why)`."""

    status = 503
    code = "model_load_failed"
    message = "Failed: the model could not be loaded. Please try again later."
    retryable = True


class ModelNotRunning(DreamserveError):
    """No deployment serves the model: its application was not deployed yet, or not any more."""

    status = 503
    code = "model_not_running"
    message = "Failed: the model is not running. Please try again later."


class ReloadFailed(DreamserveError):
    """The weights that a model should serve could not be taken up: `ReloadFailed(id, reason)`."""

    code = "reload_failed"
    message = "The model could not be reloaded."


class SafetyCheckFailed(DreamserveError):
    """The safety checker itself failed; the pictures are withheld."""

    code = "safety_check_failed"
    message = "Failed: the safety check could not be completed."


class StorageUnavailable(DreamserveError):
    """The object store did not take or give a file."""

    status = 503
    code = "storage_unavailable"
    message = "Service temporarily unavailable. Please try again later."
    retryable = True
    is_outage = True


class JobStoreUnavailable(DreamserveError):
    """The job database does not answer."""

    status = 503
    code = "job_store_unavailable"
    message = "Service temporarily unavailable. Please try again later."
    retryable = True
    is_outage = True


class ReplicaLost(DreamserveError):
    """A replica died while it worked on the request; the request is safe to repeat."""

    status = 503
    code = "replica_lost"
    message = "Service temporarily unavailable. Please try again later."
    retryable = True


class WeightsRefused(DreamserveError):
    """The files of a model or add-on are missing, wrong or unsafe: `WeightsRefused(id, reason)`."""

    code = "weights_refused"
    message = "Failed: the weights of the model could not be loaded."

    def __init__(self, entry_id: str, reason: str) -> None:
        super().__init__(entry_id, reason)
        self.entry_id, self.reason = entry_id, reason

    @property
    def public_message(self) -> str:
        """Which weights they are, of a canary its model's; why they are refused may hold paths."""
        return f"Failed: the weights of {self.entry_id.partition('@')[0]} could not be loaded."

    def __str__(self) -> str:
        return f"{self.entry_id}: {self.reason}"
