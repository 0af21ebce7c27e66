"""Deadlines and completion times under the rules of the papers that published them, beside the classic orders.

A fluid simulation: cards are counted by model, not by node, decisions fall at least a slot apart, and elastic gangs
have the measured speeds. What ``allot`` gives is what runs; the classic orders run in the same loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import pool
from benchmarks.results import Figure, show, write
from benchmarks.traces import SECOND_MS, Trace
from benchmarks.training_traces import elasticflow, gavel
from scheduler.model.policy import Objective
from scheduler.queueing.allot import Allotment, allot
from scheduler.queueing.balance import NOWHERE_MS, least_end_ms
from scheduler.queueing.item import NEVER_MS, Item, Place, Supply, item_of

HOUR_MS = 3_600_000
LOST_MS = 60 * SECOND_MS
"""What an eviction or a resize costs by our own rule."""
Policy = Callable[[Sequence[Item], Supply, int], Allotment]
Overhead = Callable[["Run", Place | None, bool], int]
"""Milliseconds lost at a decision: the run (with its place before), its new place, whether everything restarts."""


@dataclass(slots=True)
class Run:
    """A job in the simulation."""

    item: Item
    """As it waits: work still to do, nothing running."""
    arrival_ms: int
    place: Place | None = None
    served: int = 0
    """Card-milliseconds held."""
    moves: int = 0
    """Evictions, moves and resizes."""
    late_ms: int = 0
    """Of the current stretch: lost before work goes on."""
    end_ms: int = NEVER_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a paper's simulator keeps time."""

    slot_ms: int
    rounds: bool = False
    """Decisions only at multiples of the slot; else at arrivals and ends, at least a slot apart."""
    overhead: Overhead


@dataclass(slots=True)
class Outcome:
    """What happened."""

    ends_ms: dict[str, int] = field(default_factory=dict)
    runs: Sequence[Run] = ()
    moves: int = 0

    @property
    def jct_hours(self) -> float:
        """Mean time from submission to end."""
        return sum(self.ends_ms[r.item.key] - r.arrival_ms for r in self.runs) / len(self.runs) / HOUR_MS

    @property
    def makespan_hours(self) -> float:
        """End of the last."""
        return max(self.ends_ms.values()) / HOUR_MS

    @property
    def met(self) -> float:
        """Part of the jobs that ended by their deadline."""
        good = sum(self.ends_ms.get(r.item.key, NEVER_MS) <= r.item.deadline_ms for r in self.runs)
        return good / len(self.runs)


def own_overhead(run: Run, place: Place | None, restart: bool) -> int:
    """A minute for whatever ran before and now runs elsewhere or in another size."""
    del restart
    return LOST_MS if run.served and place != run.place else 0


def elasticflow_overhead(cards: int) -> Overhead:
    """ElasticFlow's constants: every running job loses a little at every decision, more where its size changed."""
    base = 2_000 if cards < 256 else 7_000
    whole = 27_000 if cards < 256 else 47_000

    def lost(run: Run, place: Place | None, restart: bool) -> int:
        if place is None:
            return 0
        size = 2_000 * place[1].bit_length()
        return base + (size if restart or place != run.place else 0) + (whole if restart else 0)

    return lost


def free_overhead(run: Run, place: Place | None, restart: bool) -> int:
    """Gavel's simulator counts none."""
    del run, place, restart
    return 0


def simulate(runs: Sequence[Run], supply: Supply, policy: Policy, rules: Rules) -> Outcome:
    """Play the jobs through. Jobs with a deadline leave when even alone they could not meet it any more."""
    found = Outcome(runs=runs)
    pending = sorted(runs, key=lambda r: (r.arrival_ms, r.item.key))[::-1]
    live: list[Run] = []
    now, turn = pending[-1].arrival_ms, 0
    while pending or live:
        while pending and pending[-1].arrival_ms <= now:
            live.append(pending.pop())
        turn += 1
        plan = policy([_seen(run, rules) for run in live], supply, now)
        for run in live:
            _decide(run, plan, rules, now, found, restart=turn % 60 == 0)
        live = [run for run in live if run.place is not None or not _is_hopeless(run, now)]
        marks = [run.end_ms for run in live] + [plan.wake_ms] + [run.arrival_ms for run in pending[-1:]]
        after = _next(now, min(marks), rules)
        if after >= NEVER_MS:
            break
        for run in live:
            _advance(run, now, after)
        found.ends_ms.update({run.item.key: run.end_ms for run in live if run.end_ms <= after})
        live = [run for run in live if run.end_ms > after]
        now = after
    found.moves = sum(run.moves for run in runs)
    return found


def _seen(run: Run, rules: Rules) -> Item:
    """The job as the policy sees it now."""
    lose = LOST_MS if rules.overhead is own_overhead and run.served else run.item.lose_ms
    return replace(run.item, running=run.place, lose_ms=lose)


def _decide(run: Run, plan: Allotment, rules: Rules, now: int, found: Outcome, *, restart: bool) -> None:
    place = plan.places.get(run.item.key)
    run.late_ms = rules.overhead(run, place, restart)
    run.moves += run.place is not None and place != run.place
    run.place = place
    late = run.late_ms if rules.overhead is own_overhead else 0
    run.end_ms = (
        NEVER_MS
        if place is None
        else now + late + replace(run.item, running=place).takes_ms(place, dict(run.item.places())[place])
    )


def _next(now: int, mark: int, rules: Rules) -> int:
    if mark >= NEVER_MS:
        return NEVER_MS
    if rules.rounds:
        return now + max(-(-(mark - now) // rules.slot_ms), 1) * rules.slot_ms if mark > now else now + rules.slot_ms
    return max(now + rules.slot_ms, mark)


def _advance(run: Run, now: int, after: int) -> None:
    if run.place is None or run.end_ms <= after:
        return
    done = max(after - now - run.late_ms, 0) * dict(run.item.places())[run.place] // 1_000_000
    run.item = replace(run.item, remaining_ms=max(run.item.remaining_ms - done, 1))
    run.served += (after - now) * run.item.cards(run.place[1])


def _is_hopeless(run: Run, now: int) -> bool:
    return bool(run.item.deadline_ms) and now + run.item.remaining_ms > run.item.deadline_ms


def runs_of(trace: Trace, models: Sequence[str]) -> list[Run]:
    """The trace's jobs, their work known."""
    return [
        Run(
            item=replace(
                item_of(job.steps[0], key=f"{at:06}", remaining_ms=trace.work_ms[job.id], models=models),
                deadline_ms=job.deadline_ms,
                submitted_ms=job.submitted_ms,
            ),
            arrival_ms=job.submitted_ms,
        )
        for at, job in enumerate(trace.jobs)
    ]


def supply_of(trace: Trace) -> Supply:
    """All cards of the trace's nodes."""
    cards: dict[str, int] = {}
    for node in trace.nodes:
        for device in node.devices:
            cards[device.model] = cards.get(device.model, 0) + 1
    return Supply(cards=tuple(sorted(cards.items())))


Order = Callable[[Item, int], tuple[int, ...]]


def classic(order: Order, *, keep: bool = False, skip: bool = True) -> Policy:
    """A list in some order, each job as large as it fits on the fastest free model.

    ``keep``: what runs is never stopped. ``skip``: a job that does not fit lets others pass.
    """

    def policy(items: Sequence[Item], supply: Supply, now: int) -> Allotment:
        free = dict(supply.cards)
        places: dict[str, Place] = {}
        ranked = sorted(items, key=lambda i: (not (keep and i.running), *order(i, now), i.submitted_ms, i.key))
        for item in ranked:
            options = [(s, p) for p, s in item.places() if free[p[0]] >= item.cards(p[1])]
            if keep and item.running:
                options = [(1, item.running)]
            if options:
                place = max(options)[1]
                places[item.key] = place
                free[place[0]] -= item.cards(place[1])
            elif not skip:
                break
        return Allotment(places=places, slots={}, wake_ms=NEVER_MS)

    return policy


def ours(objective: Objective, margin_ms: int = 0) -> Policy:
    """The shipped policy. Nothing is promised: a deadline is met or not."""
    return lambda items, supply, now: allot(items, supply, now, objective, margin_ms=margin_ms)


def classics(runs: Sequence[Run]) -> dict[str, Policy]:
    """First come first served, earliest deadline, shortest remaining time and least attained service first."""
    served = {run.item.key: run for run in runs}
    return {
        "fifo": classic(lambda item, now: (item.submitted_ms,), keep=True, skip=False),
        "edf": classic(lambda item, now: (item.deadline_ms,)),
        "sjf": classic(lambda item, now: (item.remaining_ms,)),
        "las": classic(lambda item, now: (served[item.key].served,)),
    }


Measure = Callable[[Outcome], float]
OUR_RULE = "_minute_lost"
"""In names of figures: each stop, move or resize loses a minute."""


def figures(traces: Path) -> list[Figure]:
    """All figures on the traces below a folder."""
    return [
        *_deadlines(traces, "elasticVpollux_e", "deadline_met_elasticvpollux", 0.74, {"elasticflow_published": 0.728}),
        *_deadlines(traces, "philly_103959", "deadline_met_philly103959", 0.92, {"elasticflow_rerun": 0.910}),
        *_gavel(traces, "max_min_fairness", Objective.COMPLETION, {"gavel_las_perf_rerun": 3.82}),
        *_gavel(traces, "minimize_makespan", Objective.MAKESPAN, {"gavel_makespan_perf_rerun": 17.40}),
        pool_figure(traces),
    ]


def _deadlines(folder: Path, name: str, figure: str, least: float, known: Mapping[str, float]) -> list[Figure]:
    trace = elasticflow(folder, trace=name)
    cards = supply_of(trace).cards[0][1]
    papers = Rules(slot_ms=60 * SECOND_MS, overhead=elasticflow_overhead(cards))
    own = Rules(slot_ms=60 * SECOND_MS, overhead=own_overhead)
    policy, met = ours(Objective.COMPLETION), _met
    lost = figure.replace("met", f"met{OUR_RULE}")
    return [
        _figure(figure, trace, papers, policy, measure=met, known=known, least=least),
        _figure(lost, trace, own, policy, measure=met, known={}, least=least),
    ]


def _met(outcome: Outcome) -> float:
    return outcome.met


def _gavel(folder: Path, name: str, objective: Objective, known: Mapping[str, float]) -> list[Figure]:
    trace = gavel(folder, trace=name)
    papers = Rules(slot_ms=360 * SECOND_MS, rounds=True, overhead=free_overhead)
    own = replace(papers, overhead=own_overhead)
    makespan = objective is Objective.MAKESPAN
    what, bound = ("makespan", None) if makespan else ("jct", 3.7)
    measure: Measure = (lambda o: o.makespan_hours) if makespan else (lambda o: o.jct_hours)
    floor = {"no_schedule_ends_before": least_makespan_hours(trace)} if makespan else {}
    return [
        _figure(
            f"gavel_{what}_hours",
            trace,
            papers,
            ours(objective),
            measure=measure,
            known={**known, **floor},
            bound=bound,
        ),
        _figure(
            f"gavel_{what}{OUR_RULE}_hours", trace, own, ours(objective), measure=measure, known=floor, bound=bound
        ),
    ]


def _figure(
    name: str,
    trace: Trace,
    rules: Rules,
    policy: Policy,
    *,
    measure: Measure,
    known: Mapping[str, float],
    bound: float | None = None,
    least: float | None = None,
) -> Figure:
    """Ours and the classic orders in the same loop."""
    supply = supply_of(trace)
    anchors = {peer: (value,) for peer, value in known.items()}
    dated = any(job.deadline_ms for job in trace.jobs)
    for peer in ("fifo", "sjf", "las", *(("edf",) if dated else ())):
        runs = runs_of(trace, [model for model, _ in supply.cards])
        anchors[peer] = (measure(simulate(runs, supply, classics(runs)[peer], rules)),)
    runs = runs_of(trace, [model for model, _ in supply.cards])
    value = measure(simulate(runs, supply, policy, rules))
    return Figure(name=name, runs=(value,), bound=bound, least=least, anchors=anchors)


def least_makespan_hours(trace: Trace) -> float:
    """No schedule without two jobs on one card ends before this, whatever it stops and moves."""
    supply = supply_of(trace)
    models = [model for model, _ in supply.cards]
    rows, cards = [], []
    for run in runs_of(trace, models):
        times = {place: run.item.takes_ms(place, speed) for place, speed in run.item.places()}
        rows.append([times.get((model, run.item.ranks), NOWHERE_MS) for model in models])
        cards.append(run.item.cards(run.item.ranks))
    return least_end_ms(rows, cards, [count for _, count in supply.cards]) / HOUR_MS


def pool_figure(folder: Path, *, every: int = 1) -> Figure:
    """The Philly pool. The published values of the two orders without evictions: 19,629 s and 14,035 s."""
    return Figure(
        name="philly_pool_jct_seconds",
        runs=(pool.seconds(folder, pool.learned, preempt=True, steer=True, every=every),),
        bound=15_800 if every == 1 else None,
        anchors={
            "fifo_skip": (pool.seconds(folder, pool.fifo, preempt=False, every=every),),
            "sjf_skip_oracle": (pool.seconds(folder, pool.sjf, preempt=False, every=every),),
            "las": (pool.seconds(folder, pool.las, preempt=True, every=every),),
        },
    )


def main(argv: Sequence[str]) -> None:
    """Measure on the traces below a folder; print, keep."""
    found = figures(Path(argv[0]))
    show(found)
    write("papers", found)


if __name__ == "__main__":
    main(sys.argv[1:])
