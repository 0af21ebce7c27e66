from bisect import bisect_right
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.model.job import JobState, StepRecord
from scheduler.queueing.durations import Durations, Estimate, Source, remaining, worked_ms
from scheduler.queueing.histogram import ATOMS, Histogram, bucket_of, edge_of, quantile
from scheduler.queueing.lifecycle import submitted
from tests.builders import a_job, a_step

HOUR = 3_600_000

counts = st.lists(st.tuples(st.integers(1, 10**10), st.integers(1, 20)), min_size=1, max_size=40)


def learned(job, mean, count=8):
    """``job`` with this mean run time in each of its steps."""
    record = submitted(job, held=False)
    steps = tuple(replace(step, run_ms_mean=mean, run_count=count) for step in record.steps)
    return replace(record, steps=steps, state=JobState.SUCCEEDED)


def after(*records):
    durations = Durations()
    for record in records:
        durations.put(None, record)
    return durations


def estimate(durations, job, **done):
    return durations.estimate(job, job.steps[0], StepRecord(name=job.steps[0].name, **done))


@given(st.integers(1, 10**15))
def test_a_bucket_holds_numbers_within_an_eighth_of_each_other(value):
    low, end = edge_of(bucket_of(value)), edge_of(bucket_of(value) + 1)
    assert low <= value < end <= max(low + low // 8 + 1, low + 1)


@given(counts, st.randoms(use_true_random=False))
def test_what_was_counted_in_any_order_is_equal_and_what_is_taken_away_leaves_nothing(values, random):
    there, back = Histogram(), Histogram()
    for value, count in values:
        there.add(value, count)
    shuffled = random.sample(values, len(values))
    for value, count in shuffled:
        back.add(value, count)
    assert there == back
    assert there.atoms() == back.atoms()
    for value, count in shuffled:
        there.add(value, -count)
    assert there == Histogram()
    assert there.atoms() == ()


@given(counts)
def test_the_atoms_lie_within_a_bucket_of_the_quantiles_of_what_was_counted(values):
    histogram = Histogram()
    flat = []
    for value, count in values:
        histogram.add(value, count)
        flat += [value] * count
    flat.sort()
    atoms = histogram.atoms()
    assert len(atoms) == ATOMS
    assert list(atoms) == sorted(atoms)
    for i, atom in enumerate(atoms):
        exact = flat[-(-(2 * i + 1) * len(flat) // (2 * ATOMS)) - 1]
        assert edge_of(bucket_of(exact)) <= atom <= edge_of(bucket_of(exact) + 1)


def test_a_quantile_is_the_middle_of_what_is_equally_likely():
    assert quantile((10,), 950) == 10
    assert quantile((10, 20), 500) == 15
    assert quantile(tuple(range(100)), 500) == 49
    assert quantile((1, 2, 3), 0) == 1
    assert quantile((1, 2, 3), 1_000) == 3


def test_nothing_known_gives_the_time_limit_or_a_wide_default():
    unknown = estimate(Durations(), a_job())
    assert unknown.source is Source.DEFAULT
    assert unknown.p90_ms > 5 * unknown.median_ms
    limited = estimate(Durations(), a_job(1, a_step(timeout_ms=HOUR)))
    assert limited.source is Source.TIMEOUT
    assert limited.median_ms < limited.p90_ms <= HOUR


def test_the_narrowest_class_with_enough_samples_speaks():
    same_name = [learned(a_job(n, name=f"shot {n:04}"), 60_000, 1) for n in range(1, 6)]
    of_tenant = [learned(a_job(10 + n, name=f"{'abcdefgh'[n]}"), 300_000, 1) for n in range(8)]
    of_kind = [learned(a_job(20 + n, tenant="other", name="x"), 900_000, 1) for n in range(40)]
    other_shape = [learned(a_job(70 + n, a_step(cards=4)), HOUR, 1) for n in range(200)]
    durations = after(*same_name, *of_tenant, *of_kind, *other_shape)
    job = a_job(99, name="shot 0099")
    assert estimate(durations, job).source is Source.NAME
    assert estimate(durations, job).median_ms == pytest.approx(60_000, rel=0.13)
    assert estimate(durations, replace(job, name="new")).source is Source.TENANT
    assert estimate(durations, replace(job, name="new")).median_ms == pytest.approx(300_000, rel=0.13)
    assert estimate(durations, replace(job, tenant="third")).source is Source.KIND
    assert estimate(durations, replace(job, tenant="third")).median_ms == pytest.approx(900_000, rel=0.13)
    wide = a_job(99, a_step(ranks=2))
    assert estimate(durations, wide).source is Source.ALL
    assert estimate(after(*same_name[:4]), job).source is Source.DEFAULT


def test_the_steps_own_tasks_speak_before_its_owner_and_its_owner_before_history():
    job = a_job(9, a_step(run_ms_expected=HOUR))
    durations = after(*(learned(a_job(n), 60_000) for n in range(1, 9)))
    own = estimate(durations, job, run_ms_mean=5_000, run_count=3)
    assert (own.source, own.median_ms) == (Source.STEP, pytest.approx(5_000, rel=0.05))
    assert estimate(durations, job, run_ms_mean=5_000, run_count=2).source is Source.OWNER


def test_what_an_owner_says_is_corrected_by_how_right_the_tenant_was():
    late = [learned(a_job(n, a_step(run_ms_expected=HOUR), tenant="late"), 3 * HOUR, 1) for n in range(5)]
    early = [learned(a_job(n, a_step(run_ms_expected=HOUR), tenant="early"), HOUR // 2, 1) for n in range(50)]
    durations = after(*late, *early)

    def told(tenant):
        return estimate(durations, a_job(99, a_step(run_ms_expected=20 * HOUR), tenant=tenant)).median_ms / HOUR

    assert told("late") == pytest.approx(60, rel=0.13)
    assert told("early") == pytest.approx(10, rel=0.13)
    assert told("new") == pytest.approx(10, rel=0.13), "everybody's ratio stands for a tenant that never said anything"


def test_who_was_right_to_the_second_is_believed_to_the_second():
    said = 3 * HOUR + 4 * 60_000 + 44_000
    right = [learned(a_job(n, a_step(run_ms_expected=said + n * 1_000)), said + n * 1_000, 1) for n in range(50)]
    found = estimate(after(*right), a_job(99, a_step(run_ms_expected=said)))
    assert (found.source, found.median_ms) == (Source.OWNER, said)
    assert [found.left(said - left) for left in (HOUR, 60_000, 1_000)] == [HOUR, 60_000, 1_000]
    longer = [learned(a_job(n, a_step(run_ms_expected=said)), said * 1_003 // 1_000, 1) for n in range(50)]
    assert estimate(after(*longer), a_job(99, a_step(run_ms_expected=said))).median_ms == pytest.approx(
        said * 1.003, rel=0.000_5
    )


def test_a_step_of_ten_thousand_frames_is_one_opinion_among_others():
    durations = after(
        learned(a_job(1, name="a"), 10_000, 10_000), *(learned(a_job(n, name="bc"), HOUR, 8) for n in (2, 3))
    )
    assert estimate(durations, a_job(9, name="new")).median_ms == pytest.approx(HOUR, rel=0.13)


def test_nothing_runs_beyond_its_time_limit():
    durations = after(*(learned(a_job(n), HOUR) for n in range(3)))
    assert estimate(durations, a_job(9, a_step(timeout_ms=60_000))).p90_ms == 60_000


def test_replacing_a_record_leaves_only_the_new_one():
    job = a_job()
    records = [submitted(job, held=False), learned(job, 1_000, 1), learned(job, 2_000, 2), learned(job, 2_000, 2)]
    grown = Durations()
    for before, now in zip([None, *records], records, strict=False):
        grown.put(before, now)
    assert grown == after(records[-1])
    grown.put(records[-1], records[0])
    assert grown == Durations()


@st.composite
def atoms(draw):
    return tuple(sorted(draw(st.lists(st.integers(1, 10**9), min_size=ATOMS, max_size=ATOMS))))


@given(atoms(), st.lists(st.integers(0, 2 * 10**9), min_size=2, max_size=20), st.integers(1, 999))
def test_what_is_left_is_positive_and_the_end_never_moves_back(values, elapsed, permille):
    known = Estimate(atoms=values, source=Source.ALL)
    ends = [e + known.left(e, permille) for e in sorted(elapsed)]
    assert ends == sorted(ends)
    for e in elapsed:
        median, p90 = remaining(known, e)
        assert 1 <= median <= p90


@given(atoms())
def test_before_it_starts_all_of_it_is_left(values):
    known = Estimate(atoms=values, source=Source.ALL)
    assert remaining(known, 0) == (known.median_ms, known.p90_ms)


@given(atoms(), st.integers(2, 1_000))
def test_beyond_everything_seen_what_is_left_grows_with_what_was_run(values, factor):
    known = Estimate(atoms=values, source=Source.ALL)
    elapsed = values[-1] * factor
    assert remaining(known, elapsed)[0] == elapsed
    assert known.left(2 * elapsed) == 2 * elapsed


def test_a_task_that_outlived_most_of_its_class_is_expected_to_last_like_the_rest():
    known = Estimate(atoms=(1_000,) * 10 + (HOUR,) * 10, source=Source.KIND)
    assert known.median_ms == pytest.approx(HOUR // 2, rel=0.01)
    assert known.left(2_000) == HOUR - 2_000


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 10**6)), max_size=9, unique_by=lambda pair: pair[0]))
def test_kept_work_is_found_by_task(pairs):
    record = StepRecord(name="work", worked=tuple(sorted(pairs)))
    assert all(worked_ms(record, index) == dict(pairs).get(index, 0) for index in range(100))
    assert bisect_right(record.worked, (0,)) == 0
