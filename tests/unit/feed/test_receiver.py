"""What the reference receiver refuses, and what its check finds."""

import json
from dataclasses import replace

import pytest

from scheduler.model.feed import SignedBatch, batch_of, signed_bytes
from tests.unit.feed.park import Park, hand_over, program, run, stored


@pytest.fixture
def receiver(park):
    made = park.receiver()
    yield made
    made.close()


@pytest.fixture
def full(park, receiver):
    """It has ten entries of a few batches."""
    park.seal(10)
    delivery = park.delivery(lambda signed: hand_over(receiver, signed), batch_rows=3)
    run(park, delivery, lambda: delivery.state == "current")
    return receiver


def forged(park, value):
    """A batch of our own making with a right signature."""
    body = json.dumps(value).encode()
    batch = replace(batch_of("x", 0, ()), body=body)
    timestamp_s = park.clock.now // 1_000
    return SignedBatch(
        batch=batch, timestamp_s=timestamp_s, signature=park.key.sign(signed_bytes(batch.id, timestamp_s, body))
    )


def test_a_batch_twice_is_stored_once(park, receiver):
    park.seal(4)
    signed = park.feed.batch(0, 10)
    assert [hand_over(receiver, signed).cursor for _ in range(2)] == [park.sealed()[-1][0]] * 2
    assert stored(receiver) == park.sealed()


def test_a_gap_is_refused_and_says_where_to_go_on(park, receiver):
    park.seal(6)
    seqs = [seq for seq, _ in park.sealed()]
    hand_over(receiver, park.feed.batch(0, 2))
    answer = hand_over(receiver, park.feed.batch(seqs[2], 10))
    assert (answer.status, answer.cursor) == (409, seqs[1])
    assert len(stored(receiver)) == 2


def test_a_changed_byte_is_refused(park, receiver):
    park.seal(2)
    signed = park.feed.batch(0, 10)
    for at in range(0, len(signed.batch.body), 37):
        changed = bytearray(signed.batch.body)
        changed[at] ^= 1
        answer = hand_over(receiver, replace(signed, batch=replace(signed.batch, body=bytes(changed))))
        assert (answer.status, answer.cursor) == (401, 0)
    for other in (replace(signed, timestamp_s=signed.timestamp_s + 1), replace(signed, signature="v1a,AAAA v1,x")):
        assert hand_over(receiver, other).status == 401
    assert stored(receiver) == []


def test_another_key_is_refused(park, receiver, tmp_path):
    (tmp_path / "other").mkdir()
    other = Park(tmp_path / "other")
    other.seal(1)
    assert hand_over(receiver, other.feed.batch(0, 10)).status == 401
    other.close()


def test_one_of_several_signatures_is_enough(park, receiver):
    park.seal(1)
    signed = park.feed.batch(0, 10)
    assert hand_over(receiver, replace(signed, signature=f"v1a,AAAA {signed.signature}")).status == 200


@pytest.mark.parametrize("away_s", [-301, 301])
def test_an_old_batch_is_refused_though_its_signature_is_right(park, receiver, away_s):
    park.seal(1)
    signed = park.feed.batch(0, 10)
    park.clock.now += away_s * 1_000
    assert hand_over(receiver, signed).status == 401


def test_other_content_under_a_known_number_is_refused(park, full):
    value = json.loads(park.feed.batch(0, 1).batch.body)
    value["items"][0]["id"] = "1-0000000000000000"
    answer = hand_over(full, forged(park, value))
    assert answer.status == 422
    assert "other content" in answer.message


def test_a_feed_of_another_version_is_refused(park, receiver):
    assert hand_over(receiver, forged(park, {"feed": 2, "items": []})).status == 422


def test_what_was_stored_is_well(full):
    assert full.verify() == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)", "was sent and is gone"),
        ("DELETE FROM entries WHERE seq = (SELECT min(seq) FROM entries)", "comes before it"),
        ("UPDATE entries SET body = replace(body, 'studio', 'rival') WHERE prev = 0", "not what its batch says"),
        ("UPDATE batches SET timestamp = timestamp + 1 WHERE number = 2", "batch 2: no signature"),
        (
            "UPDATE batches SET body = CAST(replace(CAST(body AS TEXT), 'studio', 'rival!') AS BLOB) WHERE number = 1",
            "batch 1",
        ),
        ("UPDATE entries SET id = 'x' WHERE prev = 0", "not what its batch says"),
    ],
)
def test_any_damage_is_found(full, damage, words):
    full._db.execute("PRAGMA foreign_keys = OFF")
    full._db.execute(damage)
    assert words in " ".join(full.verify())


def test_gaps_and_overlaps_of_a_lease_are_found(park, receiver):
    """A sender that signs nonsense is still found out."""
    records = [("l1", 0, 10), ("l1", 10, 20), ("l2", 0, 5), ("l1", 21, 30), ("l2", 4, 9)]
    items, prev = [], 0
    for seq, (lease, start, end) in enumerate(records, 1):
        record = {"lease_id": lease, "start_ms": start, "end_ms": end}
        items.append({"seq": seq, "prev": prev, "id": str(seq), "kind": "UsageSealed", "body": {"record": record}})
        prev = seq
    assert hand_over(receiver, forged(park, {"feed": 1, "items": items})).status == 200
    assert receiver.verify() == ["lease l1: gap between 20 and 21", "lease l2: overlap between 5 and 4"]


def test_kinds_it_does_not_know_are_kept(park, receiver):
    item = {"seq": 3, "prev": 0, "id": "3-x", "kind": "LedgerPosted", "body": {"any": "thing"}}
    assert hand_over(receiver, forged(park, {"feed": 1, "items": [item]})).cursor == 3
    assert receiver.verify() == []


def test_the_program_checks_a_file(park, full, capsys, monkeypatch):
    words = ["receiver.py", "--db", str(park.folder / "ledger.db"), "--key", park.key.public, "--verify"]
    monkeypatch.setattr("sys.argv", words)
    assert program.main() == 0
    full._db.execute("UPDATE entries SET id = 'x' WHERE prev = 0")
    assert program.main() == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"all is well up to entry {park.sealed()[-1][0]}"
    assert "not what its batch says" in told[1]
