"""Promised films in a plan: each of their tracks is kept until as many tasks have run as it is needed for.

A copy of a track is room for one task on a node. While a task runs there, the room is expected to be held until the end
of the track; when nothing does, the next task starts there before anybody is served. What the film gets beside its
tracks, like every other job, makes it end sooner: tracks that are not needed any more are given back. Tracks whose
nodes are lost, closed or overstayed are sought anew, for this plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from scheduler.engine.candidates import Candidate, candidate_of
from scheduler.engine.chunk import chunk_size
from scheduler.engine.guard import Promise
from scheduler.engine.kept import Key
from scheduler.engine.lay import Laying, promised, rated_ms
from scheduler.engine.slots import on_model
from scheduler.engine.trial import Trial
from scheduler.model.job import JobRecord, Step, StepRecord, Track
from scheduler.model.lease import LeaseRecord, number_of
from scheduler.model.plan import Reason, ReasonKind
from scheduler.placement.fit import capacity
from scheduler.placement.view import NodeView
from scheduler.queueing.film import TURN_MS, careful_task_ms, length_ms, room
from scheduler.queueing.quota import ancestors
from scheduler.queueing.rate import FULL_PERMILLE


@dataclass(eq=False, slots=True)
class Copy:
    """A place in which tasks run one after the other."""

    track: Track
    free_ms: int
    """When the next one is expected to begin, as likely as not."""
    lease: str = ""
    """What runs there."""
    room: int = 0
    """Tasks that still have time behind it."""
    is_taken: bool = False
    """It should have begun, and something else overstays there."""
    promise: Promise | None = None


@dataclass(eq=False, slots=True)
class Film:
    """One step of a promised film, and how this plan keeps its tracks."""

    trial: Trial
    candidate: Candidate
    is_open: bool
    """Its tasks may start: it waits for no other step."""
    task_ms: int
    limit_ms: int
    """When the step must be over."""
    copies: list[Copy] = field(default_factory=list)
    short: int = 0
    """Tasks that have no place on its tracks."""

    def turns(self) -> Iterator[Copy]:
        """Copies that are free now: the next task starts there."""
        for copy in self.copies if self.is_open else ():
            if self.candidate.left <= 0:
                return
            if not copy.lease and copy.track.start_ms <= self.trial.now_ms and copy.room > 0:
                yield copy

    def at(self, copy: Copy) -> Candidate:
        """The candidate as it starts there."""
        candidate, model = self.candidate, copy.track.model
        chunk = chunk_size(candidate.step, candidate.record, self.trial.policy, max(len(self.copies), 1))
        return replace(
            candidate,
            demand=on_model(candidate.demand, model),
            place=(model, 1),
            slot_nodes=(copy.track.node,),
            until_ms=copy.track.end_ms,
            chunk=min(chunk, copy.room),
        )

    def began(self, copy: Copy, there: Candidate) -> None:
        """A lease of it started there."""
        self.candidate.left, self.candidate.parallel_left = there.left, there.parallel_left
        if copy.promise is not None:
            kept = self.trial.slots.films[self.candidate.key]
            kept[:] = [promise for promise in kept if promise is not copy.promise]
            self.trial.guard.drop(copy.promise)

    def make_up(self) -> None:
        """Other places for tasks that have lost theirs, if there are any in time."""
        trial, step = self.trial, self.candidate.step
        if not self.short or trial.now_ms + length_ms(1, self.task_ms) > self.limit_ms:
            return
        most = max(step.max_parallel - len(self.copies), 0) if step.max_parallel else self.short
        laying = Laying(trial, self.candidate, self.task_ms, trial.now_ms, self.limit_ms, self.short, most)
        laying.run()
        for track, promises in laying.found:
            for promise in promises:
                self.copies.append(Copy(track, promise.start_ms, room=track.tasks, promise=promise))
                trial.slots.films.setdefault(self.candidate.key, []).append(promise)
        self.short = max(laying.left, 0)

    def rest(self) -> None:
        """What the step may have beside its tracks: no place that a track needs under the step's own limit, and none
        where a task could end too late as long as the tracks have time for all.
        """
        candidate, trial = self.candidate, self.trial
        waiting = sum(not copy.lease for copy in self.copies)
        if candidate.step.max_parallel:
            candidate.parallel_left = max(candidate.parallel_left - waiting, 0)
        slowest = min((rate for _, rate in candidate.step.speeds), default=FULL_PERMILLE)
        longest_ms = candidate.careful_ms * max(candidate.step.chunk, 1) * FULL_PERMILLE // max(slowest, 1)
        late = trial.now_ms + longest_ms > self.limit_ms
        if late and not self.short and self.copies and self.is_open:
            message = "its last tasks run where room is kept for them, which keeps its deadline"
            candidate.blocked = Reason(kind=ReasonKind.RESERVATION, resource=candidate.job.id, message=message)

    def keep(self, needed: int, beside: int) -> None:
        """Keep as many copies as are needed for so many tasks, the earliest first.

        And, of those that there are, for tasks that run ``beside`` the tracks, which may fail: for them no other places
        are sought as long as they run.

        Where they have too little time, a task starts on a free one although it may end too late there: more likely
        than not it does not, and elsewhere it hardly can.
        """
        kept: list[Copy] = []
        needed += beside
        for copy in (copy for copy in self.copies if copy.room and not copy.is_taken):
            if needed > 0:
                needed -= copy.room
                kept.append(copy)
        likely_ms = self.trial.now_ms + self.candidate.likely_ms
        for copy in (copy for copy in self.copies if not (copy.room or copy.lease or copy.is_taken)):
            if needed > 0 and copy.track.start_ms <= self.trial.now_ms and likely_ms <= self.limit_ms:
                needed, copy.room = needed - 1, 1
                kept.append(copy)
        for copy in kept:
            self._keep(copy)
        self.copies, self.short = kept, max(needed - beside, 0)

    def _keep(self, copy: Copy) -> None:
        if copy.lease:
            self.trial.expected.keep(copy.lease, copy.track.end_ms)
            return
        copy.promise = promised(self.candidate, copy.track, copy.free_ms)
        self.trial.slots.films.setdefault(self.candidate.key, []).append(copy.promise)
        self.trial.guard.add(copy.promise)


def films(trial: Trial, candidates: Mapping[Key, Candidate]) -> list[Film]:
    """Keep the tracks of all promised films. ``candidates``: steps of theirs that may start tasks now."""
    found = list[tuple[int, int, int, Film]]()
    for record in trial.state.active.values():
        job = record.job
        if not job.tracks or record.held or record.cancelled or record.failing or job.tenant in trial.policy.unfunded:
            continue
        for position, (step, done) in enumerate(zip(job.steps, record.steps, strict=True)):
            if done.waiting.spans or done.running.spans:
                film = _film(trial, record, position, candidates.get((job.id, step.name)))
                found.append((job.deadline_ms, number_of(job.id), position, film))
    return [film for *_, film in sorted(found, key=lambda each: each[:3])]


def limit_ms(record: JobRecord, step: Step) -> int:
    """When a step of a promised film must be over: the last at the deadline, others when their tracks end."""
    if not any(step.name in other.needs for other in record.job.steps):
        return record.job.deadline_ms
    return max((track.end_ms for track in record.job.tracks if track.step == step.name), default=0)


def _film(trial: Trial, record: JobRecord, position: int, candidate: Candidate | None) -> Film:
    state, step, done = trial.state, record.job.steps[position], record.steps[position]
    is_open = candidate is not None
    candidate = candidate or candidate_of(state, record, position, trial.now_ms, trial.policy)
    prior = state.durations.estimate(record.job, step, StepRecord(name=step.name))
    film = Film(trial, candidate, is_open, careful_task_ms(prior, done), limit_ms(record, step))
    copies = [copy for track in _open_tracks(trial, record, candidate) for copy in _copies_of(trial, track)]
    film.copies = sorted(copies, key=lambda copy: (copy.track.start_ms, copy.track.end_ms, copy.track.node))
    stopping, beside = _seat(trial, record.job.id, step.name, film.copies)
    _size(film)
    film.keep(len(done.waiting) + stopping, beside)
    return film


def _open_tracks(trial: Trial, record: JobRecord, candidate: Candidate) -> Iterator[Track]:
    """Tracks that have not ended, on nodes that are there and open, as wide as the nodes still are."""
    queues = ancestors(trial.state.queues, candidate.queue)
    wide: dict[tuple[str, str], int] = {}
    for track in record.job.tracks:
        view = trial.search.nodes.get(track.node)
        start_ms = max(track.start_ms, trial.now_ms)
        if track.step != candidate.step.name or track.end_ms <= trial.now_ms or view is None:
            continue
        if trial.calendar.closed(track.node, queues, start_ms, track.end_ms) is not None:
            continue
        demand = on_model(candidate.demand, track.model)
        place = track.node, track.model
        if place not in wide:
            wide[place] = capacity(NodeView.empty(view.node), demand, trial.state.shapes.features)
        if wide[place] > 0:
            copies = min(track.copies, wide[place])
            yield replace(track, copies=copies)


def _copies_of(trial: Trial, track: Track) -> Iterator[Copy]:
    at_ms = max(track.start_ms, trial.now_ms)
    for _ in range(track.copies):
        yield Copy(track, at_ms)


def _seat(trial: Trial, job_id: str, step: str, copies: list[Copy]) -> tuple[int, int]:
    """Say which lease runs on which copy; how many tasks are being stopped, and how many run beside the tracks."""
    waits: dict[tuple[str, str], list[Copy]] = {}
    for copy in copies:
        waits.setdefault((copy.track.node, copy.track.model), []).append(copy)
    stopping = beside = 0
    ends = sorted((trial.expected.last_end_ms(key), number_of(key), key) for key in _leases(trial, job_id, step))
    for last_ms, _, key in ends:
        record = trial.state.leases[key]
        free = [c for place in _places(trial, record) for c in waits.get(place, ())]
        seat = next((c for c in free if not c.lease and last_ms > c.track.start_ms), None)
        if seat is not None:
            seat.lease, seat.free_ms = key, max(trial.expected.end_ms(record), seat.track.start_ms)
            trial.evictor.kept.add(key)
        tasks = sum(not attempt.state.is_final for attempt in trial.state.attempts_of(record.lease))
        if record.stopping:
            stopping += tasks
        elif seat is None:
            beside += tasks
    return stopping, beside


def _leases(trial: Trial, job_id: str, step: str) -> Iterator[str]:
    return (key for key in trial.state.leases_of_job.get(job_id, ()) if trial.state.leases[key].lease.step == step)


def _places(trial: Trial, record: LeaseRecord) -> Iterator[tuple[str, str]]:
    for allocation in record.lease.allocations:
        for model in sorted(trial.state.models_of(record.lease) or {""}):
            yield allocation.node, model


def _size(film: Film) -> None:
    """How many tasks each copy still has time for; none where something else overstays."""
    trial, step = film.trial, film.candidate.step
    free: dict[tuple[str, str], int] = {}
    for copy in film.copies:
        track = copy.track
        task_ms = rated_ms(step, track.model, film.task_ms)
        if copy.lease:
            # The task that runs varies like those behind it: it is one of those whose sum is bounded.
            copy.room = max(room(track.end_ms - copy.free_ms + task_ms + TURN_MS, task_ms) - 1, 0)
            continue
        copy.room = room(track.end_ms - copy.free_ms, task_ms)
        if track.start_ms <= trial.now_ms:
            place = track.node, track.model
            if place not in free:
                demand = on_model(film.candidate.demand, track.model)
                free[place] = capacity(trial.search.nodes[track.node], demand, trial.state.shapes.features)
            free[place] -= 1
            copy.is_taken = free[place] < 0
