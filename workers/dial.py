"""A cluster's bridge dials home: ``python -P -m workers.dial --dial HOST:PORT --cluster NAME --token-file FILE``.

Runs in the cluster's head pod, without Ray. It holds the line to the service and passes lines on to and from a child,
which is the ordinary bridge (``ray_bridge.py``). Each connection has a bridge of its own, so that a service that comes
back is told everything again by the rules of :mod:`workers.runtime`; agents, and what they run, know nothing of it.
The next bridge imports Ray while its parent still dials.

The highest epoch that was ever obeyed is on disk: a service of a lower one, a leader that was paused and woke up, is
hung up on. With ``--until-over`` it ends with the one lease that the cluster is there for: exit code 0 when all of it
succeeded, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workers.errand import Errand
from workers.messages import Beat, Begin, Connect, Hello, Ready, Recorded, Refused, Told, Welcome, is_a, unpack
from workers.wire import Wire, heard

_log = logging.getLogger(__name__)

DIAL_S = 5.0
"""From the first packet to the service's Welcome; a paused one accepts and says nothing."""
BACKOFF_S = (0.5, 0.5, 1.0, 2.0, 5.0)
"""At most; each pause is drawn, because all clusters lose a service at the same moment."""
STEADY_S = 3.0
"""A line that lasted this long ends the backoff."""
READY_S = 90.0
"""A bridge that is not connected to Ray by then is killed and tried again."""
BRIDGE = (sys.executable, "-P", "-m", "workers.ray_bridge")
LOOK_S = 0.2
EXIT_S = 0.5
LINGER_S = 3.0
"""What no agent keeps is not acknowledged: the line stays this long, so that it arrives."""
GIVE_UP_S = 60.0
"""So long a service is sought that is to hear that pods are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    host: str
    port: int
    cluster: str
    token_file: Path
    """Read at each dial: a secret may be replaced."""
    ca: Path | None = None
    """Certificates of whoever may have signed the service's, read at each dial; without it nothing is encrypted."""
    home: Path
    """Holds ``epoch_seen`` and the bridge's own files; no agent's."""
    ray: str = "auto"
    """Ray's address."""
    ip: str = ""
    """This node's own address in Ray, where several share a machine."""


class EpochOver(Exception):
    """The service's epoch is lower than one that was obeyed."""


@dataclass(slots=True, kw_only=True)
class _Line:
    """One connection."""

    service: Wire
    bridge: _Child
    silent_s: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """The bridge is connected to Ray."""


class Dialler:
    """Dials again and again; with an ``errand`` until that is over. Its pods must be there ``wait_s`` after the bridge
    first saw Ray; 0: whenever. ``bridge`` is the program that holds the Ray driver.
    """

    def __init__(
        self, asked: Asked, errand: Errand | None = None, *, wait_s: float = 0.0, bridge: Sequence[str] = BRIDGE
    ) -> None:
        self._bridge = tuple(bridge)
        self._asked, self._errand, self._wait_s = asked, errand, wait_s
        self._epoch_path = asked.home / "epoch_seen"
        self._spare: _Child | None = None
        self._line: _Line | None = None
        self._dials = 0
        self._saw_ray: float | None = None

    async def run(self) -> int:
        """Serve; returns the exit code when the errand is over, without one never."""
        serving = asyncio.create_task(self._serve())
        try:
            if self._errand is None:
                await serving
                return 1
            return await self._until_over(self._errand, serving)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
            if self._spare is not None:
                self._spare.kill()

    # -- the line ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        failures = 0
        while True:
            connected_at = None
            if self._spare is None:
                self._spare = await _Child.start(self._bridge, self._asked.home)
            try:
                service, welcome = await self._dial()
                connected_at = time.monotonic()
                await self._attend(service, welcome)
            except (EpochOver, OSError, ValueError, TypeError) as error:
                where, why = f"{self._asked.host}:{self._asked.port}", str(error) or "it does not answer"
                _log.warning("no line to the service at %s: %s", where, why)
            steady = connected_at is not None and time.monotonic() - connected_at > STEADY_S
            failures = 0 if steady else min(failures + 1, len(BACKOFF_S) - 1)
            await asyncio.sleep(BACKOFF_S[failures] * random.random())

    async def _dial(self) -> tuple[Wire, Welcome]:
        """Raises EpochOver, OSError for whatever is in the way, ValueError for what is no service of ours."""
        seen = self._epoch_seen()
        token = self._asked.token_file.read_text(encoding="utf-8").strip()
        async with asyncio.timeout(DIAL_S):
            wire = await self._connect()
            try:
                wire.tell(Hello(cluster=self._asked.cluster, token=token, epoch_seen=seen))
                answer = heard(await wire.line())
                match answer:
                    case Welcome(epoch=epoch) if epoch < seen:
                        raise EpochOver(f"its epoch {epoch} is over: epoch {seen} was obeyed here")
                    case Welcome(epoch=epoch):
                        self._keep_epoch(epoch, seen)
                        return wire, answer
                    case Refused(reason=reason):
                        raise ConnectionRefusedError(f"it refuses: {reason}")
                raise ValueError(f"it answers with {type(answer).__name__}")
            except BaseException:
                wire.abort()
                raise

    async def _connect(self) -> Wire:
        """A name may stand for several replicas, of which one leads: each dial takes the next address."""
        host, loop = self._asked.host, asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, self._asked.port, type=socket.SOCK_STREAM)
        ip = str(found[self._dials % len(found)][4][0])
        self._dials += 1
        if self._asked.ca is None:
            return Wire(*await asyncio.open_connection(ip, self._asked.port))
        tls = ssl.create_default_context(cafile=str(self._asked.ca))
        return Wire(*await asyncio.open_connection(ip, self._asked.port, ssl=tls, server_hostname=host))

    async def _attend(self, service: Wire, welcome: Welcome) -> None:
        """Pass lines on until either side is gone. Raises OSError with what ended it, ValueError for a broken line."""
        bridge, self._spare = self._spare, None
        assert bridge is not None
        line = self._line = _Line(service=service, bridge=bridge, silent_s=welcome.silent_ms / 1_000)
        asked = self._asked
        connect = Connect(address=asked.ray, cluster=asked.cluster, embedded=False, ip=asked.ip, nodes=welcome.nodes)
        _log.info("the service of epoch %d has the line", welcome.epoch)
        tasks = [asyncio.create_task(work) for work in (self._up(line), self._down(line), _in_time(line, asked.ray))]
        try:
            bridge.wire.tell(connect)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._line = None
            service.abort()
            bridge.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _down(self, line: _Line) -> None:
        """What the service says. Never waits for the bridge: a stuck one must not hide that the service hung up."""
        while True:
            said = await line.service.line(line.silent_s)
            if is_a(Beat, said) and not line.ready.is_set():
                line.service.tell(Beat())  # from then on the bridge answers, and shows that it is not stuck
                continue
            if self._errand is not None and (is_a(Begin, said) or is_a(Recorded, said)):
                self._errand.hear(unpack(said))
            line.bridge.wire.send(said + b"\n")

    async def _up(self, line: _Line) -> None:
        while True:
            try:
                said = await line.bridge.wire.line()
            except ConnectionError:
                raise ConnectionError(f"the bridge to Ray ended (exit code {line.bridge.exit_code()})") from None
            if is_a(Ready, said):
                self._saw_ray = self._saw_ray or time.monotonic()
                line.ready.set()
            if self._errand is not None and is_a(Told, said):
                self._errand.hear(unpack(said))
            line.service.send(said + b"\n")
            await line.service.flushed()

    # -- the errand ----------------------------------------------------------------------------------------------

    async def _until_over(self, errand: Errand, serving: asyncio.Task[None]) -> int:
        while not errand.over:
            late = self._wait_s and self._saw_ray and time.monotonic() - self._saw_ray > self._wait_s
            if late and (reason := errand.missing(self._wait_s)):
                _log.error(reason)
                await self._report_lost(errand, reason)
                return 1
            done, _ = await asyncio.wait({serving}, timeout=LOOK_S)
            for failed in done:
                failed.result()
        if errand.unkept:
            await asyncio.sleep(LINGER_S)
        _log.info("the lease is over, with exit code %d", errand.exit_code())
        return errand.exit_code()

    async def _report_lost(self, errand: Errand, reason: str) -> None:
        until = time.monotonic() + GIVE_UP_S
        while (line := self._line) is None or not line.ready.is_set():
            if time.monotonic() > until:
                _log.warning("no service heard that the lease is lost")
                return
            await asyncio.sleep(LOOK_S)
        try:
            line.service.tell(Told(reports=errand.losses(reason, time.time_ns() // 1_000_000)))
        except OSError as error:
            _log.warning("no service heard that the lease is lost: %s", error)
            return
        await asyncio.sleep(LINGER_S)

    # -- the epoch -----------------------------------------------------------------------------------------------

    def _epoch_seen(self) -> int:
        """Raises ValueError for a damaged file: what it said is not known, so nobody is obeyed."""
        try:
            text = self._epoch_path.read_text(encoding="ascii")
        except FileNotFoundError:
            return 0
        if not text.isdecimal():
            raise ValueError(
                f"{self._epoch_path} is damaged: write the highest epoch of the service's database into it"
            )
        return int(text)

    def _keep_epoch(self, epoch: int, seen: int) -> None:
        """On disk before anything is obeyed. Raises OSError."""
        if epoch == seen:
            return
        fresh = self._epoch_path.with_suffix(".new")
        with fresh.open("w", encoding="ascii") as file:
            file.write(str(epoch))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._epoch_path)


class _Child:
    """A bridge process and the line to it. It ends when its line does, also when we are killed."""

    def __init__(self, process: subprocess.Popen[bytes], wire: Wire) -> None:
        self._process, self.wire = process, wire

    @classmethod
    async def start(cls, program: Sequence[str], home: Path) -> _Child:
        """It waits for its Connect."""
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        command = [*program, "--home", str(home), "--fd", str(fd)]
        environ = dict(os.environ) | {"SHISUAN_HOME": str(home)}
        with theirs:
            try:
                wire = Wire(*await asyncio.open_unix_connection(sock=ours))
            except BaseException:
                ours.close()
                raise
            process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, cwd=home, env=environ)
        return cls(process, wire)

    def exit_code(self) -> int | None:
        """Of a bridge whose line ended; None for one that lives on without."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_S)
        return self._process.returncode

    def kill(self) -> None:
        """At once; nothing comes from it after this."""
        self.wire.abort()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


async def _in_time(line: _Line, where: str) -> None:
    """Ends only by raising TimeoutError: the bridge does not find Ray."""
    try:
        async with asyncio.timeout(READY_S):
            await line.ready.wait()
    except TimeoutError:
        raise TimeoutError(f"the bridge has no connection to Ray at {where} after {READY_S:.0f} s") from None
    await asyncio.Event().wait()


def parse(argv: Sequence[str]) -> Dialler:
    """What the command line asks for. Exits with a message for what it does not understand."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.dial")
    parser.add_argument("--dial", required=True, metavar="HOST:PORT", help="where the service's gateway listens")
    parser.add_argument("--cluster", required=True, help="name of this cluster's object")
    parser.add_argument("--token-file", required=True, type=Path, help="shows that we stand for it; read at each dial")
    parser.add_argument("--ca", type=Path, help="encrypt, and trust services with a certificate signed by these")
    parser.add_argument("--home", type=Path, default=os.environ.get("SHISUAN_HOME"), help="default: SHISUAN_HOME")
    parser.add_argument("--ray", default=os.environ.get("RAY_ADDRESS") or "auto", help="default: RAY_ADDRESS, or auto")
    parser.add_argument("--ip", default="", help="this node's own address in Ray, where several share a machine")
    parser.add_argument("--until-over", action="store_true", help="end with the one lease this cluster is there for")
    parser.add_argument("--pods", type=int, default=1, help="how many must be there for that lease")
    parser.add_argument("--wait-s", type=float, default=0.0, help="give the lease up when they are not by then")
    parser.add_argument("--lease", default="", help="its id, for a report before an order came")
    parser.add_argument("--attempt", default="", help="its attempt's id, likewise")
    said = parser.parse_args(argv)
    host, _, port = said.dial.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        parser.error(f"--dial: {said.dial!r} is not HOST:PORT")
    if said.home is None:
        parser.error("--home: name a folder, or set SHISUAN_HOME")
    home = Path(said.home).resolve()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    asked = Asked(
        host=host,
        port=int(port),
        cluster=said.cluster,
        token_file=said.token_file,
        ca=said.ca,
        home=home,
        ray=said.ray,
        ip=said.ip,
    )
    errand = Errand(pods=said.pods, lease_id=said.lease, attempt_id=said.attempt) if said.until_over else None
    return Dialler(asked, errand, wait_s=said.wait_s)


async def _until_told(dialler: Dialler) -> int:
    """The first process of a container gets no default action for SIGTERM."""
    work = asyncio.create_task(dialler.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


def main() -> None:
    """Dial until told otherwise."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    sys.exit(asyncio.run(_until_told(parse(sys.argv[1:]))))


if __name__ == "__main__":
    main()
