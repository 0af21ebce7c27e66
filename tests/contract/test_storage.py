"""The storage door: what every store must do, and what is true of POSIX alone (at the end of each part)."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from multiprocessing import Value, get_context
from pathlib import Path

import pytest

from scheduler.model.errors import Fenced, OutputMissing, OutsideRoots, StorageError
from workers.storage import PosixStorage, open_storage, task_of

TASK = "j1.s.0"


class OnPosix:
    """A store, and what its user sees."""

    steps = 9
    kept = ("j1.s.0.json", "j1.s.0.lock", "j1.s.0.json.new")

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.root = folder, str(folder)

    def open(self):
        return open_storage(self.root, (self.root,))

    def stepping(self, step):
        """A store that calls ``step`` between any two steps."""
        return open_storage(self.root, (self.root,), hook=step)

    def visible(self, out):
        """Final files: what a user of the folder sees."""
        return {name: text for name, text in self.everything(out).items() if not name.startswith(".shisuan")}

    def everything(self, out):
        return texts_in(out)

    def put(self, out, name, text):
        (Path(out) / name).write_text(text)

    def remove(self, out, name):
        (Path(out) / name).unlink()


class OnObjects(OnPosix):
    """The same on an S3-compatible server."""

    steps = 20
    kept = ("j1.s.0.json", "conditional-writes")

    def __init__(self, bucket):
        self.bucket, self.root = bucket, f"s3://{bucket.name}/studio"

    def stepping(self, step):
        """Before each request; for what lies between an answer and the next request, nothing tells the difference."""
        self.bucket.client.meta.events.register("before-send.s3", step)
        return self.open()

    def everything(self, out):
        return self.bucket.texts(f"{self._key(out)}/")

    def put(self, out, name, text):
        self.bucket.put(f"{self._key(out)}/{name}", text)

    def remove(self, out, name):
        self.bucket.remove(f"{self._key(out)}/{name}")

    def _key(self, out):
        return out.removeprefix(f"s3://{self.bucket.name}/")


@pytest.fixture(params=["posix", "s3"])
def world(request, tmp_path):
    return OnPosix(tmp_path / "root") if request.param == "posix" else OnObjects(request.getfixturevalue("bucket"))


@pytest.fixture
def out(world):
    return f"{world.root}/film"


@pytest.fixture
def storage(world):
    return world.open()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "posix").mkdir()
    return tmp_path / "posix"


@pytest.fixture
def posix(root):
    return PosixStorage((str(root),))


@pytest.fixture
def posix_out(root):
    return str(root / "film")


def visible(out: str) -> dict[str, str]:
    """What a user of a POSIX folder sees."""
    return {name: text for name, text in texts_in(out).items() if not name.startswith(".shisuan")}


def texts_in(folder: str) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in Path(folder).rglob("*") if p.is_file()}


def stage(folder: Path, **files: str) -> str:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def test_published_files_have_their_final_names_and_a_manifest(world, storage, tmp_path, out):
    staged = stage(tmp_path / "w", a_exr="AA", deep__b_png="B")
    manifest = storage.publish(staged, ("a.exr", "deep/b.png"), out, TASK, 1, result='{"n":1}')
    assert world.visible(out) == {"a.exr": "AA", "deep/b.png": "B"}
    assert manifest.uris == (f"{out}/a.exr", f"{out}/deep/b.png")
    assert [f.size for f in manifest.files] == [2, 1]
    assert storage.published(out, TASK) == manifest
    assert manifest.result == '{"n":1}'


def test_nothing_is_published_before(storage, out):
    assert storage.published(out, TASK) is None
    assert storage.claim(out, TASK, 1) is None


def test_publishing_again_gives_what_is_there(world, storage, tmp_path, out):
    first = storage.publish(stage(tmp_path / "w1", a="one"), ("*",), out, TASK, 1)
    assert storage.publish(stage(tmp_path / "w2", a="two"), ("*",), out, TASK, 2) == first
    assert storage.claim(out, TASK, 3) == first
    assert world.visible(out) == {"a": "one"}


def test_a_fenced_attempt_cannot_publish(world, storage, tmp_path, out):
    assert storage.claim(out, TASK, 2) is None
    with pytest.raises(Fenced):
        storage.publish(stage(tmp_path / "w", a="old"), ("*",), out, TASK, 1)
    with pytest.raises(Fenced):
        storage.claim(out, TASK, 1)
    storage.publish(stage(tmp_path / "w", a="new"), ("*",), out, TASK, 2)
    assert world.visible(out) == {"a": "new"}


def test_tasks_of_one_folder_do_not_know_each_other(world, storage, tmp_path, out):
    storage.publish(stage(tmp_path / "w1", a="1"), ("*",), out, "j1.s.0", 3)
    storage.publish(stage(tmp_path / "w2", b="2"), ("*",), out, "j1.s.1", 1)
    assert world.visible(out) == {"a": "1", "b": "2"}


def test_outputs_changed_or_taken_away_count_as_unpublished(world, storage, tmp_path, out):
    storage.publish(stage(tmp_path / "w", a="one"), ("*",), out, TASK, 1)
    world.remove(out, "a")
    assert storage.published(out, TASK) is None
    storage.publish(stage(tmp_path / "w", a="one"), ("*",), out, TASK, 2)
    assert world.visible(out) == {"a": "one"}


@pytest.mark.parametrize("wanted", ["b.exr", "frames/*.exr", "a"])
def test_a_missing_output_is_named(world, storage, tmp_path, out, wanted):
    with pytest.raises(OutputMissing, match=r"left no .*a\.exr"):
        storage.publish(stage(tmp_path / "w", a_exr="x"), (wanted,), out, TASK, 1)
    assert world.visible(out) == {}


def test_patterns_choose_and_star_takes_all_or_nothing(world, storage, tmp_path, out):
    staged = stage(tmp_path / "w", f__1_exr="1", f__2_exr="2", notes="n")
    storage.publish(staged, ("f/*.exr",), out, "j1.s.0", 1)
    assert sorted(world.visible(out)) == ["f/1.exr", "f/2.exr"]
    (tmp_path / "empty").mkdir()
    assert storage.publish(str(tmp_path / "empty"), ("*",), out, "j1.s.1", 1).files == ()


@pytest.mark.parametrize("where", ["/../other", "/film/../../x", "/film\0x", "-other/x", "/../studio-other"])
def test_a_folder_outside_the_roots_is_refused(world, storage, tmp_path, where):
    with pytest.raises((OutsideRoots, StorageError)):
        storage.publish(stage(tmp_path / "w", a="x"), ("*",), world.root + where, TASK, 1)
    with pytest.raises((OutsideRoots, StorageError)):
        storage.readable(world.root + where)


@pytest.mark.parametrize("where", ["/etc", "s3://other/studio", "s3:///x", "s3://"])
def test_another_place_is_refused(world, tmp_path, where):
    with pytest.raises((OutsideRoots, StorageError)):
        open_storage(where, (world.root,)).publish(stage(tmp_path / "w", a="x"), ("*",), where, TASK, 1)


def test_our_own_folder_is_not_published_into(world, storage, tmp_path, out):
    with pytest.raises(OutputMissing, match="is ours"):
        storage.publish(stage(tmp_path / "w", _shisuan__j1_s_1_json="{}"), ("*",), out, TASK, 1)
    assert world.visible(out) == {}


def test_a_task_made_again_replaces_what_an_earlier_attempt_published(world, storage, tmp_path, out):
    storage.publish(stage(tmp_path / "w1", a="one", b="one"), ("*",), out, TASK, 1)
    again = storage.publish(stage(tmp_path / "w2", a="two", b="two"), ("*",), out, TASK, 2, replace=True)
    assert again.number == 2
    assert world.visible(out) == {"a": "two", "b": "two"}
    assert storage.claim(out, TASK, 3) == again


def test_a_link_that_leaves_the_roots_is_refused_at_every_place(posix, tmp_path, root, posix_out):
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (outside / "secret").write_text("s")
    staged = stage(tmp_path / "w", a="x")
    for folder in ("link", "link/deeper"):
        with pytest.raises(OutsideRoots):
            posix.publish(staged, ("*",), str(root / folder), TASK, 1)
    with pytest.raises(OutsideRoots, match="it leads to"):
        posix.readable(str(root / "file"))
    Path(posix_out).mkdir()
    (Path(posix_out) / "sub").symlink_to(outside)
    with pytest.raises(OSError, match="sub"):
        posix.publish(stage(tmp_path / "w2", sub__x="x"), ("*",), posix_out, TASK, 1)
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]


def test_a_hidden_folder_that_is_a_link_is_refused(posix, tmp_path, posix_out):
    outside = tmp_path / "outside"
    outside.mkdir()
    Path(posix_out).mkdir()
    (Path(posix_out) / ".shisuan").symlink_to(outside)
    with pytest.raises(OSError, match="shisuan"):
        posix.publish(stage(tmp_path / "w", a="x"), ("*",), posix_out, TASK, 1)
    assert list(outside.iterdir()) == []


def test_a_link_inside_the_roots_is_followed(posix, tmp_path, root):
    (root / "v2").mkdir()
    (root / "current").symlink_to(root / "v2")
    posix.publish(stage(tmp_path / "w", a="x"), ("*",), str(root / "current"), TASK, 1)
    assert visible(str(root / "v2")) == {"a": "x"}


def test_links_and_special_files_among_the_outputs_are_not_published(posix, tmp_path, posix_out):
    work = tmp_path / "w"
    stage(work, real="r")
    (work / "link").symlink_to("/etc/passwd")
    (work / "folder").symlink_to("/etc")
    os.mkfifo(work / "pipe")
    for name in ("link", "folder/passwd", "pipe"):
        with pytest.raises(OutputMissing):
            posix.publish(str(work), (name,), posix_out, TASK, 1)
    posix.publish(str(work), ("*",), posix_out, TASK, 1)
    assert visible(posix_out) == {"real": "r"}


def test_the_installation_is_closed_to_a_root_above_it(tmp_path):
    home = tmp_path / "home"
    (home / "storage" / "default").mkdir(parents=True)
    (home / "shisuan.db").write_text("x")
    wide = open_storage("", (str(tmp_path),), home=str(home))
    for place in ("shisuan.db", "storage/default"):
        with pytest.raises(OutsideRoots):
            wide.readable(str(home / place))
    own = open_storage("", (str(home / "storage" / "default"),), home=str(home))
    assert own.readable(str(home / "storage" / "default"))


def test_uris(posix, tmp_path, root):
    uri = f"file://{root}/two%20words"
    manifest = posix.publish(stage(tmp_path / "w", a="x"), ("*",), uri, TASK, 1)
    assert (root / "two words" / "a").read_text() == "x"
    assert manifest.uris == (f"{uri}/a",)
    for bad in ("gs://bucket/x", "http://x/y"):
        with pytest.raises(StorageError, match="no storage"):
            open_storage(bad, (str(root),))
    for bad in ("relative/x", "file://other/x"):
        with pytest.raises(StorageError):
            posix.readable(bad)


def test_task_of():
    assert task_of("j17.render.3.a2") == "j17.render.3"


# -- death at every step ---------------------------------------------------------------------------------------------


def publish_in_child(world, out, work, number, at=-1):
    """In a process that dies at step ``at``. Its exit code, and the steps it came to."""
    counter = Value("i", 0)
    child = get_context("fork").Process(target=_publish, args=(world.stepping, out, (work, number), at, counter))
    child.start()
    child.join()
    return child.exitcode, counter.value


def _publish(stepping, out, attempt, at, counter):
    work, number = attempt

    def step(*_args, **_more):
        if counter.value == at:
            os.kill(os.getpid(), signal.SIGKILL)
        counter.value += 1

    storage = stepping(step)
    if storage.claim(out, TASK, number) is None:
        storage.publish(work, ("*",), out, TASK, number)


def test_killed_at_any_step_then_retried_gives_one_complete_set(world, tmp_path):
    works = [stage(tmp_path / f"w{n}", **{f"f{i}": f"attempt {n} file {i} " * 50 for i in range(3)}) for n in (1, 2)]
    texts = [texts_in(work) for work in works]
    code, steps = publish_in_child(world, f"{world.root}/dry", works[0], 1)
    assert code == 0
    assert steps >= world.steps
    survived = set()
    for at in range(steps):
        out = f"{world.root}/out{at}"
        assert publish_in_child(world, out, works[0], 1, at)[0] == -signal.SIGKILL
        assert world.visible(out).items() <= texts[0].items()
        assert publish_in_child(world, out, works[1], 2)[0] == 0
        got = world.visible(out)
        assert got in texts, at
        survived.add(texts.index(got))
        left = {name for name in world.everything(out) if name.startswith(".shisuan/")}
        assert left <= {f".shisuan/{name}" for name in world.kept}
    assert survived == {0, 1}


def _race(root, out, work, number, start):
    start.wait()
    try:
        open_storage(out, (root,)).publish(work, ("*",), out, TASK, number)
    except Fenced:
        return


def test_attempts_that_publish_at_once_leave_one_set(world, tmp_path, out):
    spawn = get_context("spawn")
    start = spawn.Event()
    works = [stage(tmp_path / f"w{n}", **{f"f{i}": f"{n}" * 5_000 for i in range(4)}) for n in range(1, 5)]
    racers = [spawn.Process(target=_race, args=(world.root, out, work, n, start)) for n, work in enumerate(works, 1)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    texts = list(world.visible(out).values())
    assert len(texts) == 4
    assert all(a == b for a, b in pairwise(texts))
