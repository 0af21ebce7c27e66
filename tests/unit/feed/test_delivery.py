"""Delivery to the reference receiver on a fake clock: nothing lost, nothing stored twice, whatever happens between."""

import random
from itertools import pairwise

import pytest

from scheduler.control.delivery import LONGEST_PAUSE_MS, Answer, Unreachable
from scheduler.control.feed import MOST_BYTES
from tests.unit.feed.park import DAY_MS, FlakyWire, hand_over, run, stored


def kill_run(park, seed):
    """One life of a park whose receiver keeps dying; returns the wire."""
    rng = random.Random(seed)
    wire = FlakyWire(park, rng)
    delivery = park.delivery(wire, seed, batch_rows=rng.choice((1, 3, 20)))
    for _ in range(6):
        park.seal(rng.randrange(1, 12), rng)
        for _ in range(rng.randrange(12)):
            park.clock.now += delivery.step()
        if rng.random() < 0.3:  # the service restarts and has forgotten everything
            delivery = park.delivery(wire, rng.random(), batch_rows=rng.choice((1, 3, 20)))
        if rng.random() < 0.2:
            wire.down_until_ms = park.clock.now + rng.randrange(3 * DAY_MS)
    last = park.sealed()[-1][0]  # it may still say "current" from before the last were sealed
    run(park, delivery, lambda: delivery.state == "current" and delivery._shown == last)
    assert stored(wire.receiver()) == park.sealed()
    assert wire.receiver().verify() == []
    assert delivery.view()["lag"] == 0
    wire.receiver().close()
    return wire


def check_kills(folder, make_park, least):
    kills, seed, seen = 0, 0, set()
    while kills < least or len(seen) < 4:
        park = make_park(folder / str(seed))
        wire = kill_run(park, seed)
        park.close()
        kills, seen, seed = kills + sum(wire.kills.values()), seen | set(wire.kills), seed + 1
    assert seen == {"checked", "compared", "inserted", "committed"}


@pytest.fixture
def make_park():
    from tests.unit.feed.park import Park

    def make(folder):
        folder.mkdir(parents=True)
        return Park(folder)

    return make


def test_a_receiver_killed_at_a_hundred_points_has_everything_once(tmp_path, make_park):
    check_kills(tmp_path, make_park, 100)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_receiver_killed_at_two_thousand_points_has_everything_once(tmp_path, make_park):
    check_kills(tmp_path, make_park, 2_000)


def test_days_without_a_receiver(park):
    """Pauses grow to five minutes and stay there; what piles up leaves in bounded batches once it is back."""
    delivery_down, back_ms = [], park.clock.now + 5 * DAY_MS
    receiver, sizes = park.receiver(), []

    def post(signed):
        sizes.append(len(signed.batch.body))
        if park.clock.now < back_ms:
            delivery_down.append(park.clock.now)
            raise Unreachable("connection refused")
        return hand_over(receiver, signed)

    park.seal(50)
    delivery = park.delivery(post)
    for _ in range(20):
        park.clock.now += delivery.step()
    park.seal(1_500, evidence='{"note":"' + "x" * 2_000 + '"}')
    run(park, delivery, lambda: park.clock.now >= back_ms)
    pauses = [b - a for a, b in pairwise(delivery_down)]
    assert pauses[:4] == sorted(pauses[:4])
    assert all(LONGEST_PAUSE_MS // 2 <= pause <= LONGEST_PAUSE_MS for pause in pauses[10:])
    assert len(set(pauses[10:])) > 100  # jitter: a thousand senders do not come back in step
    assert delivery.view()["state"] == "retrying"
    run(park, delivery, lambda: delivery.state == "current")
    assert park.clock.now - back_ms <= LONGEST_PAUSE_MS + 60_000
    assert stored(receiver) == park.sealed()
    assert len(park.sealed()) == 1_550
    assert max(sizes) < 1.2 * MOST_BYTES
    receiver.close()


def test_the_receivers_word_counts_not_ours(park):
    """Restored from an older copy, it gets again what it lost; ahead of us, it is not given anything twice."""
    receiver = park.receiver()
    delivery = park.delivery(lambda signed: hand_over(receiver, signed), hint=park.folder / "hint")
    park.seal(10)
    run(park, delivery, lambda: delivery.state == "current")
    for more in (2, 0):  # it is noticed with the next news, and without any in a few minutes
        receiver._db.execute("DELETE FROM entries WHERE seq > ?", (park.sealed()[3][0],))
        if more:
            park.seal(more)
        run(park, delivery, lambda: stored(receiver) == park.sealed())
    (park.folder / "hint").write_text("no number")
    fresh = park.delivery(lambda signed: hand_over(receiver, signed), hint=park.folder / "hint")
    assert (fresh.view()["cursor"], fresh.view()["lag"]) == (0, 12)
    run(park, fresh, lambda: fresh.state == "current")
    assert fresh.view()["delivered"] == 0
    receiver.close()


def test_a_receiver_of_another_installation_is_refused_and_nothing_is_skipped(park):
    park.seal(3)
    delivery = park.delivery(lambda signed: Answer(status=200, cursor=10**9))
    for _ in range(3):
        park.clock.now += delivery.step()
    view = delivery.view()
    assert (view["state"], view["lag"], view["delivered"]) == ("refused", 3, 0)
    assert "this database lacks" in view["message"]


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (Answer(status=503, message="disk full"), "retrying", "503: disk full"),
        (Answer(status=429), "retrying", "429"),
        (Answer(status=401, message="no signature"), "refused", "401: no signature"),
        (Answer(status=302), "refused", "302"),
        (Answer(status=422, cursor=0, message="other content"), "refused", "other content"),
        (Answer(status=200), "refused", "without its cursor"),
        (Answer(status=200, cursor=0), "retrying", "stored nothing"),
        (Answer(status=409, cursor=0, message="gap"), "refused", "409"),
    ],
)
def test_any_other_answer_is_tried_again_later_and_told(park, answer, state, words):
    """The first exchange asks for the cursor; what the second one is answered is the case."""
    park.seal(3)
    delivery = park.delivery(lambda signed: answer if signed.batch.rows else Answer(status=200, cursor=0))
    pauses = [delivery.step() for _ in range(20)]
    assert pauses[0::2] == [0] * 10
    assert all(500 <= pause <= LONGEST_PAUSE_MS for pause in pauses[1::2])
    assert pauses[-1] > 20_000  # a receiver that answers questions and takes nothing is an outage too
    assert (delivery.view()["state"], delivery.view()["failures"], delivery.view()["lag"]) == (state, 10, 3)
    assert words in delivery.view()["message"]


def test_a_receiver_that_sends_to_and_fro_is_not_followed_for_ever(park):
    park.seal(3)
    seqs = [seq for seq, _ in park.sealed()]

    def post(signed):
        return Answer(status=409, cursor=seqs[signed.batch.after == seqs[0]])

    delivery = park.delivery(post)
    assert any(delivery.step() for _ in range(5))


def test_a_longer_pause_that_the_receiver_asks_for_is_kept_within_reason(park):
    asked = iter((90, 10**6))
    delivery = park.delivery(lambda signed: Answer(status=503, retry_after_s=next(asked)))
    assert delivery.step() == 90_000
    assert delivery.step() == 3_600_000


def test_news_does_not_end_a_pause_but_ends_idleness(park):
    receiver = park.receiver()
    delivery = park.delivery(lambda signed: hand_over(receiver, signed))
    assert delivery.step() == 0
    assert delivery.step() == 60_000
    park.seal(1)
    delivery.wake()
    assert delivery._news.is_set()
    assert delivery.step() == 0
    assert stored(receiver) == park.sealed()
    receiver.close()
