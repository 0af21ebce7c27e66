"""From a job file to a Draft: everything about a job but its number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from scheduler.jobfile import graph, kinds, steps
from scheduler.jobfile.context import Context, Entry, mentions
from scheduler.jobfile.problems import validate
from scheduler.jobfile.references import JOB_ID
from scheduler.jobfile.text import parse
from scheduler.model.errors import InvalidInput, Problem, unknown
from scheduler.model.job import Job, JobKind, Step, StepKind
from scheduler.model.queue import Queue, Tenant

MAX_TASKS = 1_000_000

_FIELDS = {
    "cpu": "resources.cpus",
    "memory": "resources.memory",
    "scratch": "resources.scratch",
    "card": "resources.accelerators",
    "card_model": "resources.accelerators",
    "mig_profile": "resources.accelerators",
    "card_memory": "resources.accelerator_memory",
    "feature": "resources.features",
    "label": "resources.labels",
    "taint": "resources.tolerations",
    "island": "resources.same_island",
    "ranks": "num_nodes",
    "licence": "resources.licences",
}
"""Engine reasons' resource names to the file's fields."""

_STEP_OF_KIND = {
    JobKind.COMMAND: StepKind.COMMAND,
    JobKind.RENDER: StepKind.RENDER,
    JobKind.TRANSCODE: StepKind.TRANSCODE,
    JobKind.TRAIN: StepKind.TRAIN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An accepted job file. ``steps`` may still hold ``${job.id}``."""

    name: str
    tenant: str
    queue: str
    kind: JobKind
    steps: tuple[Step, ...]
    submitted_ms: int
    priority: int
    deadline_ms: int
    band: str
    after: tuple[str, ...]
    source: str
    places: tuple[tuple[str, str], ...]
    """Step name and the pointer of its mapping in the file (empty: the top)."""

    def job(self, id: str, request_id: str) -> Job:  # noqa: A002, the model's word
        """The job under its number."""
        return Job(
            id=id,
            name=self.name,
            tenant=self.tenant,
            queue=self.queue,
            kind=self.kind,
            steps=tuple(
                replace(step, spec=step.spec.replace(JOB_ID, id), warm_key=step.warm_key.replace(JOB_ID, id))
                for step in self.steps
            ),
            submitted_ms=self.submitted_ms,
            priority=self.priority,
            deadline_ms=self.deadline_ms,
            band=self.band,
            after=self.after,
            request_id=request_id,
            source=self.source,
        )

    def pointer(self, step_name: str, resource: str) -> str:
        """What the file says of an engine reason's ``resource``: ``steps[1].resources.accelerators``."""
        place = dict(self.places).get(step_name, "")
        field = _FIELDS.get(resource, "resources")
        return f"{place}.{field}" if place else field


def read(
    text: str | bytes,
    *,
    tenant: Tenant,
    queues: Sequence[Queue],
    base_dir: str,
    now_ms: int,
    models: Collection[str] | None = None,
    has_cards: bool = False,
    licences: Mapping[str, int] | None = None,
    bands: Collection[str] | None = None,
) -> Draft:
    """Check a job file and plan its steps. Raises InvalidInput with every problem found.

    ``base_dir`` is the folder relative inputs start from (the job file's; empty: the tenant's first root). ``models``
    is the card catalogue (None: the park's own; empty: any name goes). ``has_cards`` says what ``accelerators: auto``
    means now; ``licences`` and ``bands`` are what the park has (None: any name goes).
    """
    file, problems = validate(parse(text))
    context = Context(
        job_name=file.name,
        roots_written=tenant.storage_roots,
        base_dir=base_dir,
        outputs=(file.outputs or "") if isinstance(file, kinds.Pipeline) else "",
        models=known_models() if models is None else models,
        has_cards=has_cards,
        licences=licences,
        problems=list(problems),
    )
    queue = _queue(context, file, tenant, queues)
    deadline_ms, band = _deadline(context, file, now_ms), _band(context, file, bands)
    entries = _entries(file)
    _check_names(context, entries)
    context.entries = {entry.name: entry for entry in entries}
    _check_needs(context, entries)
    planned = [(entry, step) for entry in entries for step in steps.build(context, entry)]
    _check_waits(context, entries)
    _check_size(context, planned)
    _check_apart(context, entries)
    if context.problems:
        raise InvalidInput(_once_per_place(context.problems))
    return Draft(
        name=file.name,
        tenant=tenant.name,
        queue=queue,
        kind=JobKind(file.kind),
        steps=tuple(step for _, step in planned),
        submitted_ms=now_ms,
        priority=file.priority,
        deadline_ms=deadline_ms,
        band=band,
        after=tuple(dict.fromkeys(file.after)),
        source=text if isinstance(text, str) else text.decode("utf-8-sig"),
        places=tuple((step.name, entry.place) for entry, step in planned),
    )


def known_models() -> Collection[str]:
    """Ids of the card catalogue."""
    try:
        catalogue: Any = import_module("scheduler.model.catalogue")
    except ModuleNotFoundError:
        return ()
    found = catalogue.known_models
    ids: Collection[str] = found() if callable(found) else found
    return ids


def _once_per_place(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """The first problem of each field: later ones are often only its consequences."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.pointer, problem)
    return tuple(first.values())


def _queue(context: Context, file: kinds.JobFile, tenant: Tenant, queues: Sequence[Queue]) -> str:
    names = {queue.name for queue in queues}
    usable = [name for name in tenant.queues if name in names]
    if file.queue is None and usable:
        return usable[0]
    if file.queue is None:
        context.problems.append(
            Problem("queue", f"tenant {tenant.name!r} may use no queue; an operator can give it one")
        )
        return ""
    if file.queue not in usable:
        context.problems.append(unknown("queue", "queue", file.queue, usable))
    return file.queue


def _deadline(context: Context, file: kinds.JobFile, now_ms: int) -> int:
    if file.deadline is None:
        return 0
    instant_ms = file.deadline.instant_ms(now_ms)
    if instant_ms <= now_ms:
        context.problems.append(Problem("deadline", f"{file.deadline.text!r} is in the past"))
    return instant_ms


def _band(context: Context, file: kinds.JobFile, bands: Collection[str] | None) -> str:
    if file.band is not None and bands is not None and file.band not in bands:
        context.problems.append(unknown("band", "price band", file.band, bands))
    return file.band or ""


def _entries(file: kinds.JobFile) -> tuple[Entry, ...]:
    if not isinstance(file, kinds.Pipeline):
        return (Entry(_STEP_OF_KIND[JobKind(file.kind)].value, "", file, mentions(file)),)
    return tuple(
        Entry(step.name, f"steps[{at}]", step, tuple(dict.fromkeys((*step.needs, *mentions(step)))))
        for at, step in enumerate(file.steps)
    )


def _check_names(context: Context, entries: Sequence[Entry]) -> None:
    places: dict[str, str] = {}
    for entry in entries:
        for name, what in ((entry.name, ""), *steps.automatic(entry)):
            if name in places:
                why = f" for the {what} of step {entry.name!r}" if what else ""
                message = f"the name {name!r}{why} is taken by {places[name] or 'another step'}"
                context.problems.append(Problem(entry.at("name"), message))
            places.setdefault(name, entry.place)


def _check_needs(context: Context, entries: Sequence[Entry]) -> None:
    """Unknown names in ``needs`` (references tell their own), and cycles over needs and references together."""
    known = [entry.name for entry in entries]
    for entry in entries:
        for at, name in enumerate(getattr(entry.body, "needs", ())):
            if name not in known:
                others = [other for other in known if other != entry.name]
                context.problems.append(unknown(f"{entry.at('needs')}[{at}]", "step", name, others))
    found = graph.cycle({entry.name: entry.needs for entry in entries})
    if found:
        place = next(entry.at("needs") for entry in entries if entry.name == found[0])
        context.problems.append(Problem(place, f"steps need each other in a circle: {' -> '.join(found)}"))


def _check_waits(context: Context, entries: Sequence[Entry]) -> None:
    for entry in entries:
        first_ms, longest_ms = entry.body.backoff, entry.body.backoff_max
        if longest_ms is not None and longest_ms < first_ms:
            message = f"is shorter than backoff, which is {first_ms // 1000}s: make it at least as long"
            context.problems.append(Problem(entry.at("backoff_max"), message))


def _check_size(context: Context, planned: Sequence[tuple[Entry, Step]]) -> None:
    total = sum(step.count for _, step in planned)
    if total > MAX_TASKS:
        entry, largest = max(planned, key=lambda pair: pair[1].count)
        field = {StepKind.COMMAND: "array", StepKind.CHUNK: "chunks"}.get(largest.kind, "frames")
        message = f"the job has {total:,} tasks, {largest.count:,} of them here; the limit is {MAX_TASKS:,}"
        context.problems.append(Problem(entry.at(field), message))


def _check_apart(context: Context, entries: Sequence[Entry]) -> None:
    """Two renders, or two films, of one job may not write the same files."""
    writers: dict[str, Entry] = {}
    for entry in entries:
        if isinstance(entry.body, kinds.CommandStep | kinds.CommandJob):
            continue
        with context.at(entry.at("outputs")):
            path = context.output_path(entry)
            if path in writers:
                problem = f"writes the same files as {writers[path].place or 'another step'}; give each its own outputs"
                context.problems.append(Problem(entry.at("outputs"), problem))
            writers[path] = entry
