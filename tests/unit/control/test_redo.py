"""A frame made again after it succeeded: through the cycle, down to what the workers are told."""

from scheduler.model.event import JobRetried
from scheduler.model.job import JobState
from tests.unit.control.world import step


def told(world):
    """Attempt id to what is out of date, of everything ordered so far."""
    return {task.attempt_id: task.stale_before for order in world.workers.known.values() for task in order.tasks}


def test_the_frame_and_the_film_run_again_and_replace_what_they_published(world):
    job = world.submit(step("render", 2), step("film", needs=("render",)))
    assert world.run_to_end(job).state is JobState.SUCCEEDED
    world.record(JobRetried(at_ms=world.cycle.now_ms(), job_id=job, step="render", indices=(1,), redo=True))
    assert world.run_to_end(job).state is JobState.SUCCEEDED
    assert told(world) == {
        f"{job}.render.0.a1": 0,
        f"{job}.render.1.a1": 0,
        f"{job}.render.1.a2": 2,
        f"{job}.film.0.a1": 0,
        f"{job}.film.0.a2": 2,
    }
