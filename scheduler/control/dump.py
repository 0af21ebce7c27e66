"""One cycle as a file: what the engine knew, by which rules, and what it decided. It can be planned again anywhere.

What the engine does not read is left out: job files, arguments of programs, outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler.engine import VERSION, Engine
from scheduler.model import codec
from scheduler.model.errors import InvalidInput, Problem
from scheduler.model.job import JobRecord
from scheduler.model.lease import AttemptRecord
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot

Features = Mapping[str, frozenset[str]]
_FIELDS = {"engine", "features", "now_ms", "plan", "policy", "snapshot"}
_TEST = '''"""A cycle that happened: equal facts lead to the plan that was made then."""

from pathlib import Path

from scheduler.control.dump import replay

CYCLE = Path(__file__).with_suffix(".json")


def test_the_cycle_is_planned_as_it_was():
    assert replay(CYCLE.read_text("utf-8")).difference == ""
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A dump planned again."""

    engine: int
    """Version that made the plan in the dump."""
    actions: int
    waits: int
    difference: str
    """What differs first, with both values; empty: nothing."""


def dump(snapshot: Snapshot, now_ms: int, policy: Policy, features: Features) -> dict[str, Any]:
    """The cycle that would run at ``now_ms`` on these records."""
    snapshot = _without_secrets(snapshot)
    models = sorted({device.model for node in snapshot.nodes for device in node.devices})
    return {
        "engine": VERSION,
        "now_ms": now_ms,
        "policy": codec.encode(policy),
        "features": {model: sorted(features[model]) for model in models if features.get(model)},
        "snapshot": codec.encode(snapshot),
        "plan": codec.encode(Engine.from_snapshot(snapshot, features=features).plan(now_ms, policy)),
    }


def text_of(found: Mapping[str, Any]) -> str:
    """The dump as canonical JSON."""
    return json.dumps(found, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def replay(text: str) -> Replayed:
    """Plan the dump again and compare. Raises InvalidInput for what is no dump, or one of a newer model."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or found.keys() != _FIELDS:
            raise ValueError(f"it needs {', '.join(sorted(_FIELDS))}, and nothing else")
        snapshot, policy = codec.decode(Snapshot, found["snapshot"]), codec.decode(Policy, found["policy"])
        features = {model: frozenset(names) for model, names in found["features"].items()}
        now_ms, version = int(found["now_ms"]), int(found["engine"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput([Problem("", f"this is not the dump of a cycle: {error}")]) from None
    plan = Engine.from_snapshot(snapshot, features=features).plan(now_ms, policy)
    return Replayed(
        engine=version,
        actions=len(plan.actions),
        waits=len(plan.waits),
        difference=first_difference(found["plan"], json.loads(codec.dumps(plan))),
    )


def test_of(text: str) -> str:
    """A pytest file that plans the dump again; the dump lies beside it under the same name with ``.json``.

    Raises InvalidInput for what is no dump.
    """
    replay(text)
    return _TEST


def first_difference(recorded: Any, now: Any, where: str = "plan") -> str:
    """Where two JSON values differ first, with both values; empty: nowhere."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        for key in sorted(recorded.keys() | now.keys()):
            found = first_difference(recorded.get(key), now.get(key), f"{where}.{key}")
            if found:
                return found
        return ""
    if isinstance(recorded, list) and isinstance(now, list):
        for at, (one, other) in enumerate(zip(recorded, now, strict=False)):
            found = first_difference(one, other, f"{where}[{at}]")
            if found:
                return found
        if len(recorded) != len(now):
            return f"{where}: recorded {len(recorded)} of them, now {len(now)}"
        return ""
    return "" if recorded == now else f"{where}: recorded {_short(recorded)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _without_secrets(snapshot: Snapshot) -> Snapshot:
    jobs = tuple(_job(record) for record in snapshot.jobs)
    attempts = tuple(_attempt(attempt) for attempt in snapshot.attempts)
    tenants = tuple(replace(tenant, storage_roots=()) for tenant in snapshot.tenants)
    return replace(snapshot, jobs=jobs, attempts=attempts, tenants=tenants)


def _job(record: JobRecord) -> JobRecord:
    steps = tuple(replace(step, spec="{}") for step in record.job.steps)
    return replace(record, job=replace(record.job, source="", request_id="", steps=steps))


def _attempt(attempt: AttemptRecord) -> AttemptRecord:
    return replace(attempt, outputs=(), facts="", measured=None)
