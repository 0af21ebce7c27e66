"""Every knob of the engine in one frozen class; each default says why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_LOST_ATTEMPTS = 20
"""A task lost more often than this fails: something about it kills nodes. Not a field of Policy, because it decides in
``apply``, which must give the same records at every replay."""
BACKOFF_MS = 10_000
"""What a job file that says nothing gets: after its first failure a task waits so long for its next attempt, twice as
long after each further one (Kubernetes has the same ten seconds for the pods of a Job). Recorded with each step,
because it decides in ``apply``: what was submitted under other rules keeps those."""
BACKOFF_MAX_MS = 600_000
"""Never longer than ten minutes, unless the job file says so: by then a licence server or a share is back, or somebody
has to look at it."""
HEALTH_HALF_LIFE_MS = 24 * 3_600_000
"""What went wrong on a node counts half after a day. Applied when the next fault is recorded, so no field of Policy."""
USAGE_HALF_LIFE_MS = 7 * 24 * 3_600_000
"""Past use counts half after a week (Slurm's default for fair share). Not a field of Policy either: it is applied when
a lease closes."""


class Sort(StrEnum):
    """Who goes first among the jobs of one queue, after their priority."""

    AGE = "age"
    """First come, first served."""
    DEADLINE = "deadline"
    """Earliest deadline first; jobs without one behind, by age."""
    EXPECTED = "expected"
    """Least expected work first: cards times time, from estimates and what was learned."""
    SERVED = "served"
    """Least attained service first."""


class Backfill(StrEnum):
    """What may start before a job that is ahead and does not fit."""

    ANY = "any"
    """Whatever fits now; large jobs may starve."""
    EASY = "easy"
    """What does not delay the expected start of the first job that does not fit (Lifka, JSSPP 1995)."""
    CONSERVATIVE = "conservative"
    """What delays none of the jobs ahead, as far as ``reservations_max`` goes."""
    NONE = "none"
    """Nothing."""


class Preemption(StrEnum):
    """Whose leases may be stopped for whom."""

    NEVER = "never"
    ENTITLED = "entitled"
    """For a queue's guarantee, from borrowers; and for a job whose priority is higher by ``preempt_gap``."""
    ALWAYS = "always"
    """Also for whoever is ahead in the order, when the gain is larger than what the stop loses."""


class Objective(StrEnum):
    """What gangs and single-task card jobs are steered towards, beside deadlines that were promised."""

    ORDER = "order"
    """Nothing: they start in the order of their queues."""
    COMPLETION = "completion"
    """The mean time to completion is small, by weight."""
    MAKESPAN = "makespan"
    """The end of the last is early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A kind of job that is never kept below a share while it waits."""

    kind: str
    """A JobKind."""
    permille: int
    """Of all cards (or, for work without cards, of all vCPUs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A price band of the day, as ``[start, end)`` in minutes after midnight at UTC+8; it may pass midnight."""

    name: str
    start_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Given to ``Engine.plan`` as an argument, so that a replay knows it."""

    name: str = "fair"
    """For people and records."""
    chunk_target_ms: int = 1_000
    """Tasks measured shorter than this are leased several at a time: a second of work hides the ~10 ms of a cycle."""
    chunk_max: int = 64
    """No lease carries more tasks than this, so that a lost agent costs little."""
    chunk_after: int = 3
    """Tasks of a step that must have succeeded before their measured time is trusted for chunks."""
    starts_per_cycle: int = 150
    """Bounds one cycle and its transaction to about 0.1 s on a slow host: users' verbs wait for it, and more at once
    makes no start cheaper."""
    sort: Sort = Sort.AGE
    """What people expect of a queue."""
    usage_weight_permille: int = 20_000
    """How much the average held in the past counts beside what is held now; 0: only what is held.

    Large, because gangs are lumps: gangs of 64 cards beside frames of equal weight get 66 % of a farm of 96 at 500,
    59 % at 2,000 and 50.6 % at 20,000.
    """
    backfill: Backfill = Backfill.EASY
    """A stream of small tasks must not keep a gang waiting for ever."""
    reservations_max: int = 8
    """Starts that are kept at a time: beyond it a plan costs more than the promise is worth."""
    reserve_after_ms: int = 0
    """A job that does not fit is given a reservation once it has waited this long."""
    preemption: Preemption = Preemption.ENTITLED
    preempt_gap: int = 20
    """Priority classes are 20 apart (low 30, normal 50, high 70, urgent 90): the next class up may preempt."""
    preempted_max: int = 5
    """A job that was preempted this often is left alone: the budget that keeps everybody moving."""
    age_gain_ms: int = 24 * 3_600_000
    """A job gains one point of priority per this much waiting, up to ``age_gain_max``; 0: none."""
    age_gain_max: int = 19
    """Less than a class: waiting never makes a job preempt."""
    objective: Objective = Objective.ORDER
    """Others than ORDER stop, move and resize running gangs where that gains more than it loses."""
    margin_ms: int = 60_000
    """Timetables for deadlines end this long before them where that is possible: control and restarts take time."""
    floors: tuple[Floor, ...] = ()
    bands: tuple[Band, ...] = ()
    licences: tuple[tuple[str, int], ...] = ()
    """Seats of each floating licence, sorted by name. A licence that is absent has none."""
    unfunded: tuple[str, ...] = ()
    """Tenants whose budget is used up, sorted: nothing of theirs starts."""
    defragment_permille: int = 0
    """Leases are moved out of the way by themselves when that starts so many times (in thousandths) more card time than
    it loses. 0: never without an operator, because what is lost is lost for certain and what is gained is expected."""
    node_mtbf_ms: int = 1_000 * 3_600_000
    """Mean time between failures of a node (0: none fails), for promised deadlines: six weeks, a careful guess."""
    fault_permille: int = 50
    """Work on a node costs a twentieth more of the cards it asks for with each fault of the node that is not forgotten:
    as much as half an unneeded engine, so that nodes are passed over only for others that serve as well. 0: faults do
    not count."""
    convert_ms: int = 60_000
    """What moving a node between lanes costs until it was measured (20-120 s)."""
    recut_every_ms: int = 0
    """Cards with MIG on are cut anew for who waits, each at most once in so long. 0: never, because an operator may
    have cut them so for a reason that no plan knows."""
    recut_ms: int = 15_000
    """What cutting a card costs until it was measured: the driver's calls take seconds, and the node tells of it."""
    recut_limit_ms: int = 300_000
    """A cut that is not confirmed by then has failed: as long as a driver is waited for elsewhere."""
    relayout_ms: int = 120_000
    """What putting a whole node into another layout costs until it was measured: the GPU Operator stops what uses the
    driver, cuts, starts it again, and the device plugin registers anew."""
    relayout_limit_ms: int = 1_200_000
    """A node that is not as it was to be by then is counted on no more: longer than one that restarts for it takes."""

    @property
    def failures_per_hour(self) -> float:
        """Of one node, on average."""
        return 3_600_000 / self.node_mtbf_ms if self.node_mtbf_ms else 0.0

    @property
    def promises_max(self) -> int:
        """Starts ahead that a plan keeps at a time."""
        return {Backfill.EASY: 1, Backfill.CONSERVATIVE: self.reservations_max}.get(self.backfill, 0)
