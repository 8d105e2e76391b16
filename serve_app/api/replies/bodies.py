"""The wire forms of replies, keys in the order of the documented bodies.

`messege` is the hosted API's own spelling; clients read either, so both are sent.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

__all__ = [
    "CancelledReply",
    "CheckReply",
    "CropReply",
    "DeletedReply",
    "ErrorReply",
    "FailedReply",
    "FetchedReply",
    "LoadReply",
    "ModelRow",
    "ProcessingReply",
    "ReloadReply",
    "ReplicaRow",
    "Reply",
    "RunningReply",
    "SchedulersReply",
    "SuccessReply",
    "TokenReply",
    "UrlReply",
]


class Reply(BaseModel):
    """Base of all replies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: str


class SuccessReply(Reply):
    """A generation call whose pictures are ready."""

    status: Literal["success"] = "success"
    generationTime: float = Field(description="seconds")
    id: int
    output: list[str] = Field(description="one link per sample")
    proxy_links: list[str]
    nsfw_content_detected: bool
    webhook_status: str = ""
    meta: dict[str, JsonValue] = Field(description="what was run")
    tip: str = Field("", description="what of the prompt had no effect; else empty")
    future_links: list[str]


class ProcessingReply(Reply):
    """A generation call that is not done within the hold."""

    status: Literal["processing"] = "processing"
    tip: str = Field(description="what to do next, and what of the prompt has no effect")
    eta: int = Field(description="seconds until it is worth to fetch, estimated")
    messege: str = "Try to fetch request after seconds estimated"
    message: str = "Try to fetch request after seconds estimated"
    webhook_status: str = ""
    fetch_result: str = Field(description="address to poll")
    id: int
    output: Literal[""] | list[str] = []
    proxy_links: list[str] = []
    nsfw_content_detected: bool = False
    meta: dict[str, JsonValue]
    progress: float = Field(description="share of denoising steps done, 0 to 1")
    queue_place: int = Field(
        description="place among the jobs of its model that wait, 1 is next; 0: it does not wait"
    )
    future_links: list[str] = Field(description="links that will work once the job is done")


class FetchedReply(Reply):
    """A fetch of a finished job."""

    status: Literal["success"] = "success"
    id: int
    output: list[str]
    proxy_links: list[str]
    nsfw_content_detected: bool
    webhook_status: str = ""


class RunningReply(Reply):
    """A fetch of a job that is queued or at work."""

    status: Literal["processing"] = "processing"
    messege: str = "try again later."
    message: str = "try again later."
    output: Literal[""] | list[str] = ""
    tip: str = "Fetch the result again after eta seconds."
    eta: int = Field(description="seconds until it is worth to fetch, estimated")
    progress: float = Field(description="share of denoising steps done, 0 to 1")
    queue_place: int = Field(
        description="place among the jobs of its model that wait, 1 is next; 0: it does not wait"
    )


class FailedReply(Reply):
    """A job that failed, was cancelled or is not known."""

    status: Literal["failed"] = "failed"
    id: Literal[""] | int = ""
    message: str
    messege: str
    output: Literal[""] = ""
    tip: str = ""
    reason: str = Field(description="stable code of the cause")


class CancelledReply(Reply):
    """A cancel that took effect."""

    status: Literal["success"] = "success"
    id: int
    message: str = "request cancelled"
    messege: str = "request cancelled"


class DeletedReply(Reply):
    """Files of a job are gone."""

    status: Literal["success"] = "success"
    message: str = "image deleted"
    messege: str = "image deleted"


class LoadReply(Reply):
    """How much is to do."""

    queue_num: int = Field(description="jobs queued or at work")
    queue_time: float = Field(description="seconds until a new job is begun, estimated")
    status: Literal["ok"] = "ok"


class CropReply(Reply):
    """An inline picture has a link."""

    status: Literal["success"] = "success"
    message: str = "image uploaded"
    messege: str = "image uploaded"
    link: str
    request_id: int


class UrlReply(Reply):
    """An inline picture has a link, in the form of a generation."""

    status: Literal["success"] = "success"
    id: int
    request_id: int
    output: list[str]


class CheckReply(BaseModel):
    """What the safety checker says of a picture; this reply has no status."""

    images: str = Field(description="the link that was sent; empty for inline data")
    has_nsfw_concept: list[bool]


class TokenReply(Reply):
    """What opens the stream of a job where no header can be sent."""

    status: Literal["success"] = "success"
    token: str = Field(description="for the query of the stream's address")
    expires_s: int = Field(description="seconds in which it does")


class ReplicaRow(BaseModel):
    """How one replica of a model stands."""

    replica: str
    status: Literal["ready", "loading", "failed"] = Field(description="as to `generation`")
    generation: int = Field(description="version of the weights that it was asked to serve")
    serving: int | None = Field(description="version of the weights that answers requests")


class ReloadReply(Reply):
    """Whether the weights of a model were taken up."""

    status: Literal["success", "processing", "error"]
    message: str
    messege: str
    model_id: str
    generation: int = Field(description="number of this reload; replicas below it are not done")
    eta: int | None = Field(default=None, description="seconds until it is done, estimated")
    reason: str | None = Field(default=None, description="stable code of the cause of an error")
    replicas: list[ReplicaRow]


class ModelRow(BaseModel):
    """One model of the list, which is a bare array."""

    model_id: str
    status: Literal["model_ready", "model_loading"]
    created_at: str | None
    instance_prompt: str | None
    model_name: str
    description: str
    screenshots: str
    model_category: str = Field(description="stable_diffusion, ..., lora, vae, controlnet, ...")
    kinds: list[str] = Field(default=[], description="calls that a model answers; an extension")
    native_size_px: int | None = Field(default=None, description="of a model; an extension")
    defaults: dict[str, JsonValue] | None = Field(
        default=None,
        description="what requests to a model get that leave a field out; an extension",
    )
    models: list[str] | None = Field(
        default=None, description="models that an add-on fits, empty: all; an extension"
    )
    control: list[str] = Field(
        default=[],
        description="what a ControlNet wants to see, by which it may be named; an extension",
    )


class SchedulersReply(BaseModel):
    """Names of noise schedules; this reply has no status."""

    schedulers: list[str]


class ErrorReply(Reply):
    """A call that was refused."""

    status: Literal["error"] = "error"
    message: str | dict[str, list[str]] = Field(description="text, or messages per field")
    messege: str | dict[str, list[str]]
    tip: str | None = None
    tips: str | None = None
    retry_after: int | None = Field(default=None, description="seconds")
    reason: str = Field(description="stable code of the cause")
