"""A service over HTTP with a park that looks alive: simulated cards, jobs in every state, time that has passed."""

import threading
import time

import uvicorn

from scheduler import wiring
from scheduler.control.settings import Home, Settings
from scheduler.model.lease import AttemptState, parse_attempt_id
from scheduler.model.node import Device, Node
from scheduler.model.order import Report, ReportKind
from scheduler.store import open_store
from tests.unit.control.world import Workers

CARDS = tuple(
    Device(id=f"SIM-{i}", model="H100-SXM-80GB", index=i, memory_mib=81_559, simulated=True, island="a")
    for i in range(8)
)
NODES = (
    Node(name="studio-pc", cpu_milli=8_000, memory_mib=32_768),
    Node(name="gpu-01", cpu_milli=32_000, memory_mib=524_288, devices=CARDS),
)

FILM = """apiVersion: shisuan/v1
kind: Pipeline
name: film
steps:
  - name: scene
    kind: CommandJob
    run: "true"
  - name: render
    kind: CommandJob
    run: "true"
    array: 24
    resources: {cpus: 4}
    needs: [scene]
  - name: encode
    kind: CommandJob
    run: "true"
    needs: [render]
"""
TRAIN = """apiVersion: shisuan/v1
kind: CommandJob
name: 训练-lora
run: "true"
array: 3
resources: {cpus: 8, accelerators: "H100-SXM-80GB:2"}
"""
BIG = """apiVersion: shisuan/v1
kind: CommandJob
name: '<b onclick=alert(1)>dump'
run: "true"
resources: {cpus: 4, accelerators: "H100-SXM-80GB:4"}
"""


class Clock:
    """The wall clock, shifted by the scene that is played."""

    def __init__(self):
        self.shift = -400_000

    def now_ms(self):
        return time.time_ns() // 1_000_000 + self.shift


class Park:
    """The service, on a free port of this machine."""

    def __init__(self, folder, monkeypatch):
        self.clock = Clock()
        monkeypatch.setattr(wiring, "SystemClock", lambda: self.clock)
        self.home = Home.of(str(folder / "home"))
        self.home.prepare()
        settings = Settings(home=str(self.home.path), roots=(str(folder),))
        self.store = open_store(wiring.database_url(settings))
        self.workers = Workers(self.clock, NODES)
        self.app, self.cycle, self.thread = wiring.build(settings, self.store, self.workers)
        self.key = self.home.key.read_text().strip()
        self.workers.connect()
        self.settle()
        self._serve()

    def _serve(self):
        config = uvicorn.Config(self.app, port=0, log_level="warning", lifespan="off")
        self.server = uvicorn.Server(config)
        self.http = threading.Thread(target=self.server.run, daemon=True)
        self.http.start()
        while not self.server.started:
            assert self.http.is_alive()
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def settle(self):
        for _ in range(4):
            self.cycle.call(lambda engine, now_ms: ((), None))

    def submit(self, caller, text):
        return self.doors.service.submit(caller, file=text, base_dir="/")["id"]

    @property
    def doors(self):
        return self.app.state.doors

    def play(self):
        """A film that has rendered half of its frames, one of them in a second try; training; a job that waits."""
        caller = self.doors.operations.authenticate(self.key)
        film = self.submit(caller, FILM)
        self.settle()
        for turn in range(4):
            self._film(self._new(), is_last=turn == 3)
        others = [self.submit(caller, text) for text in (TRAIN, FILM, BIG, BIG)]
        self.doors.service.cancel(caller, others[1])
        self.settle()
        for attempt in self._new():
            self.workers.begin(attempt)
            self.workers.say(Report(kind=ReportKind.PROGRESS, attempt_id=attempt, progress_milli=420))
        self.settle()
        return [film, *others]

    def _new(self):
        return [a for a in self.workers.ran if a not in self.workers.over]

    def _film(self, attempts, *, is_last):
        """One round: all begin, then all end (in the last round they stand half way)."""
        now_ms = self.clock.now_ms()
        self.clock.shift += 20_000
        for attempt in attempts:
            _, step, index, number = parse_attempt_id(attempt)
            began_ms = now_ms + 900 + 400 * (index % 3)
            bad = step == "render" and index == 5 and number == 1
            self.workers.over.add(attempt)
            self.workers.say(Report(kind=ReportKind.STARTED, attempt_id=attempt, at_ms=began_ms))
            if is_last:
                self.workers.say(
                    Report(kind=ReportKind.PROGRESS, attempt_id=attempt, progress_milli=500, message="sample 32/64")
                )
                continue
            self.workers.finish(
                attempt,
                AttemptState.FAILED if bad else AttemptState.SUCCEEDED,
                at_ms=began_ms + (3_000 if bad else 11_000 + 1_700 * (index % 4)),
                message="Blender crashed: out of memory" if bad else "",
                outputs=() if bad else (f"file:///park/film/{step}/{index:04d}.png",),
                exit_code=1 if bad else 0,
            )
        self.settle()

    def close(self):
        self.server.should_exit = True
        self.http.join(10)
        self.cycle.stop()
        self.thread.join(10)
        self.store.close()
