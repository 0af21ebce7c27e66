"""Logs in a tenant's storage, on POSIX and in a bucket: while they grow, after a crash, when storage is in trouble."""

import os
import time
from pathlib import Path

import pytest

from scheduler.model.errors import OutsideRoots, StorageError
from scheduler.model.lease import AttemptState
from tests.unit.workers.helpers import lease, shell, until
from workers import kept_logs, log_keeping
from workers.kept_logs import PIECE_BYTES, open_shelf, read_kept
from workers.log_keeping import Courier


class OnPosix:
    def __init__(self, root):
        root.mkdir()
        self.root = str(root)

    def files(self):
        return {str(p.relative_to(self.root)): p.read_bytes() for p in Path(self.root).rglob("*") if p.is_file()}


class OnObjects:
    def __init__(self, bucket):
        self.bucket, self.root = bucket, f"s3://{bucket.name}/studio"

    def files(self):
        """Pieces of one log put together."""
        found = {}
        for key, text in sorted(self.bucket.texts("studio/").items()):
            log = key.rpartition("/")[0]
            found[log] = found.get(log, b"") + text.encode()
        return found


@pytest.fixture(params=["posix", "s3"])
def place(request, tmp_path):
    return OnPosix(tmp_path / "root") if request.param == "posix" else OnObjects(request.getfixturevalue("bucket"))


@pytest.fixture
def shelf(place):
    return open_shelf(place.root, (place.root,))


KEPT = ".shisuan/logs/j1@5/s/0.a1"


def uri_of(place, name=f"{KEPT}.log"):
    return f"{place.root}/{name}"


def courier(place, source):
    return Courier(source=source, open=lambda: open_shelf(place.root, (place.root,)), uri=uri_of(place))


def whole(shelf, uri, limit=PIECE_BYTES):
    """All of it, as a reader gets it piece by piece."""
    text, offset = "", 0
    while True:
        chunk = read_kept(shelf, uri, offset, limit, is_over=True)
        text, offset = text + chunk.text, chunk.next_offset
        if chunk.end:
            return text


def test_what_grows_is_brought_in_steps_and_read_from_any_offset(place, shelf, tmp_path):
    source, uri = tmp_path / "log", uri_of(place)
    going = courier(place, source)
    going.bring()
    assert shelf.read(uri, 0, 100) is None
    written = b""
    for step in range(6):
        piece = f"{step}".encode() * (PIECE_BYTES // 2 + 7)
        with source.open("ab") as file:
            file.write(piece)
        written += piece
        going.bring()
        assert shelf.read(uri, len(written) - 10, 100) == written[-10:]
        assert shelf.read(uri, len(written), 100) == b""
    assert place.files() == {f"{KEPT}.log": written}
    assert whole(shelf, uri) == written.decode()
    assert shelf.read(uri, PIECE_BYTES - 5, PIECE_BYTES) == written[PIECE_BYTES - 5 : 2 * PIECE_BYTES - 5]


def test_bringing_again_changes_nothing_and_goes_on_after_a_crash(place, shelf, tmp_path):
    source, uri = tmp_path / "log", uri_of(place)
    source.write_bytes(b"a" * (PIECE_BYTES + 3))
    courier(place, source).bring()
    courier(place, source).bring()  # another one, that knows nothing of the first
    with source.open("ab") as file:
        file.write(b"b")
    courier(place, source).bring(is_last=True)
    assert whole(shelf, uri) == "a" * (PIECE_BYTES + 3) + "b"


def test_a_write_that_failed_is_made_up_for(place, shelf, tmp_path, monkeypatch):
    source = tmp_path / "log"
    going = courier(place, source)
    source.write_bytes(b"one\n")
    put = type(shelf).put

    def broken(self, uri, offset, data, **more):
        put(self, uri, offset, data[:2], **more)
        raise OSError("the line went")

    monkeypatch.setattr(type(shelf), "put", broken)
    with pytest.raises(OSError, match="the line went"):
        going.bring()
    monkeypatch.setattr(type(shelf), "put", put)
    with source.open("ab") as file:
        file.write(b"two\n")
    going.bring()
    assert whole(shelf, uri_of(place)) == "one\ntwo\n"


def test_a_character_is_never_cut_in_two(place, shelf, tmp_path):
    source, uri = tmp_path / "log", uri_of(place)
    source.write_bytes("算".encode() * 5 + "算".encode()[:1])
    courier(place, source).bring()
    first = read_kept(shelf, uri, 0, 4, is_over=False)
    assert (first.text, first.next_offset, first.end) == ("算", 3, False)
    last = read_kept(shelf, uri, 15, 100, is_over=False)
    assert (last.text, last.next_offset, last.end) == ("", 15, False), "the rest may come"
    last = read_kept(shelf, uri, 15, 100, is_over=True)
    assert (last.text, last.next_offset, last.end) == ("�", 16, True), "it never will"


def test_removing_one_leaves_the_others_and_no_empty_folder(place, shelf):
    for name in (f"{KEPT}.log", f"{KEPT}.r1.log"):
        shelf.put(uri_of(place, name), 0, b"x")
    folder = uri_of(place, ".shisuan/logs/j1@5")
    first, second = sorted(shelf.below(folder), key=lambda file: file.uri)
    assert (first.size, second.size) == (1, 1)
    for _ in range(2):
        shelf.remove(first.uri)
        assert list(shelf.below(folder)) == [second]
    shelf.remove(second.uri)
    shelf.remove(second.uri)
    assert list(shelf.below(folder)) == []
    assert place.files() == {}
    if isinstance(place, OnPosix):
        assert not (Path(place.root) / ".shisuan" / "logs" / "j1@5").exists()


def test_nothing_outside_the_roots_is_read_or_written(place, shelf):
    for attempt in (lambda: shelf.read("/etc/passwd", 0, 10), lambda: shelf.put("s3://other/x", 0, b"x")):
        with pytest.raises(StorageError):
            attempt()
    with pytest.raises(OutsideRoots):
        shelf.put(f"{place.root}x/{KEPT}.log", 0, b"x")


def test_a_link_or_a_pipe_that_a_tenant_put_there_leads_nowhere(tmp_path):
    root, secret = tmp_path / "root", tmp_path / "secret"
    folder = root / ".shisuan" / "logs" / "j1@5" / "s"
    folder.mkdir(parents=True)
    secret.write_text("not yours")
    (folder / "0.a1.log").symlink_to(secret)
    os.mkfifo(folder / "1.a1.log")
    shelf = open_shelf(str(root), (str(root),))
    for name in ("0", "1"):
        with pytest.raises((OSError, StorageError)):
            shelf.read(f"{folder}/{name}.a1.log", 0, 10)
        with pytest.raises(OSError, match=r"Too many|No such"):
            shelf.put(f"{folder}/{name}.a1.log", 0, b"x")
    (root / "away").symlink_to(tmp_path)
    with pytest.raises(OutsideRoots):
        shelf.read(f"{root}/away/secret", 0, 10)
    assert secret.read_text() == "not yours"


# ── in the agent ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(log_keeping, "EVERY_S", 0.05)


def kept_lease(place, text, **fields):
    order = shell(text, kept_log=uri_of(place, KEPT))
    return lease(order, roots=(place.root,), **fields)


def test_the_log_is_read_while_the_attempt_runs_and_is_whole_when_its_end_is_told(run, place, shelf, soon, tmp_path):
    one, reader = run()
    go = tmp_path / "go"
    one.submit([kept_lease(place, f"echo first; until [ -e {go} ]; do sleep 0.02; done; echo last")])
    until(lambda: shelf.read(uri_of(place), 0, 100) == b"first\n", "the first line in storage")
    go.touch()
    assert reader.finished().state is AttemptState.SUCCEEDED
    assert place.files() == {f"{KEPT}.log": b"first\nlast\n"}


def test_each_rank_has_its_own(run, place, shelf):
    one, reader = run()
    one.submit([kept_lease(place, "echo rank one", rank=1, ranks=2)])
    reader.finished()
    assert place.files() == {f"{KEPT}.r1.log": b"rank one\n"}


def test_what_the_agent_wrote_before_it_was_killed_is_there(run, place, shelf, soon):
    one, _ = run()
    one.submit([kept_lease(place, "echo alive; sleep 600")])
    until(lambda: shelf.read(uri_of(place), 0, 100) == b"alive\n", "the line in storage")
    one.close()
    assert whole(shelf, uri_of(place)) == "alive\n"


def test_a_log_is_cut_at_its_limit_in_storage_too(run, place, shelf):
    one, reader = run()
    one.submit([kept_lease(place, "yes | head -c 3000000", log_mib=1)])
    reader.finished()
    text = whole(shelf, uri_of(place))
    assert text.endswith("y\n\n[shisuan: the log is cut here at 1048576 bytes]\n")
    assert len(text) < (1 << 20) + 100


def test_storage_that_refuses_does_not_change_how_an_attempt_ends_and_is_said_where_it_failed(run, tmp_path):
    one, reader = run()
    root = tmp_path / "root"
    root.mkdir()
    (root / ".shisuan").write_text("a file in the way")
    place = OnPosix.__new__(OnPosix)
    place.root = str(root)
    one.submit([kept_lease(place, "echo x; exit 3")])
    end = reader.finished()
    assert (end.state, end.exit_code) == (AttemptState.FAILED, 3)
    assert end.message.startswith("exit code 3 (its log was not kept: ")
    one.submit([lease(shell("echo fine", index=1, kept_log=uri_of(place, KEPT)), roots=(place.root,), lease_id="l2")])
    assert reader.finished("j1.s.1.a1").state is AttemptState.SUCCEEDED


def test_storage_that_hangs_holds_an_end_up_for_a_bounded_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(log_keeping, "LAST_S", 0.2)
    monkeypatch.setattr(kept_logs.PosixShelf, "put", lambda *_, **__: time.sleep(2))
    place = OnPosix(tmp_path / "root")
    one, reader = run()
    began = time.monotonic()
    one.submit([kept_lease(place, "echo x; exit 3")])
    assert reader.finished().message == ("exit code 3 (its log was not kept: the storage did not answer within 0.2 s)")
    assert time.monotonic() - began < 1.8
