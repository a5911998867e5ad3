"""What clients send, and the shape of what they get. A field that is not known is refused: it would not be honoured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from intarsia.checks import MOST_SEEDS
from intarsia.credit.claims import Method

Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(min_length=1, max_length=10_000)]

Moment = Annotated[str, Field(max_length=40, description="A day, or a time in UTC")]
Scope = Literal["read", "sample", "credit", "erase", "admin"]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=100, description="What a key is for")]
Refused = Annotated[
    list[Literal["share-alike", "non-commercial", "no-derivatives", "attribution"]],
    Field(max_length=100, description="Obligations that no source's licence may bring"),
]
USUAL: list[Scope] = ["read", "sample", "credit"]


BEST = 100
"""Quality of files of kinds that know one."""


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class Failure(BaseModel):
    """The answer to every request that fails, as OpenAI's clients expect it."""

    error: Problem


class Body(BaseModel):
    """A request; a field that is null is taken as left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return {name: each for name, each in values.items() if each is not None} if isinstance(values, dict) else values


class ImageRequest(Body):
    """`POST /v1/images/generations`, as OpenAI's clients send it, and below that what is intarsia's own."""

    model: str = "intarsia"
    prompt: Annotated[str, Field(max_length=4000, description="Words, or a label where no text is read")] = ""
    n: Annotated[int, Field(ge=1, description="Images")] = 1
    size: Annotated[str, Field(max_length=20, description="`auto`, or the vault's own, such as `32x32`")] = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100, description="Quality of jpeg and webp")] = BEST
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=1000, description="Previews of each image, with `stream`")] = 0
    quality: Annotated[Literal["auto", "standard"], Field(description="There is one")] = "auto"
    background: Annotated[Literal["auto", "opaque"], Field(description="There is one")] = "auto"
    user: Annotated[str, Field(max_length=200, description="For the client's own records; it is not kept")] = ""

    seed: Annotated[int | None, Field(ge=0, le=MOST_SEEDS, description="Without one it is drawn")] = None
    num_inference_steps: Annotated[int | None, Field(ge=1)] = None
    guidance_scale: Annotated[float, Field(ge=-100, le=100, description="1 is none")] = 1.0
    sources: Annotated[Names | None, Field(description="Without them all that the key may use")] = None
    weights: Annotated[str | None, Field(max_length=50)] = None
    routing: Annotated[str | None, Field(max_length=50)] = None
    sampler: Annotated[str, Field(max_length=50)] = "ddpm"
    label: Annotated[str | None, Field(max_length=200, description="As `prompt`")] = None


class CompositionRequest(Body):
    """`POST /v1/compositions`."""

    sources: Annotated[Names | None, Field(description="Without them all that the key may use")] = None
    weights: Annotated[str | None, Field(max_length=50)] = None
    routing: Annotated[str | None, Field(max_length=50)] = None


class CreditRequest(Body):
    """`POST /v1/credit`: an image as a file, or one of those that were drawn under a receipt."""

    image: Annotated[str | None, Field(max_length=6 * 2**20, description="A file in base64")] = None
    receipt: Annotated[str | None, Field(max_length=20)] = None
    index: Annotated[int, Field(ge=0, description="Of the image, under its receipt")] = 0
    method: Method = "responsibility"
    repeats: Annotated[int, Field(ge=1, le=10, description="Estimates, for the interval")] = 4
    sources: Annotated[Names | None, Field(description="Among which it is shared out")] = None


class ForgetRequest(Body):
    """`POST /v1/sources/{name}/forget`: samples by their ids, or without them the whole source."""

    samples: Names | None = None
    dry_run: Annotated[bool, Field(description="Say what it would cost, and change nothing")] = False


class NewTicket(Body):
    """`POST /v1/tickets`: what an owner asked to be forgotten."""

    source: Name
    samples: Names | None = None
    received: Moment | None = None
    due: Moment | None = None


class CloseTicket(Body):
    """`POST /v1/tickets/{id}/close`."""

    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class NewKey(Body):
    """`POST /v1/principals/{name}/keys`."""

    until: Moment | None = None
    scopes: Scopes = USUAL
    replace: Annotated[bool, Field(description="Withdraw all keys that the principal has")] = False


class KeyTerms(Body):
    """`PUT /v1/principals/{name}/keys/{id}`."""

    until: Annotated[Moment | None, Field(description="Without it the key has no end")] = None
    scopes: Scopes


class NewRules(Body):
    """`PUT /v1/principals/{name}/rules`, which are those of `intarsia principal add`; one that is left out is none."""

    licences: Names | None = None
    owners: Names | None = None
    refuse: Refused = []


class NewPrincipal(NewRules):
    """`POST /v1/principals`."""

    name: Name
    until: Moment | None = None
    scopes: Scopes = USUAL


class NewGrants(Body):
    """`POST /v1/grants`."""

    principal: Name
    sources: Names
    until: Moment | None = None
    quota: Annotated[str | None, Field(max_length=40, description="Images per period, such as `100/day`")] = None
