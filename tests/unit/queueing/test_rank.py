from dataclasses import replace

import pytest

from scheduler.model.policy import Policy, Sort
from scheduler.queueing import lifecycle
from scheduler.queueing.rank import LAST, aged_priority, ages_ms, expected_work, rank_key, weight_milli
from scheduler.queueing.rate import scaling_permille, work_done, work_rate_permille
from tests.builders import a_job, a_step

DAY = 24 * 3_600_000


def a_record(number=1, *steps, learned=None, **changes):
    record = lifecycle.submitted(a_job(number, *steps, **changes), held=False)
    return replace(record, steps=tuple(replace(done, **(learned or {})) for done in record.steps))


def in_order(policy, *records, now_ms=0):
    ranked = [(rank_key(r, int(r.job.id[1:]), 0, now_ms, policy), r.job.id) for r in records]
    return [job_id for _, job_id in sorted(ranked)]


def test_priority_first_then_the_policys_sort_then_age():
    late, soon, none = a_record(1, deadline_ms=900), a_record(2, deadline_ms=500), a_record(3)
    urgent = a_record(4, priority=90)
    assert in_order(Policy(), late, none, urgent, soon) == ["j4", "j1", "j2", "j3"]
    assert in_order(Policy(sort=Sort.DEADLINE), late, none, urgent, soon) == ["j4", "j2", "j1", "j3"]


def test_waiting_gains_priority_up_to_less_than_a_class():
    record = a_record(1, priority=30)
    assert [aged_priority(record, days * DAY, Policy()) for days in (0, 1, 5, 900)] == [30, 31, 35, 49]
    assert aged_priority(record, 900 * DAY, Policy(age_gain_ms=0)) == 30


@pytest.mark.parametrize("submitted_ms", [0, 5, 3 * DAY])
@pytest.mark.parametrize("now_ms", [0, 7, DAY - 1, DAY, 4 * DAY + 5, 900 * DAY])
def test_a_priority_is_the_same_until_it_says_it_ages(submitted_ms: int, now_ms: int):
    record, policy = a_record(1, submitted_ms=submitted_ms), Policy()
    until_ms, now = ages_ms(record, now_ms, policy), aged_priority(record, now_ms, policy)
    assert now_ms < until_ms
    assert aged_priority(record, until_ms - 1, policy) == now
    assert aged_priority(record, until_ms, policy) >= now
    assert ages_ms(record, now_ms, Policy(age_gain_ms=0)) == LAST


def test_least_expected_work_first_and_the_unknown_last():
    small = a_record(1, a_step(count=9, cards=1, run_ms_expected=1_000))
    gang = a_record(2, a_step(cards=1, ranks=8, run_ms_expected=2_000))
    unknown = a_record(3, a_step(cards=1))
    assert expected_work(small) == 9 * 1_000 * 1_000
    assert expected_work(gang) == 8 * 2_000 * 1_000
    assert expected_work(unknown) == LAST
    assert in_order(Policy(sort=Sort.EXPECTED), unknown, gang, small) == ["j1", "j2", "j3"]


def test_what_was_measured_and_what_checkpoints_keep_count():
    learned = a_record(1, a_step(count=9, cards=1, run_ms_expected=1_000), learned={"run_count": 1, "run_ms_mean": 7})
    assert expected_work(learned) == 9 * 7 * 1_000
    kept = a_record(1, a_step(cards=1, run_ms_expected=1_000), learned={"worked": ((0, 400),)})
    assert expected_work(kept) == 600 * 1_000


def test_least_attained_service_first():
    had = a_record(1, a_step(cards=1), learned={"served_ms": 5_000})
    wide = a_record(2, a_step(cards=8), learned={"served_ms": 1_000})
    assert in_order(Policy(sort=Sort.SERVED), wide, had, a_record(3)) == ["j3", "j1", "j2"]


def test_work_without_cards_counts_by_its_vcpus():
    assert weight_milli(a_step(cpus=16).resources) == 1_000
    assert weight_milli(a_step(cpus=1, cards=2).resources) == 2_000
    assert weight_milli(a_step(cpus=0).resources) == 1


def test_speed_by_model_and_ranks():
    step = a_step(ranks=8, ranks_min=1, speeds=(("L4", 250),), scaling=((2, 400), (4, 600)))
    assert [scaling_permille(step, n) for n in (0, 1, 2, 3, 4, 6, 8, 9)] == [0, 200, 400, 500, 600, 800, 1_000, 1_000]
    assert work_rate_permille(step, 4, "L4") == 150
    assert work_rate_permille(step, 8, "H100") == work_rate_permille(step, 8, "") == 1_000
    assert work_rate_permille(a_step(ranks=8), 2, "") == 250


@pytest.mark.parametrize(
    ("started", "saved", "resumed", "kept"),
    [(1_000, 0, False, 0), (0, 9_000, False, 0), (1_000, 9_000, False, 8_000), (1_000, 9_000, True, 7_500)],
)
def test_a_checkpoint_keeps_what_was_worked_before_it(started, saved, resumed, kept):
    step = a_step(restart_ms=500, speeds=(("L4", 250),))
    assert work_done(step, 1, frozenset({"H100"}), started, saved, resumed=resumed) == kept
    assert work_done(step, 1, frozenset({"H100", "L4"}), started, saved, resumed=resumed) == kept // 4
