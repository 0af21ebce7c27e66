"""The one file that names concrete adapters: it builds the service and runs it.

``python -P -m scheduler.wiring --home DIR`` serves until SIGTERM, which lets go of everything that runs: the next
service of the same home finds it again. ``--stop`` ends the service and the runtime it started, tasks included.
``--verify`` replays the journal and compares it with the tables. ``--migrate`` only updates the database's schema.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from scheduler.api.listener import listen, url_of
from scheduler.control import arguments, instance
from scheduler.control.clock import SystemClock
from scheduler.control.collector import spare_collector
from scheduler.control.logs import write_to
from scheduler.control.settings import Home, Limits, Settings
from scheduler.control.tokens import Tokens
from scheduler.model import catalogue
from scheduler.model.errors import InvalidInput, Problem, ShisuanError, StaleEpoch, StoreError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from scheduler.control.attempt_logs import AttemptLogs
    from scheduler.control.cycle import Cycle, Runtime
    from scheduler.control.housekeeping import Housekeeping
    from scheduler.control.keeper import Keeper
    from scheduler.control.log_rule import LogRule
    from scheduler.control.ports import Clock
    from scheduler.election import Candidate
    from scheduler.model.node import Node
    from scheduler.store import SqlStore

EXIT_REFUSED = 2
EXIT_CRASHED = 70
"""The cycle failed: nothing is known to be wrong with what was recorded, so the next start goes on from there."""
EXIT_STORE = 74
"""The database refused (EX_IOERR)."""
EXIT_STALE = 75
"""Another service writes this database now (EX_TEMPFAIL)."""
VERIFY_TRIES = 10
VERIFIED = "the journal gives exactly the live state and the ledger, and every device-millisecond is accounted for"

log = structlog.get_logger("shisuan.wiring")


def database_url(settings: Settings) -> str:
    """The database of these settings: an explicit one, ``SHISUAN_DATABASE_URL``, or SQLite in the home."""
    if settings.database_url:
        return settings.database_url
    return os.environ.get("SHISUAN_DATABASE_URL") or f"sqlite:///{Home.of(settings.home).path / 'shisuan.db'}"


def build(
    settings: Settings,
    store: SqlStore,
    executor: Runtime,
    clock: Clock | None = None,
    *,
    declared: Collection[str] | None = None,
    lead: Callable[[int], object] | None = None,
) -> tuple[FastAPI, Cycle, threading.Thread]:
    """The application over this store and executor, with its cycle running; ``lead`` is told the epoch.

    Raises InvalidInput for a wrong config.
    """
    from scheduler.api import app as api
    from scheduler.api.doors import Doors
    from scheduler.control import bootstrap
    from scheduler.control.cycle import Cycle
    from scheduler.control.defrag import Defragmentation
    from scheduler.control.dispatch import Dispatch
    from scheduler.control.keeper import Keeper
    from scheduler.control.log_rule import LogRule
    from scheduler.control.maintenance import Maintenance
    from scheduler.control.money import Money
    from scheduler.control.operations import Operations
    from scheduler.control.pricing import Pricing
    from scheduler.control.reservations import Reservations
    from scheduler.control.service import Service
    from scheduler.engine import Engine
    from scheduler.feed.start import open_feed
    from scheduler.oidc.start import open_oidc
    from scheduler.web import pages

    home, limits, clock = Home.of(settings.home), Limits(), clock or SystemClock()
    spare_collector()
    config = bootstrap.read_config(settings.config)
    feed, delivery = open_feed(config.feed, Path(settings.config).absolute().parent, home, store, clock)
    tokens = Tokens(store.token_secret())
    people = open_oidc(config.oidc, Path(settings.config).absolute().parent, tokens)
    rule = LogRule.of(config.logs, in_storage=settings.kubernetes)
    epoch = store.acquire_epoch(f"{socket.gethostname()}:{os.getpid()}")
    keeper = Keeper(store, epoch)
    cycle = Cycle(
        engine=Engine.from_snapshot(store.load(), features=catalogue.FEATURES),
        epoch=epoch,
        store=store,
        executor=executor,
        clock=clock,
        dispatch=Dispatch(tokens, token_ms=limits.token_ms, logs=rule),
        policy=config.scheduling.policy(),
        limits=limits,
        declared=declared,
        after_commit=[keeper.wake, *([delivery.wake] if delivery else [])],
    )
    keeper.listener = lambda book: cycle.set_unfunded(book.unfunded(cycle.now_ms()))
    keeper.catch_up()  # before anything starts: who had used up his budget still has
    gc.freeze()
    if lead is not None:
        lead(epoch)
    (thread := threading.Thread(target=_run_cycle, args=(cycle, keeper), name="cycle", daemon=True)).start()
    feed_view = delivery and delivery.view
    operations = Operations(cycle, store, home, version=version(), feed=feed_view, issuer=people.issuer)
    money = Money(cycle, keeper, store)
    try:
        bootstrap.apply(settings, config, cycle, operations, store, home, money)
    except ShisuanError:
        cycle.stop()
        thread.join(instance.STOP_LIMIT_S)
        raise
    logs, housekeeping = _logs(settings, rule, cycle, store, executor)
    for name, work in (("keeper", keeper), ("housekeeping", housekeeping), *([("feed", delivery)] if delivery else [])):
        threading.Thread(target=work.run, name=name, daemon=True).start()
    doors = Doors(
        service=Service(cycle, store, logs),
        operations=operations,
        maintenance=Maintenance(cycle),
        housekeeping=housekeeping,
        money=money,
        pricing=Pricing(cycle, keeper, store),
        cycle=cycle,
        tokens=tokens,
        feed=feed,
        reservations=Reservations(cycle),
        defragmentation=Defragmentation(cycle),
    )
    page = pages.router(doors, people)
    return api.build(doors, version=version(), body_bytes=limits.body_bytes, more=[page]), cycle, thread


def _logs(
    settings: Settings, rule: LogRule, cycle: Cycle, store: SqlStore, executor: Runtime
) -> tuple[AttemptLogs, Housekeeping]:
    """Who reads attempts' logs and who deletes the old ones: pods take theirs along, nodes keep them in the home."""
    from scheduler.control.attempt_logs import AttemptLogs
    from scheduler.control.housekeeping import Housekeeping
    from workers.log_files import NodeLogs, StoredLogs

    stored = StoredLogs(settings.home) if settings.kubernetes else None
    reader = AttemptLogs(cycle, store, executor, rule, stored)
    return reader, Housekeeping(cycle, rule, stored or NodeLogs(settings.home))


def _run_cycle(cycle: Cycle, keeper: Keeper) -> None:
    """Crash-only: whatever ends the cycle other than :meth:`Cycle.stop` ends the process."""
    try:
        cycle.run()
        keeper.stop()
    except StaleEpoch:
        _die("another service writes this database now", EXIT_STALE)
    except StoreError:
        _die("the database refused; what was not recorded never happened", EXIT_STORE)
    except BaseException:
        _die("the scheduling cycle failed", EXIT_CRASHED)
        raise


def _die(text: str, code: int, error: BaseException | None = None) -> NoReturn:
    error = error or sys.exc_info()[1]
    log.critical("exit", reason=text, code=code, exc_info=error)
    sys.stderr.write(f"error: {text}{f': {error}' if error else ''}\n")
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def version() -> str:
    """The distribution's version."""
    from importlib.metadata import version as of

    return of("shisuan")


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """A service that holds the epoch and runs."""

    app: FastAPI
    cycle: Cycle
    thread: threading.Thread
    executor: Runtime
    store: SqlStore

    def still_ms(self) -> int:
        """See :meth:`scheduler.control.cycle.Cycle.still_ms`."""
        return self.cycle.still_ms()

    def check(self) -> None:
        """Ask the database whether this service is still the writer. Raises StaleEpoch, StoreError."""
        if self.store.epoch() != self.cycle.epoch:
            raise StaleEpoch(f"another process took the epoch after {self.cycle.epoch}")

    def end(self) -> None:
        """Let go of everything; what runs keeps running."""
        self.cycle.stop()
        self.thread.join(10)
        self.executor.close()
        self.store.close()


def begin(settings: Settings) -> Service:
    """Take the epoch, load, run. Raises ShisuanError when it cannot."""
    from scheduler.store import open_store

    store = open_store(database_url(settings))
    if settings.kubernetes:
        from scheduler.lanes import Lanes

        lanes = Lanes.of(settings, store)
        return Service(*build(settings, store, lanes.executor, lead=lanes.lead), lanes.executor, store)
    nodes = _nodes(settings)
    executor = _executor(settings, nodes)
    # An embedded Ray has exactly these nodes; those of an earlier start are not waited for.
    declared = None if settings.ray_address else {node.name for node in nodes}
    return Service(*build(settings, store, executor, declared=declared), executor, store)


def serve(settings: Settings) -> int:
    """Run the service of this home until SIGTERM. Raises ShisuanError when it cannot start."""
    from scheduler.control import bootstrap

    if settings.elect:
        bootstrap.require_shared(bootstrap.read_config(settings.config), database_url(settings))
    home = Home.of(settings.home)
    home.prepare()
    lock = instance.only_one(home)
    home.instance.unlink(missing_ok=True)  # of a service that was killed
    write_to(home.log)
    listener = listen(settings.host, settings.port)
    signal.signal(signal.SIGTERM, _end)
    life = _candidate(settings) if settings.elect else begin(settings)
    instance.announce(settings, url_of(listener), SystemClock().now_ms())
    log.info("serving", url=url_of(listener), pid=os.getpid())
    try:
        _uvicorn(life.app, listener)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        log.info("stopping")
        life.end()
        home.instance.unlink(missing_ok=True)
        os.close(lock)
    return 0


def _candidate(settings: Settings) -> Candidate:
    """One of several services."""
    from scheduler.election import Candidate
    from scheduler.engine.warm import warm
    from scheduler.lanes import ports

    def prepare() -> None:
        for module in ("scheduler.store", "scheduler.api.app", "scheduler.web.pages", "workers.runtime"):
            importlib.import_module(module)
        warm()

    def die(text: str, error: ShisuanError | None) -> None:
        _die(text, EXIT_STALE if error is None or isinstance(error, StaleEpoch) else EXIT_STORE, error)

    made = Candidate(settings, warm=prepare, begin=lambda: begin(settings), die=die, ports=ports(settings))
    made.start()
    return made


def _end(*_: object) -> NoReturn:
    """SIGTERM: uvicorn catches it while it serves, ends its requests and raises it again afterwards."""
    raise SystemExit(0)


def _executor(settings: Settings, nodes: tuple[Node, ...]) -> Runtime:
    from workers.runtime import RayExecutor

    return RayExecutor(settings.home, address=settings.ray_address, nodes=nodes)


def _nodes(settings: Settings) -> tuple[Node, ...]:
    """The nodes this service declares: the file's, or this machine with its real and simulated cards.

    Raises InvalidInput.
    """
    from scheduler.control.inventory import read_nodes, simulated_cards
    from workers.runtime import this_machine

    if settings.ray_address and not settings.nodes_file:
        return ()
    machine = this_machine(Path(settings.home), settings.cpu_milli)
    if settings.nodes_file:
        return read_nodes(settings.nodes_file, machine)
    cards = simulated_cards(settings.cards, machine.name, "--cards") if settings.cards else ()
    return (dataclasses.replace(machine, devices=(*machine.devices, *cards)),)


def _uvicorn(app: FastAPI, listener: socket.socket) -> None:
    import uvicorn

    quiet: dict[str, Any] = {"access_log": False, "log_config": None, "server_header": False}
    config = uvicorn.Config(app, loop="asyncio", lifespan="off", timeout_graceful_shutdown=2, **quiet)
    uvicorn.Server(config).run(sockets=[listener])


# ── stopping and verifying ───────────────────────────────────────────────────────────────────────────────────────


def stop(home: str) -> bool:
    """End the service of this home and the runtime it started, tasks included (they run again after the next start).

    Returns whether anything ran. Raises ExecutorError or Conflict when something does not end.
    """
    where = Home.of(home)
    if not where.path.is_dir():
        return False
    found = instance.end_service(where)
    from workers.runtime import shutdown

    return shutdown(str(where.path)) or found


def verify(settings: Settings) -> int:
    """Check the journal's hash chain, then replay it against the tables; prints the first difference.

    A running service is not disturbed. Raises StoreError for a damaged chain, InvalidInput for an empty home.
    """
    from scheduler.control.replay import first_difference
    from scheduler.store import open_store

    url = database_url(settings)
    own = Home.of(settings.home).path / "shisuan.db"
    if url == f"sqlite:///{own}" and not own.exists():
        raise InvalidInput([Problem("--home", f"{settings.home} holds no database, so there is nothing to verify")])
    store = open_store(url)
    try:
        store.verify()
        for _ in range(VERIFY_TRIES):
            before = store.journal_tail(1)
            difference = first_difference(store)
            if not difference or store.journal_tail(1) == before:
                break  # else a service wrote in between: look again
    finally:
        store.close()
    sys.stdout.write(f"{difference or VERIFIED}\n")
    return 1 if difference else 0


# ── command line ─────────────────────────────────────────────────────────────────────────────────────────────────


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and serve, stop or verify. A user's mistake is one line on stderr."""
    asked = arguments.parser().parse_args(argv)
    try:
        settings = arguments.settings(asked)
        if asked.stop:
            stop(settings.home)
            return 0
        if asked.migrate:
            from scheduler.store import migrate

            sys.stdout.write(f"the database is at revision {migrate(database_url(settings))}\n")
            return 0
        return verify(settings) if asked.verify else serve(settings)
    except ShisuanError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
