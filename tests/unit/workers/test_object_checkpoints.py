"""Checkpoints in an S3-compatible store keep the rules that they keep in a folder."""

import threading

import pytest

from scheduler.model.errors import StorageError
from workers.object_checkpoints import ObjectCheckpoints
from workers.objects import place_of
from workers.staging import Inputs


class Task:
    def __init__(self, bucket, folder):
        self.bucket, self.folder = bucket, folder
        self.place = place_of(f"s3://{bucket.name}/out/checkpoints")

    def begin(self, number, node="node"):
        """On a node of its own; the attempt, and what it begins with."""
        home = self.folder / f"{node}{number}"
        inputs = Inputs(home / "inputs")
        local = home / "checkpoints"
        one = ObjectCheckpoints(self.place, number, local=local, fetch=lambda place: inputs.fetch(place, "l"))
        begun = one.begin("r0")
        return one, begun

    def save(self, begun, *steps):
        for step in steps:
            with open(f"{begun.own[0]}/step-{step}", "w", encoding="ascii") as file:  # noqa: PTH123
                file.write(f"weights {step}")

    def names(self):
        return sorted(name for name in self.bucket.texts("out/checkpoints/") if "/step-" in name)


@pytest.fixture
def task(bucket, tmp_path):
    return Task(bucket, tmp_path)


def resumed(begun):
    return begun.told[1].rpartition("checkpoints/")[2]


def test_what_was_committed_counts_and_what_only_went_up_does_not(task):
    one, begun = task.begin(1)
    assert (begun.resume, begun.earlier) == ("", ())
    task.save(begun, 10, 20)
    assert one.commit(10, 1)
    one._keep(None, 20)  # the agent died before it noted it
    assert not one.commit(30, 1), "nobody saved it"
    _, later = task.begin(2)
    assert resumed(later) == "a1/step-10"
    with open(later.resume, encoding="ascii") as file:  # noqa: PTH123
        assert file.read() == "weights 10"


def test_a_zombie_changes_nothing_for_those_after_it(task):
    one, begun = task.begin(1)
    task.save(begun, 10, 50)
    one.commit(10, 1)
    task.begin(2)
    assert not one.commit(50, 9), "attempt 2 has begun"
    assert resumed(task.begin(3)[1]) == "a1/step-10"


def test_the_newest_few_are_kept_here_and_on_the_node(task):
    one, begun = task.begin(1)
    for step in (10, 20, 30):
        task.save(begun, step)
        one.commit(step, step)
    assert task.names() == ["a1/step-20", "a1/step-30"]
    assert sorted(path.name for path in (task.folder / "node1/checkpoints/a1").iterdir()) == ["step-20", "step-30"]
    two, begun = task.begin(2)
    task.save(begun, 40)
    two.commit(40, 40)
    assert task.names() == ["a1/step-30", "a2/step-40"]
    two.leave()
    assert not (task.folder / "node2/checkpoints").exists()


def test_after_a_bad_loss_an_earlier_one_is_taken(task):
    one, begun = task.begin(1)
    task.save(begun, 10, 20)
    one.commit(10, 1)
    one.commit(20, 2)
    one.distrust(20)
    assert resumed(task.begin(2)[1]) == "a1/step-10"


def test_all_ranks_begin_with_the_same_whoever_comes_first(task):
    one, begun = task.begin(1)
    task.save(begun, 10)
    one.commit(10, 1)
    found = []
    ranks = [threading.Thread(target=lambda r=r: found.append(task.begin(2, f"rank{r}-")[1])) for r in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [resumed(begun) for begun in found] == ["a1/step-10"] * 4
    assert len({begun.resume for begun in found}) == 4, "each on its own node"


def test_an_answer_that_was_lost_is_not_a_failure(s3_env, task):
    one, begun = task.begin(1)
    task.save(begun, 10)
    s3_env.fail(1, code="Lost", status=500, method="PUT", path="a1.json")
    assert one.commit(10, 1)
    s3_env.fail(1, code="Lost", status=500, method="PUT", path="a2.resume")
    assert resumed(task.begin(2)[1]) == "a1/step-10"


def test_damaged_notes_are_told(task):
    task.begin(1)
    task.bucket.put("out/checkpoints/a1.json", "{")
    with pytest.raises(StorageError, match=r"a1\.json .*damaged"):
        task.begin(2)
