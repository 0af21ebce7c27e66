"""The write-ahead log reaches the database file though no commit copies it, and closing ends the thread that does."""

import sqlite3
import threading

import pytest

from scheduler.store import checkpoint, open_store


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(checkpoint, "REST_S", 0.001)


def without_log(path):
    """The epoch as the file has it, its log unread."""
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as connection:
        (epoch,) = connection.execute("SELECT epoch FROM meta").fetchone()
    connection.close()
    return epoch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "checkpoints"]


def test_what_was_committed_reaches_the_file(tmp_path, eager):
    store = open_store(f"sqlite:///{tmp_path / 'shisuan.db'}")
    epoch = store.acquire_epoch("test")
    while True:  # the suite's time limit ends it
        try:
            if without_log(tmp_path / "shisuan.db") == epoch:
                break
        except sqlite3.Error:
            pass  # the file without its log may be half-way
    store.close()


def test_closing_ends_the_thread(tmp_path):
    before = threads()
    store = open_store(f"sqlite:///{tmp_path / 'shisuan.db'}")
    store.acquire_epoch("test")
    assert len(threads()) == len(before) + 1
    store.close()
    store.close()
    assert threads() == before
