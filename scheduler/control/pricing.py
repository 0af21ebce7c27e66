"""What a job has cost so far, and what a job file would cost: the list prices of what it holds, before vouchers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scheduler.control.access import Caller, visible
from scheduler.control.cycle import Cycle
from scheduler.control.keeper import Keeper
from scheduler.control.money_shapes import CostView, StepPrice
from scheduler.control.ports import Ledger
from scheduler.engine import Engine
from scheduler.ledger import meter
from scheduler.ledger.tariff import HOUR_OF, Tariff, divide
from scheduler.model.job import Job, JobRecord, Resources, Step
from scheduler.model.money import RateCard, Rounding
from scheduler.model.node import DeviceKind
from scheduler.model.units import MILLI, MS_PER_HOUR
from scheduler.model.usage import Sku, UsageRecord

MOST_HISTORY = 1_000
"""Jobs that are looked at for run times, newest first."""


class Pricing:
    """Prices of jobs, for whoever may see the job."""

    def __init__(self, cycle: Cycle, keeper: Keeper, ledger: Ledger) -> None:
        self._cycle = cycle
        self._keeper = keeper
        self._ledger = ledger

    def cost(self, caller: Caller, job_id: str) -> CostView:
        """What is booked for a job, and what its open leases cost until now. Raises NotFound."""
        now_ms = self._cycle.now_ms()
        with self._cycle.state() as engine:
            visible(caller, engine.job(job_id), job_id)
            running = tuple(_running(engine, job_id, now_ms))
        with self._keeper.book() as book:
            lines = [line for record in running for line in book.tariff.lines(record)]
            card = book.tariff.card_at(now_ms)
        gross, due = self._ledger.charged(job_id)
        return {
            "sealed_gross_micro_yuan": gross,
            "sealed_due_micro_yuan": due,
            "running_micro_yuan": sum(line.gross_micro_yuan for line in lines),
            "example": card is not None and card.is_example,
        }

    def prices(self, caller: Caller, job: Job) -> tuple[list[StepPrice], bool]:
        """What each step of a job not submitted yet holds per hour, with an estimate where run times are known; and
        whether these are example prices.
        """
        with self._cycle.state() as engine:
            past = [r for r in engine.jobs() if r.job.tenant == caller.tenant][-MOST_HISTORY:]
            devices = {
                (Sku.MIG, f"{d.model}/{d.profile}") if d.kind is DeviceKind.MIG else (Sku.CARD, d.model)
                for node in engine.nodes()
                for d in node.devices  # simulated ones too: they stand for cards that would cost this
            }
        with self._keeper.book() as book:
            card = book.tariff.card_at(self._cycle.now_ms())
            shown = [_step_price(step, job, book.tariff, card, sorted(devices), past) for step in job.steps]
        return shown, card is not None and card.is_example


def _running(engine: Engine, job_id: str, now_ms: int) -> Iterable[UsageRecord]:
    """What open leases would seal if they ended now."""
    devices = {device.id: device for node in engine.nodes() for device in node.devices}
    for record in engine.leases():
        if record.lease.job_id == job_id:
            attempts = [a for a in map(engine.attempt, record.lease.attempts) if a is not None]
            yield from meter.usage_until(record, attempts, devices, max(now_ms, record.lease.granted_ms))


def _step_price(  # noqa: PLR0917 (each is a different thing)
    step: Step,
    job: Job,
    tariff: Tariff,
    card: RateCard | None,
    devices: Sequence[tuple[Sku, str]],
    past: Sequence[JobRecord],
) -> StepPrice:
    hourly = _hourly(step.resources, tariff, card, devices)
    low, high = (step.ranks * each for each in (min(hourly), max(hourly)))
    run_ms, basis = _history(step, job, past)
    return {
        "step": step.name,
        "hourly_low_micro_yuan": low,
        "hourly_high_micro_yuan": high,
        "parallel": min(step.count, step.max_parallel or step.count),
        "run_ms_mean": run_ms,
        "estimate_low_micro_yuan": divide(low * run_ms * step.count, MS_PER_HOUR, Rounding.HALF_UP),
        "estimate_high_micro_yuan": divide(high * run_ms * step.count, MS_PER_HOUR, Rounding.HALF_UP),
        "basis": basis,
    }


def _hourly(asked: Resources, tariff: Tariff, card: RateCard | None, devices: Sequence[tuple[Sku, str]]) -> list[int]:
    """Micro-yuan for an hour of one rank: one figure per model that may be given."""

    def price(sku: Sku, model: str, amount: int) -> int:
        found = tariff.price(card, sku, model)
        return divide(amount * found.hourly_micro_yuan, HOUR_OF[sku], Rounding.HALF_UP) if found is not None else 0

    base = price(Sku.VCPU, "", asked.cpu_milli * MS_PER_HOUR) + price(Sku.MEMORY, "", asked.memory_mib * MS_PER_HOUR)
    amount = (asked.card_milli or MILLI * asked.cards) * MS_PER_HOUR
    if not amount:
        return [base]
    sku = Sku.MIG if asked.mig_profile else Sku.CARD
    named = [f"{model}/{asked.mig_profile}" if asked.mig_profile else model for model in asked.card_models]
    there = [model for kind, model in devices if kind is sku and model.endswith(asked.mig_profile)]
    models = [m for m in there if not named or m in named] or named or ["unknown"]
    return [base + price(sku, model, amount) for model in models]


def _history(step: Step, job: Job, past: Sequence[JobRecord]) -> tuple[int, str]:
    """Mean run time of what is most like this step among the tenant's own jobs, and what that is."""
    same_scene, same_name, same_kind = [0, 0], [0, 0], [0, 0]
    for record in past:
        for asked, done in zip(record.job.steps, record.steps, strict=True):
            if asked.kind is not step.kind or not done.run_count:
                continue
            for sums, matches in (
                (same_scene, bool(step.warm_key) and asked.warm_key == step.warm_key),
                (same_name, (record.job.name, asked.name) == (job.name, step.name)),
                (same_kind, True),
            ):
                sums[0] += done.run_ms_mean * done.run_count * matches
                sums[1] += done.run_count * matches
    for (run_ms, count), basis in ((same_scene, "same_scene"), (same_name, "same_name"), (same_kind, "same_kind")):
        if count:
            return run_ms // count, basis
    return 0, "unknown"
