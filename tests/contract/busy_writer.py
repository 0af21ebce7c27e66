"""A process that commits without pause until it is killed: ``python -m tests.contract.busy_writer URL SEED``.

It runs the real engine over seeded events (jobs, leases, ends of attempts, usage), keeps the ledger, and prints each
committed number.
"""

import random
import sys

from scheduler.control.keeper import Keeper
from scheduler.engine import Engine
from scheduler.model.event import (
    AttemptFinished,
    AttemptStarted,
    Event,
    JobSubmitted,
    NodeSeen,
    PolicySet,
    RateCardSet,
    UsageSealed,
    VoucherGranted,
)
from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.lease import AttemptState
from scheduler.model.node import Node
from scheduler.model.policy import Policy
from scheduler.model.usage import Bucket, Quantity, Sku, UsageRecord
from scheduler.store import open_store
from tests.money import card, policy, voucher

NODE = Node(name="alpha", cpu_milli=4_000, memory_mib=16_000)
POLICY = Policy(chunk_max=4)


def submission(number: int, at_ms: int) -> JobSubmitted:
    step = Step(name="frames", kind=StepKind.COMMAND, count=5, retries=1, resources=Resources(cpu_milli=1000))
    job = Job(
        id=f"j{number}", name="film", tenant="default", queue="default", kind=JobKind.COMMAND, steps=(step,),
        submitted_ms=at_ms, source="#" * 2000,
    )  # fmt: skip
    return JobSubmitted(at_ms=at_ms, job=job)


def sealed(lease, at_ms: int) -> UsageSealed:
    record = UsageRecord(
        id=f"{lease.id}:{lease.granted_ms}:held_charged", lease_id=lease.id, job_id=lease.job_id, step=lease.step,
        tenant=lease.tenant, queue=lease.queue, start_ms=lease.granted_ms, end_ms=at_ms, bucket=Bucket.HELD_CHARGED,
        quantities=(Quantity(sku=Sku.VCPU, amount=3_600_000 * (at_ms - lease.granted_ms)),),
    )  # fmt: skip
    return UsageSealed(at_ms=at_ms, record=record)


class Park:
    """Applies what it records, as the cycle does."""

    def __init__(self, store, seed: int) -> None:
        self.store, self.random = store, random.Random(seed)
        self.epoch = store.acquire_epoch("busy writer")
        self.engine = Engine.from_snapshot(store.load())
        self.batch: list[Event] = []
        self.keeper = Keeper(store, self.epoch, batch=5)
        self.terms()

    def terms(self) -> None:
        """Once per database: prices, a policy, a voucher that runs dry soon."""
        with self.keeper.book() as book:
            if book.vouchers:
                return
        dated = {"valid_from_ms": 0, "valid_to_ms": 30_000_000_000}
        self.tell(
            RateCardSet(at_ms=1, card=card(valid_from_ms=0, vcpu_voucher=True)),
            PolicySet(at_ms=1, policy=policy(year=1970, skus=(Sku.VCPU,), **dated)),
            VoucherGranted(at_ms=1, voucher=voucher(tenant="default", yuan=0.000100, **dated)),
        )

    def tell(self, *events: Event) -> None:
        for event in events:
            self.engine.apply(event)
            self.batch.append(event)

    def cycle(self) -> int:
        now = self.engine.now_ms + 1
        self.tell(NodeSeen(at_ms=now, node=NODE))
        if self.random.random() < 0.5:
            self.tell(submission(self.engine.snapshot().next_job, now))
        for record in list(self.engine.leases()):
            if self.random.random() < 0.5:
                self.end(record.lease, now)
        self.tell(*self.engine.events_of(self.engine.plan(now, POLICY)))
        events, self.batch = self.batch, []
        number = self.store.commit(self.epoch, events, self.engine.take_changes())
        self.keeper.catch_up()
        return number

    def end(self, lease, now: int) -> None:
        for attempt_id in lease.attempts:
            self.tell(AttemptStarted(at_ms=now, attempt_id=attempt_id))
            state = self.random.choice([AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.LOST])
            self.tell(AttemptFinished(at_ms=now, attempt_id=attempt_id, state=state))
        self.tell(sealed(lease, now))


if __name__ == "__main__":
    park = Park(open_store(sys.argv[1]), int(sys.argv[2]))
    while True:
        print(park.cycle(), flush=True)
