"""Services for the failover tests: real ones, but for their workers, which are :mod:`tests.kills.yard`.

``python -m tests.kills.replica YARD`` loads everything once and then forks a service for each line of JSON on stdin,
``[log file, argument, …]``, and prints its process id: a start costs no imports. The services are ended by signals.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque

from scheduler import wiring
from scheduler.engine.warm import warm
from scheduler.model import codec
from scheduler.model.errors import ExecutorError
from scheduler.model.order import Report, ReportKind
from scheduler.store import SqlStore
from tests.kills.yard import NODES, reports_of


class Remote:
    """The executor port over a line to the yard. It is silent until it knows its epoch."""

    def __init__(self, path):
        self._path = path
        self._socket = None
        self._mail = deque()
        self._news = threading.Condition()
        self._woken = False
        self._sending = threading.Lock()

    def hello(self, epoch):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self._path)
        self._send({"hello": epoch})
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, orders):
        self._send({"start": [codec.encode(order) for order in orders]})

    def stop(self, lease_ids, reason):
        self._send({"stop": list(lease_ids), "reason": reason})

    def move(self, lanes):
        """The yard has no lanes."""

    def recut(self, cuts):
        """Nor cards."""

    def acknowledge(self, cursors):
        self._send({"acknowledge": list(cursors)})

    def poll(self, timeout_ms):
        with self._news:
            self._news.wait_for(lambda: self._mail or self._woken, timeout_ms / 1_000)
            self._woken = False
            reports = tuple(self._mail)
            self._mail.clear()
            return reports

    def wake(self):
        with self._news:
            self._woken = True
            self._news.notify_all()

    def read_log(self, node, attempt_id, offset, limit, rank=0):
        raise ExecutorError("nothing keeps logs here")

    def close(self):
        if self._socket is not None:
            self._socket.close()

    def _send(self, told):
        try:
            with self._sending:
                self._socket.sendall(json.dumps(told).encode() + b"\n")
        except OSError as error:
            raise ExecutorError(f"the yard does not listen: {error}") from None

    def _read(self):
        try:
            for line in self._socket.makefile("rb"):
                self._tell(reports_of(json.loads(line)))
        except OSError as error:
            self._tell([Report(kind=ReportKind.RUNTIME_DOWN, at_ms=0, message=str(error))])
        else:
            self._tell([Report(kind=ReportKind.RUNTIME_DOWN, at_ms=0, message="the yard hung up")])

    def _tell(self, reports):
        with self._news:
            self._mail += reports
            self._news.notify_all()


def install(path):
    """Make the services of this process use the yard."""
    remote = Remote(path)
    real = SqlStore.acquire_epoch

    def acquire(self, owner):
        epoch = real(self, owner)
        remote.hello(epoch)
        return epoch

    SqlStore.acquire_epoch = acquire
    wiring._executor = lambda settings, nodes: remote
    wiring._nodes = lambda settings: NODES


def run(log, arguments):
    """In the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, descriptor)
    code = wiring.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    install(sys.argv[1])
    for module in (
        "scheduler.api.app",
        "scheduler.web.pages",
        "scheduler.election",
        "scheduler.control.replay",
        "uvicorn",
    ):
        __import__(module)
    warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel clears up
    sys.stdout.write(f"{time.monotonic()}\n")
    sys.stdout.flush()
    while line := os.read(0, 65_536):  # unbuffered: a fork must not inherit half a line
        log, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            run(log, arguments)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
