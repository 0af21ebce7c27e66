"""How queues and the engine's policy are written in the configuration file.

Amounts are written as in job files: ``{cards: 8, cpus: 64, memory: 1TiB}``. Every mistake points at its field
and says what would be valid.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from scheduler.control.operations import NAME, NAME_RULE
from scheduler.control.strict import Strict
from scheduler.jobfile.quantity import duration_ms, memory_mib, shown
from scheduler.model.errors import unknown
from scheduler.model.job import JobKind
from scheduler.model.policy import Backfill, Band, Floor, Policy, Preemption, Sort
from scheduler.model.queue import Amounts, Queue

MOST_CARDS = 1_000_000
MOST_CPUS = 100_000_000
MOST_GAIN = 1_000_000
LEAST_EVERY_MS = 60_000
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-4]):([0-5]\d)", re.ASCII)
DAY_MINUTES = 24 * 60
KINDS = tuple(kind.value for kind in JobKind)


def _milli(value: Any, most: int, what: str) -> int:
    """Thousandths of a number from 0 to ``most``."""
    try:
        exact = Decimal(str(value)) * 1_000 if not isinstance(value, bool) else Decimal("nan")
    except InvalidOperation:
        exact = Decimal("nan")
    if not exact.is_finite() or exact != exact.to_integral_value() or not 0 <= exact <= most * 1_000:
        raise ValueError(
            f"must be a number of {what} from 0 to {most:,}, at the finest in thousandths, got {shown(value)}"
        )
    return int(exact)


def _cards(value: Any) -> int:
    return _milli(value, MOST_CARDS, "cards")


def _cpus(value: Any) -> int:
    return _milli(value, MOST_CPUS, "CPUs")


def _memory(value: Any) -> int:
    if value == 0 and not isinstance(value, bool):
        return 0
    match = re.fullmatch(r"(\d{1,6})\s*([TP])i?B", value, re.IGNORECASE) if isinstance(value, str) else None
    if match is not None:  # a farm has more than one task may ask for
        return int(match[1]) * (1_048_576 if match[2].upper() == "T" else 1_048_576 * 1_024)
    return memory_mib(str(value) if isinstance(value, Decimal) else value)


class AmountsConfig(Strict):
    """Cards, MIG instances, CPUs and memory; what is left out depends on the field it stands in."""

    cards: Annotated[int | None, BeforeValidator(_cards)] = None
    mig: Annotated[int | None, BeforeValidator(_cards)] = None
    """MIG instances, of whatever profile."""
    cpus: Annotated[int | None, BeforeValidator(_cpus)] = None
    memory: Annotated[int | None, BeforeValidator(_memory)] = None

    def amounts(self, otherwise: int) -> Amounts:
        """As the engine counts; ``otherwise`` for what is left out."""
        found = (self.cpus, self.memory, self.cards, self.mig)
        cpu, memory, cards, instances = (otherwise if amount is None else amount for amount in found)
        return cpu, memory, cards, instances


class QueueFields(Strict):
    """What a queue is, but for its name."""

    parent: str = ""
    weight: int = 100
    guaranteed: AmountsConfig = AmountsConfig()
    """What it gets back from borrowers when its jobs wait for it. Left out: nothing."""
    limit: AmountsConfig = AmountsConfig()
    """Most that it and the queues below it hold. Left out: no limit."""
    lends: AmountsConfig = AmountsConfig()
    """Most of the guarantee that others may use while it is idle. Left out: all of it."""
    jobs_max: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Jobs that run at once; 0: no limit."""

    def queue(self, name: str) -> Queue:
        """As the engine reads it."""
        return Queue(
            name=name,
            parent=self.parent,
            weight=self.weight,
            guaranteed=self.guaranteed.amounts(0),
            limit=self.limit.amounts(-1),
            lends=self.lends.amounts(-1),
            jobs_max=self.jobs_max,
        )


class QueueConfig(QueueFields):
    """A queue in the configuration file."""

    name: str


def _duration(value: Any) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else duration_ms(value)


def _times(value: Any) -> int:
    return _milli(value, 1_000, "times")


def _permille(value: Any) -> int:
    text = str(value).strip()
    try:
        exact = Decimal(text.removesuffix("%")) * 10
    except InvalidOperation:
        exact = Decimal("nan")
    if not text.endswith("%") or not exact.is_finite() or exact != exact.to_integral_value() or not 0 < exact <= 1_000:
        raise ValueError(f"{value!r} is not a share such as 20% (above 0, at most 100, at most one decimal)")
    return int(exact)


def _kind(value: Any) -> str:
    if value not in KINDS:
        raise ValueError(str(unknown("", "kind of job", str(value), KINDS)))
    return str(value)


def _minutes(value: Any) -> tuple[int, int]:
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be two times of the day at UTC+8, such as 23:00-07:00, got {shown(value)}")
    start, end = (int(match[at]) * 60 + int(match[at + 1]) for at in (1, 3))
    if end > DAY_MINUTES or start == end:
        raise ValueError(f"{value!r} must end at another time than it starts, by 24:00 (00:00-24:00: all day)")
    return start, end % DAY_MINUTES


def _name(value: Any) -> str:
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} {NAME_RULE}")
    return value


Name = Annotated[str, BeforeValidator(_name)]
Kind = Annotated[str, BeforeValidator(_kind)]
Share = Annotated[int, BeforeValidator(_permille)]
Times = Annotated[tuple[int, int], BeforeValidator(_minutes)]


def _gain(value: Any) -> int:
    """Thousandths of how many times more is gained than lost; 0: never."""
    if value == "never":
        return 0
    try:
        found = _milli(value, MOST_GAIN, "times")
    except ValueError:
        found = 0
    if found < 1_000:
        raise ValueError(
            f"must be never, or how many times what is lost must be gained, 1 to {MOST_GAIN:,}, got {value!r}"
        )
    return found


def _every(value: Any) -> int:
    """Milliseconds, at least a minute; 0: never."""
    if value == "never":
        return 0
    try:
        found = duration_ms(value)
    except ValueError:
        found = 0
    if found < LEAST_EVERY_MS:
        raise ValueError(f"must be never, or a time of at least a minute such as 30m, got {shown(value)}")
    return found


class SchedulingConfig(Strict):
    """The section ``scheduling``; what is left out is as :class:`scheduler.model.policy.Policy` has it."""

    sort: Sort | None = None
    backfill: Backfill | None = None
    preemption: Preemption | None = None
    preempt_gap: Annotated[int | None, Field(ge=1, le=100)] = None
    preempted_max: Annotated[int | None, Field(ge=0, le=1_000)] = None
    reservations: Annotated[int | None, Field(ge=0, le=1_000)] = None
    usage_weight: Annotated[int | None, BeforeValidator(_times)] = None
    """How many times what was held on average counts beside what is held now."""
    node_mtbf: Annotated[int | None, BeforeValidator(_duration)] = None
    """Mean time between failures of a node; 0: none fails."""
    age_gain: Annotated[int | None, BeforeValidator(_duration)] = None
    """A job gains a point of priority per this much waiting; 0: none."""
    age_gain_max: Annotated[int | None, Field(ge=0, le=100)] = None
    defragment: Annotated[int | None, BeforeValidator(_gain)] = None
    """``never``, or move running leases by itself when that gains so many times the card time it loses."""
    recut: Annotated[int | None, BeforeValidator(_every)] = None
    """``never``, or cut cards with MIG on anew for who waits, each at most once in so long."""
    floors: Annotated[dict[Kind, Share], Field(default_factory=dict)]
    """Least share of all cards (or vCPUs) per kind of job while it waits."""
    bands: Annotated[dict[Name, Times], Field(default_factory=dict)]
    """Price bands of the day."""
    licences: Annotated[dict[Name, Annotated[int, Field(ge=0, le=1_000_000)]], Field(default_factory=dict)]
    """Seats of each floating licence."""

    @model_validator(mode="after")
    def _adds_up(self) -> SchedulingConfig:
        if sum(self.floors.values()) > 1_000:
            raise ValueError(f"floors add up to {sum(self.floors.values()) / 10:g}%, more than all there is")
        return self

    def policy(self) -> Policy:
        """As the engine reads it."""
        knobs = {
            "sort": self.sort,
            "backfill": self.backfill,
            "preemption": self.preemption,
            "preempt_gap": self.preempt_gap,
            "preempted_max": self.preempted_max,
            "reservations_max": self.reservations,
            "usage_weight_permille": self.usage_weight,
            "node_mtbf_ms": self.node_mtbf,
            "age_gain_ms": self.age_gain,
            "age_gain_max": self.age_gain_max,
            "defragment_permille": self.defragment,
            "recut_every_ms": self.recut,
        }
        chosen: dict[str, Any] = {name: value for name, value in knobs.items() if value is not None}
        return Policy(
            floors=tuple(Floor(kind=kind, permille=share) for kind, share in sorted(self.floors.items())),
            bands=tuple(
                Band(name=name, start_minute=start, end_minute=end) for name, (start, end) in sorted(self.bands.items())
            ),
            licences=tuple(sorted(self.licences.items())),
            **chosen,
        )
