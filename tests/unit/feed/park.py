"""A database whose outbox grows, the reference receiver, and everything that can go wrong between the two."""

import importlib.util
import random
from pathlib import Path

from scheduler.control.delivery import Answer, Delivery, Unreachable
from scheduler.control.feed import Feed
from scheduler.feed.signing import KeyFile
from scheduler.model.event import JobHeld, UsageSealed
from scheduler.model.snapshot import Changes
from scheduler.model.usage import Bucket, Quantity, Sku, UsageRecord
from scheduler.store import open_store
from tests.unit.control.world import FakeClock, new_database

PROGRAM = Path(__file__).parents[3] / "examples" / "receiver" / "receiver.py"
DAY_MS = 86_400_000


def load_receiver():
    """The shipped program, as a module."""
    spec = importlib.util.spec_from_file_location("shisuan_example_receiver", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = load_receiver()


class Park:
    """A store that seals usage on demand, and its feed."""

    def __init__(self, folder, *, clock=None):
        self.folder = Path(folder)
        self.clock = clock or FakeClock(1_800_000_000_000)
        self.store = open_store(new_database(folder))
        self.epoch = self.store.acquire_epoch("test")
        self.key = KeyFile(self.folder / "feed.key", may_make=True)
        self.feed = Feed(self.store, self.key, self.clock)
        self._leases = 0
        self._ends = {}

    def seal(self, count, rng=None, evidence="{}"):
        """``count`` records of several leases, interleaved, among other facts that leave no trace in the outbox."""
        rng = rng or random.Random(1)
        events = []
        for _ in range(count):
            if not self._ends or (len(self._ends) < 9 and rng.random() < 0.3):
                self._leases += 1
                self._ends[self._leases] = 1_000 * self._leases
            number = rng.choice(sorted(self._ends))
            events += [JobHeld(at_ms=1, job_id="j1")] * rng.randrange(3)
            events.append(UsageSealed(at_ms=2, record=self._record(number, rng.randrange(1, 9_000), evidence)))
        self.store.commit(self.epoch, events, Changes(at_ms=9_000, next_job=2, next_lease=1))

    def _record(self, number, length_ms, evidence):
        start_ms = self._ends[number]
        self._ends[number] = start_ms + length_ms
        return UsageRecord(
            id=f"l{number}:{start_ms}:held_charged", lease_id=f"l{number}", job_id="j1", step="渲染 \ud800",
            tenant="studio", queue="default", start_ms=start_ms, end_ms=start_ms + length_ms,
            bucket=Bucket.HELD_CHARGED, evidence=evidence,
            quantities=(Quantity(sku=Sku.VCPU, amount=length_ms * 1_000),),
        )  # fmt: skip

    def sealed(self):
        """Seq and id of every outbox row, in order."""
        return [(row.seq, row.id) for row in self.store.outbox_rows(0, 10_000)]

    def receiver(self, name="ledger.db", step=lambda name: None):
        return program.Receiver(str(self.folder / name), self.key.public, lambda: self.clock.now / 1_000, step)

    def delivery(self, post, seed=0, **more):
        return Delivery(self.feed, post, self.clock, rng=random.Random(seed), **more)

    def close(self):
        self.store.close()


def stored(receiver):
    return list(receiver._db.execute("SELECT seq, id FROM entries ORDER BY seq"))


def hand_over(receiver, signed):
    """What the receiver's HTTP server does."""
    try:
        return Answer(status=200, cursor=receiver.take(signed.headers, signed.batch.body))
    except program.Refused as error:
        return Answer(status=error.status, cursor=receiver.cursor(), message=str(error))


class Killed(BaseException):
    """The receiver's process is gone, wherever it was."""


class FlakyWire:
    """Hands batches to a receiver that is killed at random steps, over a network that loses and repeats."""

    def __init__(self, park, rng):
        self.park, self.rng = park, rng
        self.kills, self.repeats, self.lost = {}, 0, 0
        self.down_until_ms = 0
        self._left = None
        self._old = []
        self._receiver = None

    def receiver(self):
        if self._receiver is None:
            self._receiver = self.park.receiver(step=self._step)
            self._receiver._db.execute("PRAGMA synchronous = OFF")  # no machine loses power here
        return self._receiver

    def _step(self, name):
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.kills[name] = self.kills.get(name, 0) + 1
                raise Killed(name)

    def __call__(self, signed):
        if self.park.clock.now < self.down_until_ms:
            raise Unreachable("connection refused")
        self._old.append(signed)
        fault = self.rng.random()
        if fault < 0.08:
            self.lost += 1
            raise Unreachable("the batch was lost")
        if fault < 0.12:
            return Answer(status=503, message="busy", retry_after_s=self.rng.randrange(30))
        self._left = self.rng.randrange(2 + 2 * signed.batch.rows) if fault < 0.5 else None
        try:
            answer = hand_over(self.receiver(), signed)
        except Killed:
            self._receiver.close()
            self._receiver = None
            raise Unreachable("connection reset") from None
        finally:
            self._left = None
        if fault > 0.9:
            self.lost += 1
            raise Unreachable("the answer was lost")
        if fault > 0.75:
            self.repeats += 1
            hand_over(self.receiver(), self.rng.choice(self._old))  # an older one arrives again, or the same
        return answer


def run(park, delivery, until, most_steps=100_000):
    """Step on the fake clock until the condition holds; how many steps it took."""
    for step in range(most_steps):
        if until():
            return step
        park.clock.now += delivery.step()
    raise AssertionError(f"not within {most_steps} steps: {delivery.view()}")
