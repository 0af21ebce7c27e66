"""What requests may carry. Answers are described by ``scheduler/control/shapes.py``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from scheduler.control.scheduling import QueueFields
from scheduler.control.strict import UNKNOWN_FIELD

LAST_INSTANT_MS = 253_402_300_799_999
"""The end of the year 9999: later ones have no date and, far later, no place in a database."""


class Body(BaseModel):
    """A JSON body: unknown fields are refused with the nearest valid name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def known_fields(cls, data: Any) -> Any:
        """Refuse the first unknown field."""
        for name in data if isinstance(data, dict) else ():
            if name not in cls.model_fields:
                raise PydanticCustomError(
                    UNKNOWN_FIELD, "unknown field {name}", {"name": str(name), "valid": sorted(cls.model_fields)}
                )
        return data


FileText = Annotated[str, Field(description="The job file's text (YAML or JSON).", examples=["kind: CommandJob\n…"])]
BaseDir = Annotated[
    str, Field(description="Absolute folder that relative input paths start from; must lie in a storage root.")
]


class SubmitBody(Body):
    """A job to record."""

    file: FileText
    base_dir: BaseDir = ""
    hold: Annotated[bool, Field(description="Start nothing before it is released.")] = False
    request_id: Annotated[str, Field(description="Sending the same again gives the same job.")] = ""


class PlanBody(Body):
    """A job to try out."""

    file: FileText
    base_dir: BaseDir = ""
    hold: bool = False
    request_id: str = ""


class RetryBody(Body):
    """Which tasks to run again; empty: every failed or cancelled one."""

    step: str = ""
    indices: Annotated[list[int], Field(max_length=100_000)] = []
    redo: bool = False
    """Also tasks of ``step`` that succeeded, and every task of the steps behind it."""


class EmptyBody(Body):
    """Nothing. ``step`` and ``indices`` are accepted so that all verbs may be called alike."""

    step: str = ""
    indices: list[int] = []


class PreemptBody(Body):
    """What becomes of the job afterwards."""

    hold: Annotated[bool, Field(description="Hold the job, so that it does not start again by itself.")] = False


class TryBody(Body):
    """Whether to say what would happen and do nothing."""

    dry_run: bool = False


class PruneBody(TryBody):
    """Which logs go."""

    keep_days: Annotated[int, Field(ge=0, le=36_500, description="Days after a job's end; 0: as configured")] = 0


class CordonBody(TryBody):
    """Why a node is taken out."""

    reason: Annotated[str, Field(max_length=500)] = ""


class KeyBody(Body):
    """A key to make."""

    tenant: str
    role: str = "tenant"
    label: Annotated[str, Field(max_length=200)] = ""
    expires_ms: Annotated[int, Field(ge=0, le=LAST_INSTANT_MS, description="Unix ms; 0: never.")] = 0


class TenantBody(Body):
    """A tenant to create or change."""

    display_name: Annotated[str, Field(max_length=200)] = ""
    queues: list[str] = ["default"]
    storage_roots: list[str] = []
    subsidy_excluded: Annotated[str, Field(max_length=200, description="Why no voucher pays for it.")] = ""
    budget: Annotated[str | None, Field(description="Most yuan it may come to owe, in all; null: no limit.")] = None


class QueueBody(QueueFields):
    """A queue to create or change, as in the configuration file."""


class ReservationBody(Body):
    """Nodes to keep. Instants: a date, an instant (China time without a zone), or `+2h` from now."""

    kind: Annotated[str, Field(description="`event`: for the jobs of `queues`; `maintenance`: for nobody.")]
    nodes: list[str]
    start: Annotated[str, Field(description="`now` works too.")]
    end: Annotated[str, Field(description="A date means the end of that day.")] = ""
    length: Annotated[str, Field(description="Instead of `end`, such as `3h`.")] = ""
    every: Annotated[str, Field(description="Held again so much later, such as `7d`; empty: once.")] = ""
    repeats: Annotated[int, Field(description="How often; 0: until it is cancelled.")] = 0
    queues: list[str] = []
    reason: Annotated[str, Field(max_length=500)] = ""


class RearrangeBody(Body):
    """Moves to make, as `GET /v1/rearrangements` showed them."""

    job: Annotated[str, Field(description="The job that is to start.")]
    id: Annotated[str, Field(description="Of the moves; refused when they are not what would be proposed now.")]


class GrantBody(Body):
    """A voucher to give."""

    tenant: str
    policy: Annotated[str, Field(description="Id of the policy version.")]
    yuan: Annotated[str, Field(description="Amount in yuan, such as `50000` or `0.5`.")]
    valid_until: Annotated[str, Field(description="A date (the end of that day in China) or an instant.")]
    valid_from: Annotated[str, Field(description="A date or an instant; empty: now.")] = ""
    priority: Annotated[int, Field(ge=0, le=1000, description="Smaller burns first.")] = 100
    id: Annotated[str, Field(description="Empty: the service gives one.")] = ""
    excluded: Annotated[str, Field(max_length=200, description="Why it must not pay for now.")] = ""


class ReasonBody(Body):
    """Why something is taken back."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
