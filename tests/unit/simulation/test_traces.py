"""What the readers find in the public traces, beside what their publishers say of them."""

from itertools import pairwise

from benchmarks.traces import genai, openb, philly
from benchmarks.training_traces import chronus, elasticflow, gavel
from scheduler.model.policy import Policy
from scheduler.queueing.rate import scaling_permille
from scheduler.simulation.loop import simulate
from scheduler.simulation.measures import figures
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.traces import traces

HOUR_MS = 3_600_000


def test_the_philly_pool_is_the_published_one():
    trace = philly(traces("philly"))
    cards = {job.id: job.steps[0].ranks * job.steps[0].resources.cards for job in trace.jobs}
    assert len(trace.jobs) == 68_510
    assert sum(len(node.devices) for node in trace.nodes) == 576
    assert sum(trace.work_ms[j] * cards[j] for j in cards) // HOUR_MS in range(690_870, 690_890)
    assert [job.id for job in trace.jobs[:2]] == ["j1", "j2"]
    assert all(a.submitted_ms <= b.submitted_ms for a, b in pairwise(trace.jobs))


def test_gavel_jobs_know_the_speed_of_each_card():
    trace = gavel(traces("gavel"))
    assert (len(trace.jobs), sum(len(node.devices) for node in trace.nodes)) == (96, 48)
    assert all(max(speed for _, speed in job.steps[0].speeds) == 1_000 for job in trace.jobs)
    assert len(gavel(traces("gavel"), trace="minimize_makespan").jobs) == 100


def test_elasticflow_takes_the_traces_duration_at_the_number_of_cards_asked_for():
    folder = traces("elasticflow")
    for name, count in (("elasticVpollux_e", 195), ("philly_103959", 876)):
        rigid, elastic = elasticflow(folder, trace=name, elastic=False), elasticflow(folder, trace=name)
        assert len(rigid.jobs) == len(elastic.jobs) == count
        for a, b in zip(rigid.jobs, elastic.jobs, strict=True):
            asked = a.steps[0].ranks
            step = b.steps[0]
            took_ms = elastic.work_ms[b.id] * 1_000 // scaling_permille(step, asked) if asked <= step.ranks else 0
            assert not took_ms or abs(took_ms - rigid.work_ms[a.id]) <= 0.02 * rigid.work_ms[a.id] + 2
        assert all(job.deadline_ms > job.submitted_ms for job in elastic.jobs)


def test_chronus_has_strict_and_best_effort_jobs():
    trace = chronus(traces("chronus"))
    assert (len(trace.jobs), len(trace.queues)) == (30_940, 11)
    assert sum(job.deadline_ms > 0 for job in trace.jobs) == 21_724


def test_image_requests_are_short():
    trace = genai(traces("genai"), limit=2_000)
    mean_ms = sum(trace.work_ms.values()) // len(trace.jobs)
    assert 20_000 < mean_ms < 40_000


def test_openb_is_the_published_cluster():
    trace = openb(traces("openb"))
    assert (len(trace.nodes), sum(len(node.devices) for node in trace.nodes)) == (1_213, 6_212)
    assert any(job.steps[0].resources.card_milli for job in trace.jobs)


def test_six_hours_of_philly_on_a_large_pool_wait_for_nothing():
    """With more cards than are ever asked for, every job takes exactly its run time."""
    trace = philly(traces("philly"), start="2017-10-05 00:00:00", end="2017-10-05 06:00:00", nodes=200)
    truth = Workload(work_ms=trace.work_ms)
    run = simulate(Scenario(policy=Policy(), truth=truth, nodes=trace.nodes, jobs=trace.jobs))
    assert figures(run).wait_p99_ms == 0
    assert all(job.jct_ms == trace.work_ms[job.id] for job in run.jobs)
