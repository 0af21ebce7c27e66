import threading

import pytest

from scheduler.model.errors import OutsideRoots, StorageError
from workers.checkpoints import Checkpoints
from workers.folders import Roots


class Task:
    """A task's checkpoints below a root, attempt by attempt."""

    def __init__(self, root):
        self.root = root
        self.folder = root / "out" / "checkpoints"

    def attempt(self, number, **fields):
        return Checkpoints(Roots((str(self.root),)), str(self.folder), number, **fields)

    def begin(self, number, **fields):
        one = self.attempt(number, **fields)
        return one, one.begin("r0").resume.removeprefix(f"{self.folder}/")

    def save(self, number, *steps):
        for step in steps:
            (self.folder / f"a{number}" / f"step-{step}").write_text(f"weights {step}")

    def names(self):
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.glob("a*/*"))


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


def test_the_first_attempt_begins_with_nothing(task):
    one = task.attempt(1)
    begun = one.begin("r0")
    assert (begun.own, begun.earlier, begun.resume) == ((f"{task.folder}/a1",) * 2, (), "")
    assert (task.folder / "a1").is_dir()


def test_the_next_attempt_begins_with_the_newest_that_was_committed(task):
    one, _ = task.begin(1)
    task.save(1, 10, 20, 30)
    assert one.commit(10, 1)
    assert one.commit(20, 2)
    assert task.begin(2)[1] == "a1/step-20", "step 30 was written and never committed"
    assert task.begin(3)[1] == "a1/step-20", "attempt 2 saved nothing"


def test_what_is_not_there_under_its_final_name_is_not_committed(task):
    one, _ = task.begin(1)
    (task.folder / "a1" / "step-10.tmp").touch()
    (task.folder / "a1" / "step-20").symlink_to("/etc/passwd")
    assert not one.commit(10, 1)
    assert not one.commit(20, 1)
    assert task.begin(2)[1] == ""


def test_a_checkpoint_may_be_a_folder(task):
    one, _ = task.begin(1)
    (task.folder / "a1/step-10/deep").mkdir(parents=True)
    (task.folder / "a1/step-10/deep/rank0.pt").touch()
    assert one.commit(10, 1)
    assert task.begin(2)[1] == "a1/step-10"


def test_the_newest_few_are_kept_whichever_attempt_made_them(task):
    one, _ = task.begin(1)
    task.save(1, 10, 20, 30)
    for step in (10, 20, 30):
        one.commit(step, step)
    assert task.names() == ["a1/step-20", "a1/step-30"]
    two, resume = task.begin(2)
    assert resume == "a1/step-30"
    task.save(2, 40)
    two.commit(40, 40)
    assert task.names() == ["a1/step-30", "a2/step-40"]


def test_a_zombie_changes_nothing_for_those_after_it(task):
    one, _ = task.begin(1)
    task.save(1, 10)
    one.commit(10, 1)
    two, resume = task.begin(2)
    task.save(1, 50)
    assert not one.commit(50, 9), "attempt 2 has begun"
    assert resume == two.begin("r1").resume.removeprefix(f"{task.folder}/") == "a1/step-10"
    assert task.begin(3)[1] == "a1/step-10"


def test_a_zombie_may_be_several_attempts_old(task):
    one, _ = task.begin(1)
    task.begin(7)  # 2 to 6 were lost before they began
    task.save(1, 50)
    assert not one.commit(50, 9)


def test_all_ranks_begin_with_the_same_whoever_comes_first(task):
    one, _ = task.begin(1)
    task.save(1, 10)
    one.commit(10, 1)
    found = []
    ranks = [threading.Thread(target=lambda r=r: found.append(task.attempt(2).begin(f"r{r}").resume)) for r in range(8)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert set(found) == {f"{task.folder}/a1/step-10"}
    assert not list(task.folder.glob(".*"))


@pytest.mark.parametrize(("last_good", "resume"), [(25, "a1/step-20"), (20, "a1/step-10"), (10, ""), (-1, "")])
def test_after_a_bad_loss_only_what_a_later_good_loss_vouches_for_counts(task, last_good, resume):
    """The loss of step 20 is measured before its update: that one may already have done the harm."""
    one, _ = task.begin(1)
    task.save(1, 10, 20)
    one.commit(10, 1)
    one.commit(20, 2)
    one.distrust(last_good)
    assert task.begin(2)[1] == resume


def test_a_checkpoint_from_which_the_loss_is_bad_at_once_is_not_taken_again(task):
    one, _ = task.begin(1)
    task.save(1, 10, 20)
    one.commit(10, 1)
    one.commit(20, 2)
    two, resume = task.begin(2)
    assert resume == "a1/step-20"
    two.distrust(-1)
    assert task.begin(3)[1] == "a1/step-10"


def test_a_checkpoint_that_was_taken_away_is_not_resumed(task):
    one, _ = task.begin(1)
    task.save(1, 10, 20)
    one.commit(10, 1)
    one.commit(20, 2)
    (task.folder / "a1" / "step-20").unlink()
    assert task.begin(2)[1] == "a1/step-10"


def test_links_lead_nowhere(task, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "step-10").touch()
    one, _ = task.begin(1)
    (task.folder / "a1").rmdir()
    (task.folder / "a1").symlink_to(elsewhere)
    with pytest.raises(OSError):
        one.commit(10, 1)
    assert (elsewhere / "step-10").exists()


def test_old_checkpoints_are_removed_without_following_links(task, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").touch()
    one, _ = task.begin(1, kept=1)
    task.save(1, 10, 20)
    one.commit(10, 1)
    (task.folder / "a1/step-10").unlink()
    (task.folder / "a1/step-10").symlink_to(elsewhere)
    one.commit(20, 1)
    assert task.names() == ["a1/step-20"]
    assert (elsewhere / "precious").exists()


def test_nothing_outside_the_roots(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutsideRoots):
        Checkpoints(Roots((str(tmp_path / "mine"),)), str(tmp_path / "yours"), 1).begin("r0")


def test_damaged_notes_are_said_not_guessed(task):
    task.begin(1)
    (task.folder / "a1.json").write_text("{")
    with pytest.raises(StorageError, match=r"a1\.json"):
        task.begin(2)
