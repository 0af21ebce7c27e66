"""What all kinds of job file share: the strict model, documented fields, resources, the fields of jobs and tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scheduler.jobfile import fields as f
from scheduler.jobfile.quantity import PRIORITIES
from scheduler.model.policy import BACKOFF_MS

API_VERSION = "shisuan/v1"


def field(meaning: str, example: Any, default: Any = ..., *, otherwise: str = "required") -> Any:
    """A documented field. ``otherwise`` says in words what happens when it is left out."""
    return Field(default=default, description=meaning, examples=[example], json_schema_extra={"x-default": otherwise})


class File(BaseModel):
    """Refuses what it does not know, and guesses no types: YAML already has types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Resources(File):
    """What each task, or each node of a gang, holds while it runs."""

    cpus: f.CpuMilli | None = field("CPUs, in thousandths at the finest; `4+` means 4", 4, None, otherwise="1")
    memory: f.MemoryMib | None = field(
        "memory: `8GiB`, `512MiB`, or a plain number of GiB",
        "8GiB",
        None,
        otherwise="512MiB; 2GiB for Blender and ffmpeg",
    )
    accelerators: f.Accelerators | None = field(
        "cards: `H100:8`, `{H100: 8}`, `2` of any model, a fraction `L40S:0.5`, MIG instances `1g.10gb:2`, a list for "
        "any of several models, or `auto`: one card if the park has any when you submit, else none",
        "H100:8",
        None,
        otherwise="none",
    )
    accelerator_memory: f.MemoryMib | None = field("least memory of each card", "40GiB", None, otherwise="any")
    features: Annotated[list[f.Feature], f.OneOrMore] = field(
        "features each card must have", ["nvenc:h264"], [], otherwise="none"
    )
    labels: f.Labels = field("labels the node must have", {"zone": "b"}, {}, otherwise="none")
    tolerations: Annotated[list[f.Text], f.OneOrMore] = field(
        "taints of nodes to put up with", ["night-only"], [], otherwise="none"
    )
    scratch: f.MemoryMib | None = field("space on the node's scratch disk", "20GiB", None, otherwise="none")
    licences: f.Seats | None = field(
        "floating licences that each task holds while it runs, with the number of seats",
        {"nuke": 1},
        None,
        otherwise="none",
    )
    same_island: bool = field("all cards of a task reach each other over NVLink", True, False, otherwise="false")


class JobFields(File):
    """What every job has."""

    apiVersion: Literal["shisuan/v1"] = field("version of this format", API_VERSION)  # noqa: N815, the field's spelling
    name: f.JobName = field("what people call the job", "film")
    queue: f.Text | None = field("queue to wait in", "night", None, otherwise="the tenant's first queue")
    priority: f.Priority = field(
        f"0 to 100, higher first within the queue, or {', '.join(f'`{n}` ({v})' for n, v in PRIORITIES.items())}",
        "high",
        PRIORITIES["normal"],
        otherwise="normal",
    )
    deadline: f.When | None = field(
        "when it should be finished: an instant with a zone, or `+6h` from submission; `plan` says whether that can be "
        "promised",
        "2030-01-31T09:00:00+08:00",
        None,
        otherwise="none",
    )
    band: f.Text | None = field(
        "price band of the day; its tasks start only while it lasts", "valley", None, otherwise="at any time"
    )
    after: Annotated[list[f.JobId], f.OneOrMore] = field(
        "jobs that must have succeeded first", ["j17"], [], otherwise="none"
    )


class TaskFields(File):
    """What every step has."""

    resources: Resources = field(
        "what each task holds while it runs; see Resources", {"cpus": 2}, Resources(), otherwise="1 CPU"
    )
    retries: f.Retries = field("further attempts of a task that failed", 3, 2, otherwise="2")
    backoff: f.Backoff = field(
        "wait of a task that failed before it is tried again, up to 1h, twice as long after each further failure; `0`: "
        "none; what the park stopped or lost never waits",
        "1m",
        BACKOFF_MS,
        otherwise="10s",
    )
    backoff_max: f.BackoffMax | None = field(
        "the longest such wait, `backoff` to 1d", "1h", None, otherwise="10m, or `backoff` where that is longer"
    )
    timeout: f.Duration | None = field("longest run of one attempt", "30m", None, otherwise="none")
    expected: f.Duration | None = field(
        "what one task (a frame, a film, a training) will take on the fastest cards it may use; it helps to start it "
        "sooner, and nothing is stopped for being slower",
        "40m",
        None,
        otherwise="learned from tasks like it",
    )
    preemptible: bool = field(
        "may be stopped for somebody more entitled; its time since the last checkpoint is then free of charge",
        False,
        True,
        otherwise="true",
    )
    grace: f.Duration = field("time between SIGTERM and SIGKILL when stopped", "30s", 10_000, otherwise="10s")
    inputs: Annotated[list[f.Path], f.OneOrMore] = field(
        "further files and folders the step reads; a command that names none may read all of the tenant's storage",
        ["textures/"],
        [],
        otherwise="none",
    )
