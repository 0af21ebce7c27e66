"""A way between two programs that a test can cut: a proxy for streams on loopback or on a unix socket."""

import socket
import threading
from contextlib import suppress


class Link:
    """Passes on what comes in at ``entry`` to ``target``: addresses as sockets take them, paths or (host, port)."""

    def __init__(self, entry, target):
        self._target = target
        self._lock = threading.Lock()
        self._pairs = []
        self._mode = ""
        self._open = threading.Event()
        self._open.set()
        self._listener = _socket(entry)
        self._listener.bind(entry)
        self._listener.listen(64)
        self.entry = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, swallow):
        """Nothing passes any more. ``swallow``: and nobody is told, as when a cable is pulled; else connections end."""
        self._mode = "swallow" if swallow else "refuse"
        self._open.clear()
        if not swallow:
            self._end_all()

    def heal(self):
        """Connections of the time before are gone; new ones pass."""
        self._end_all()
        self._mode = ""
        self._open.set()

    def close(self):
        self._listener.close()
        self.heal()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._mode == "refuse":
                connection.close()
                continue
            threading.Thread(target=self._join, args=(connection,), daemon=True).start()

    def _join(self, connection):
        with self._lock:
            self._pairs.append(connection)
        self._open.wait()
        try:
            other = _socket(self._target)
            other.connect(self._target)
        except OSError:
            connection.close()
            return
        with self._lock:
            self._pairs.append(other)
        for source, sink in ((connection, other), (other, connection)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        with suppress(OSError):  # the other half ended, or was cut
            while data := source.recv(65_536):
                if self._mode == "swallow":
                    self._open.wait()
                    break
                sink.sendall(data)
        for end in (source, sink):
            _shut(end)

    def _end_all(self):
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for end in pairs:
            _shut(end)


def _socket(address):
    return socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)


def _shut(end):
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
