"""When the one lease of a job's own cluster is over, and what is said when its pods do not come."""

import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.order import LeaseOrder, Report, ReportKind
from tests.farm import gang, lease, task
from workers.errand import Errand
from workers.messages import Begin, Recorded, Told

WON, FAILED, LOST = AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.LOST


def end(attempt, state=WON, cursor="c", lease_id="l1"):
    report = Report(kind=ReportKind.FINISHED, lease_id=lease_id, attempt_id=attempt, state=state, cursor=cursor)
    return Told(reports=(report,))


def node(name, kind=ReportKind.NODE):
    return Told(reports=(Report(kind=kind, node=name),))


def after(errand, *messages):
    for message in messages:
        errand.hear(message)
    return errand


@pytest.mark.parametrize(
    ("state", "code"), [(WON, 0), (FAILED, 1), (AttemptState.CANCELLED, 1), (AttemptState.PREEMPTED, 1), (LOST, 1)]
)
def test_it_is_over_once_its_end_is_acknowledged(state, code):
    errand = after(Errand(), Begin(orders=(lease(1, "x"),)), end("j1.run.0.a1", state))
    assert errand.ended
    assert not errand.over
    errand.hear(Recorded(cursors=("another",)))
    assert not errand.over
    errand.hear(Recorded(cursors=("c",)))
    assert (errand.over, errand.unkept, errand.exit_code()) == (True, False, code)


def test_nothing_is_over_before_an_order():
    errand = after(Errand(), end("j1.run.0.a1"), Recorded(cursors=("c",)))
    assert not errand.over
    assert errand.exit_code() == 1


def test_a_gang_has_one_end():
    errand = after(Errand(pods=2), Begin(orders=tuple(gang(1, ("x",)))), end("j1.run.0.a1", cursor="gang:l1\na\nb"))
    assert not errand.over
    assert after(errand, Recorded(cursors=("gang:l1\na\nb",))).over


def test_a_lease_of_several_tasks_is_over_when_all_are():
    tasks = tuple(task(f"j1.run.{i}.a1", "x") for i in range(2))
    errand = after(Errand(), Begin(orders=(LeaseOrder(lease_id="l1", tenant="t", node="a", tasks=tasks),)))
    after(errand, end("j1.run.0.a1", cursor="1"), Recorded(cursors=("1",)))
    assert not errand.over
    after(errand, end("j1.run.1.a1", FAILED, cursor="2"), Recorded(cursors=("2",)))
    assert (errand.over, errand.exit_code()) == (True, 1)


def test_a_repeated_end_and_order_change_nothing():
    order = Begin(orders=(lease(1, "x"),))
    errand = after(Errand(), order, end("j1.run.0.a1"), order, end("j1.run.0.a1"), Recorded(cursors=("c",)), order)
    assert (errand.over, errand.exit_code()) == (True, 0)


def test_another_lease_is_not_its_own():
    errand = after(Errand(lease_id="l1", attempt_id="j1.run.0.a1"), Begin(orders=(lease(2, "x"),)))
    after(errand, end("j2.run.0.a1", lease_id="l2"), Recorded(cursors=("c",)))
    assert not errand.over
    assert after(errand, end("j1.run.0.a1"), Recorded(cursors=("c",))).over


def test_an_end_that_no_agent_keeps_needs_no_acknowledgement():
    errand = after(Errand(), Begin(orders=(lease(1, "x"),)), end("j1.run.0.a1", LOST, cursor=""))
    assert (errand.over, errand.unkept, errand.exit_code()) == (True, True, 1)


def test_missing_pods_are_counted_and_named():
    errand = after(Errand(pods=3), node("p2"), node("p1"), node("p1"), node("p3"), node("p3", ReportKind.NODE_GONE))
    assert errand.missing(60) == "gang_incomplete: 2 of 3 pods came within 60 s (p1, p2)"
    assert after(errand, node("p4")).missing(60) == ""
    assert Errand(pods=1).missing(5).endswith("(none)")


def test_what_has_begun_is_not_given_up():
    errand = after(Errand(pods=2), Begin(orders=tuple(gang(1, ("x",)))))
    assert errand.missing(1)
    started = Report(kind=ReportKind.STARTED, lease_id="l1", attempt_id="j1.run.0.a1")
    assert after(errand, Told(reports=(started,))).missing(1) == ""


def test_losses_name_what_was_ordered_or_what_was_given():
    ordered = after(Errand(), Begin(orders=tuple(gang(1, ("x",))))).losses("why", 5)
    assert [(r.lease_id, r.attempt_id, r.node, r.tenant) for r in ordered] == [("l1", "j1.run.0.a1", "alpha", "t1")]
    given = Errand(lease_id="l9", attempt_id="j9.run.0.a1").losses("why", 5)
    assert [(r.lease_id, r.attempt_id) for r in given] == [("l9", "j9.run.0.a1")]
    nobody = Errand().losses("why", 5)
    assert [(r.lease_id, r.state, r.message, r.cursor, r.at_ms) for r in nobody] == [("", LOST, "why", "", 5)]
