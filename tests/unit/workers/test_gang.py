from dataclasses import replace

import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.measured import Measured, RankUse
from scheduler.model.order import Report, ReportKind
from tests.farm import gang
from workers.gang import STOP_REASON, Gang, split


@pytest.fixture
def pair():
    return Gang(gang(7, ("/bin/true",)))


def started(rank, at_ms=10):
    return Report(kind=ReportKind.STARTED, at_ms=at_ms, cursor=f"n/t/s{rank}", lease_id="l7", rank=rank)


def finished(rank, state=AttemptState.SUCCEEDED, *, at_ms=20, message="", outputs=(), cursor=None):
    return Report(
        kind=ReportKind.FINISHED,
        at_ms=at_ms,
        cursor=f"n/t/f{rank}" if cursor is None else cursor,
        lease_id="l7",
        rank=rank,
        state=state,
        message=message,
        outputs=outputs,
    )


def feed(pair, *reports):
    return [pair.take(report) for report in reports]


def test_it_started_when_its_last_rank_did(pair):
    first, last = feed(pair, started(1, at_ms=30), started(0, at_ms=10))
    assert first.reports == ()
    assert [(r.kind, r.at_ms, r.rank) for r in last.reports] == [(ReportKind.STARTED, 30, 0)]
    assert split(last.reports[0].cursor) == ("", ("n/t/s0", "n/t/s1"))


def test_it_succeeded_when_every_rank_did_and_has_all_their_outputs(pair):
    outcomes = feed(
        pair, started(0), started(1), finished(1, outputs=("b",), at_ms=50), finished(0, outputs=("a",), at_ms=40)
    )
    (end,) = outcomes[-1].reports
    assert (end.state, end.at_ms, end.outputs) == (AttemptState.SUCCEEDED, 50, ("a", "b"))
    assert split(end.cursor) == ("l7", ("n/t/f0", "n/t/f1", "n/t/s0", "n/t/s1"))
    assert not any(outcome.stop_rest for outcome in outcomes)


def test_the_first_bad_end_stops_the_rest_once_and_is_told_when_all_have_ended(pair):
    stopped = finished(0, AttemptState.CANCELLED, at_ms=15, message=STOP_REASON)
    failed = finished(1, AttemptState.FAILED, at_ms=20, message="exit code 3")
    outcomes = feed(pair, started(0), started(1), failed, failed, stopped)
    assert [outcome.stop_rest for outcome in outcomes] == [False, False, True, False, False]
    (end,) = outcomes[-1].reports
    assert (end.state, end.message) == (AttemptState.FAILED, "rank 1: exit code 3")


def test_the_reason_does_not_depend_on_the_order_of_telling():
    reports = (finished(0, AttemptState.CANCELLED, at_ms=15, message=STOP_REASON), finished(1, AttemptState.TIMED_OUT))
    ends = [feed(Gang(gang(7, ("x",))), *order)[-1].reports for order in (reports, reports[::-1])]
    assert ends[0] == ends[1]
    assert ends[0][0].state is AttemptState.TIMED_OUT


def test_a_stop_from_outside_is_not_the_fault_of_a_rank_that_failed_over_it(pair):
    failed = finished(1, AttemptState.FAILED, at_ms=14, message="connection closed by peer")
    stopped = finished(0, AttemptState.PREEMPTED, at_ms=15, message="preempted by an operator")
    (end,) = feed(pair, started(0), started(1), failed, stopped)[-1].reports
    assert (end.state, end.message) == (AttemptState.PREEMPTED, "rank 0: preempted by an operator")


def test_what_all_ranks_say_is_said_once(pair):
    ends = [finished(rank, AttemptState.PREEMPTED, message="preempted by an operator") for rank in (1, 0)]
    (end,) = feed(pair, started(0), started(1), *ends)[-1].reports
    assert (end.state, end.message) == (AttemptState.PREEMPTED, "preempted by an operator")


def test_what_was_measured_and_saved_is_rank_0s_whoever_failed(pair):
    first = replace(finished(0, AttemptState.CANCELLED, message=STOP_REASON), result='{"loss":2}', checkpoint_ms=17)
    (end,) = feed(pair, started(0), started(1), finished(1, AttemptState.FAILED, message="exit code 3"), first)[
        -1
    ].reports
    assert (end.state, end.result, end.checkpoint_ms) == (AttemptState.FAILED, '{"loss":2}', 17)


def test_all_ranks_are_told_the_same_place_to_meet_and_keep_it(pair):
    pair.meet("10.0.0.7:20123")
    assert pair.rendezvous == "10.0.0.7:20123"
    assert {order.rendezvous for order in pair.orders} == {"10.0.0.7:20123"}


def test_repeated_reports_say_nothing_new(pair):
    feed(pair, started(0), started(1), finished(0), finished(1))
    assert all(outcome.reports == () for outcome in feed(pair, started(0), started(1), finished(0), finished(1)))


def test_a_lost_node_loses_its_rank_only(pair):
    feed(pair, started(0), started(1))
    outcome = pair.lose("beta", "node beta is gone", 25)
    assert outcome.stop_rest
    assert outcome.reports == ()
    (end,) = pair.take(finished(0, AttemptState.CANCELLED, at_ms=26, message=STOP_REASON)).reports
    assert (end.state, end.message) == (AttemptState.LOST, "rank 1: node beta is gone")


def test_a_gang_no_agent_knows_has_nothing_to_acknowledge(pair):
    (end,) = pair.refuse(AttemptState.LOST, "no room", 5).reports
    assert (end.state, end.cursor) == (AttemptState.LOST, "")


def test_progress_is_that_of_rank_0(pair):
    first, second = (Report(kind=ReportKind.PROGRESS, lease_id="l7", rank=rank, progress_milli=5) for rank in (0, 1))
    assert [outcome.reports for outcome in feed(pair, first, second)] == [(first,), ()]


def test_an_agents_own_cursor_is_left_alone():
    assert split("alpha/t1/abc-7") == ("", ("alpha/t1/abc-7",))


def use(rank, cpu_ms):
    return Measured(ranks=(RankUse(node=f"n{rank}", rank=rank, cpu_ms=cpu_ms, rss_peak_mib=10),))


def test_what_its_ranks_were_seen_to_do_is_told_side_by_side(pair):
    ends = [replace(finished(1), measured=use(1, 500)), replace(finished(0), measured=use(0, 300))]
    (end,) = feed(pair, started(0), started(1), *ends)[-1].reports
    assert [(r.node, r.cpu_ms) for r in end.measured.ranks] == [("n0", 300), ("n1", 500)]
    assert (end.measured.cpu_ms, end.measured.rss_peak_mib) == (800, 20)


def test_a_rank_that_was_lost_is_missing_from_the_measurement(pair):
    feed(pair, started(0), started(1))
    outcomes = [pair.take(replace(finished(0, AttemptState.CANCELLED), measured=use(0, 300)))]
    outcomes.append(pair.lose(pair.nodes[1], "node gone", 50))
    (end,) = outcomes[-1].reports
    assert [r.rank for r in end.measured.ranks] == [0]


def test_a_gang_nobody_measured_has_no_measurement(pair):
    (end,) = feed(pair, started(0), started(1), finished(0), finished(1))[-1].reports
    assert end.measured is None
