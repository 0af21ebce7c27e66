"""Processes as /proc tells of them, while they come and go."""

import os
import subprocess

from workers import procfs


def test_a_thread_that_ends_meanwhile_hides_no_child(monkeypatch):
    child = subprocess.Popen(["sleep", "60"])
    real = os.listdir
    try:
        monkeypatch.setattr(os, "listdir", lambda path: ["0", *real(path)])
        assert child.pid in procfs.children(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert child.pid not in procfs.children(os.getpid())
    assert procfs.children(child.pid) == ()
