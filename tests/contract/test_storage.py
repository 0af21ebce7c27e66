"""The storage door: what every store must do. POSIX today; an S3 store joins the ``storage`` fixture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest

from scheduler.model.errors import Fenced, OutputMissing, OutsideRoots, StorageError
from workers.storage import PosixStorage, open_storage, task_of

TASK = "j1.s.0"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def storage(root):
    return PosixStorage((str(root),))


@pytest.fixture
def out(root):
    return str(root / "film")


def stage(folder: Path, **files: str) -> str:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def visible(out: str) -> dict[str, str]:
    """Final files: what a user of the folder sees."""
    found = {str(p.relative_to(out)): p.read_text() for p in Path(out).rglob("*") if p.is_file()}
    return {name: text for name, text in found.items() if not name.startswith(".shisuan")}


def test_published_files_have_their_final_names_and_a_manifest(storage, tmp_path, out):
    staged = stage(tmp_path / "w", a_exr="AA", deep__b_png="B")
    manifest = storage.publish(staged, ("a.exr", "deep/b.png"), out, TASK, 1, result='{"n":1}')
    assert visible(out) == {"a.exr": "AA", "deep/b.png": "B"}
    assert manifest.uris == (f"{out}/a.exr", f"{out}/deep/b.png")
    assert [f.size for f in manifest.files] == [2, 1]
    assert storage.published(out, TASK) == manifest
    assert manifest.result == '{"n":1}'


def test_nothing_is_published_before(storage, out):
    assert storage.published(out, TASK) is None
    assert storage.claim(out, TASK, 1) is None


def test_publishing_again_gives_what_is_there(storage, tmp_path, out):
    first = storage.publish(stage(tmp_path / "w1", a="one"), ("*",), out, TASK, 1)
    assert storage.publish(stage(tmp_path / "w2", a="two"), ("*",), out, TASK, 2) == first
    assert storage.claim(out, TASK, 3) == first
    assert visible(out) == {"a": "one"}


def test_a_fenced_attempt_cannot_publish(storage, tmp_path, out):
    assert storage.claim(out, TASK, 2) is None
    with pytest.raises(Fenced):
        storage.publish(stage(tmp_path / "w", a="old"), ("*",), out, TASK, 1)
    with pytest.raises(Fenced):
        storage.claim(out, TASK, 1)
    storage.publish(stage(tmp_path / "w", a="new"), ("*",), out, TASK, 2)
    assert visible(out) == {"a": "new"}


def test_tasks_of_one_folder_do_not_know_each_other(storage, tmp_path, out):
    storage.publish(stage(tmp_path / "w1", a="1"), ("*",), out, "j1.s.0", 3)
    storage.publish(stage(tmp_path / "w2", b="2"), ("*",), out, "j1.s.1", 1)
    assert visible(out) == {"a": "1", "b": "2"}


def test_outputs_changed_or_taken_away_count_as_unpublished(storage, tmp_path, out):
    storage.publish(stage(tmp_path / "w", a="one"), ("*",), out, TASK, 1)
    (Path(out) / "a").unlink()
    assert storage.published(out, TASK) is None
    storage.publish(stage(tmp_path / "w", a="one"), ("*",), out, TASK, 2)
    assert visible(out) == {"a": "one"}


@pytest.mark.parametrize("wanted", ["b.exr", "frames/*.exr", "a"])
def test_a_missing_output_is_named(storage, tmp_path, out, wanted):
    with pytest.raises(OutputMissing, match=r"left no .*a\.exr"):
        storage.publish(stage(tmp_path / "w", a_exr="x"), (wanted,), out, TASK, 1)
    assert visible(out) == {}


def test_patterns_choose_and_star_takes_all_or_nothing(storage, tmp_path, out):
    staged = stage(tmp_path / "w", f__1_exr="1", f__2_exr="2", notes="n")
    storage.publish(staged, ("f/*.exr",), out, "j1.s.0", 1)
    assert sorted(visible(out)) == ["f/1.exr", "f/2.exr"]
    (tmp_path / "empty").mkdir()
    assert storage.publish(str(tmp_path / "empty"), ("*",), out, "j1.s.1", 1).files == ()


@pytest.mark.parametrize("where", ["../other", "/etc", "film/../../x", "film\0x"])
def test_a_folder_outside_the_roots_is_refused(storage, tmp_path, root, where):
    with pytest.raises((OutsideRoots, StorageError)):
        storage.publish(stage(tmp_path / "w", a="x"), ("*",), os.path.join(root, where), TASK, 1)  # noqa: PTH118


def test_a_link_that_leaves_the_roots_is_refused_at_every_place(storage, tmp_path, root, out):
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (outside / "secret").write_text("s")
    staged = stage(tmp_path / "w", a="x")
    for folder in ("link", "link/deeper"):
        with pytest.raises(OutsideRoots):
            storage.publish(staged, ("*",), str(root / folder), TASK, 1)
    with pytest.raises(OutsideRoots, match="it leads to"):
        storage.readable(str(root / "file"))
    Path(out).mkdir()
    (Path(out) / "sub").symlink_to(outside)
    with pytest.raises(OSError, match="sub"):
        storage.publish(stage(tmp_path / "w2", sub__x="x"), ("*",), out, TASK, 1)
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]


def test_a_hidden_folder_that_is_a_link_is_refused(storage, tmp_path, out):
    outside = tmp_path / "outside"
    outside.mkdir()
    Path(out).mkdir()
    (Path(out) / ".shisuan").symlink_to(outside)
    with pytest.raises(OSError, match="shisuan"):
        storage.publish(stage(tmp_path / "w", a="x"), ("*",), out, TASK, 1)
    assert list(outside.iterdir()) == []


def test_a_link_inside_the_roots_is_followed(storage, tmp_path, root):
    (root / "v2").mkdir()
    (root / "current").symlink_to(root / "v2")
    storage.publish(stage(tmp_path / "w", a="x"), ("*",), str(root / "current"), TASK, 1)
    assert visible(str(root / "v2")) == {"a": "x"}


def test_links_and_special_files_among_the_outputs_are_not_published(storage, tmp_path, out):
    work = tmp_path / "w"
    stage(work, real="r")
    (work / "link").symlink_to("/etc/passwd")
    (work / "folder").symlink_to("/etc")
    os.mkfifo(work / "pipe")
    for name in ("link", "folder/passwd", "pipe"):
        with pytest.raises(OutputMissing):
            storage.publish(str(work), (name,), out, TASK, 1)
    storage.publish(str(work), ("*",), out, TASK, 1)
    assert visible(out) == {"real": "r"}


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


def test_uris(storage, tmp_path, root):
    uri = f"file://{root}/two%20words"
    manifest = storage.publish(stage(tmp_path / "w", a="x"), ("*",), uri, TASK, 1)
    assert (root / "two words" / "a").read_text() == "x"
    assert manifest.uris == (f"{uri}/a",)
    for bad in ("s3://bucket/x", "http://x/y"):
        with pytest.raises(StorageError, match="no storage"):
            open_storage(bad, (str(root),))
    for bad in ("relative/x", "file://other/x"):
        with pytest.raises(StorageError):
            storage.readable(bad)


def test_task_of():
    assert task_of("j17.render.3.a2") == "j17.render.3"


# -- death at every step ---------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from workers.storage import PosixStorage
root, out, work, number, at = sys.argv[1:6]
seen = 0
def hook(step):
    global seen
    if str(seen) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    seen += 1
storage = PosixStorage((root,), hook)
earlier = storage.claim(out, "j1.s.0", int(number))
if earlier is None:
    storage.publish(work, ("*",), out, "j1.s.0", int(number))
print(seen)
"""


def publish_in_child(root, out, work, number, at):
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(root), out, work, str(number), str(at)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_at_any_step_then_retried_gives_one_complete_set(tmp_path, root):
    works = [stage(tmp_path / f"w{n}", **{f"f{i}": f"attempt {n} file {i} " * 50 for i in range(3)}) for n in (1, 2)]
    steps = int(publish_in_child(root, str(root / "dry"), works[0], 1, -1).stdout)
    assert steps >= 9
    survived = set()
    for at in range(steps):
        out = str(root / f"out{at}")
        assert publish_in_child(root, out, works[0], 1, at).returncode == -signal.SIGKILL
        torn = visible(out)
        assert all(torn[name] == (Path(works[0]) / name).read_text() for name in torn)
        second = publish_in_child(root, out, works[1], 2, -1)
        assert second.returncode == 0, second.stderr
        got = visible(out)
        match = [n for n in (1, 2) if got == visible(works[n - 1])]
        assert len(match) == 1, (at, sorted(got))
        survived.add(match[0])
        left = {p.name for p in (Path(out) / ".shisuan").iterdir()}
        assert left <= {"j1.s.0.json", "j1.s.0.lock", "j1.s.0.json.new"}
    assert survived == {1, 2}


def _race(root, out, work, number, start):
    start.wait()
    try:
        PosixStorage((root,)).publish(work, ("*",), out, TASK, number)
    except Fenced:
        return


def test_attempts_that_publish_at_once_leave_one_set(tmp_path, root, out):
    spawn = get_context("spawn")
    start = spawn.Event()
    works = [stage(tmp_path / f"w{n}", **{f"f{i}": f"{n}" * 5_000 for i in range(4)}) for n in range(1, 5)]
    racers = [spawn.Process(target=_race, args=(str(root), out, work, n, start)) for n, work in enumerate(works, 1)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    texts = list(visible(out).values())
    assert len(texts) == 4
    assert all(a == b for a, b in pairwise(texts))
