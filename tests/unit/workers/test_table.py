from __future__ import annotations

import pytest

from scheduler.model.lease import AttemptState
from scheduler.model.order import Report, ReportKind
from tests.unit.workers.helpers import lease, shell
from workers.table import Started, Table

KEY = ("l1", 0)


def report(kind, attempt="j1.s.0.a1", **fields):
    return Report(kind=kind, lease_id="l1", attempt_id=attempt, **fields)


def filled(path):
    table = Table(path)
    table.accept([lease(shell("a"), shell("b", index=1))])
    table.start(KEY, Started(pid=77, start_ticks=5), report(ReportKind.STARTED))
    table.finish(KEY, report(ReportKind.FINISHED, state=AttemptState.SUCCEEDED))
    table.sync()
    return table


def test_reopening_gives_the_same_leases_and_reports(tmp_path):
    table = filled(tmp_path / "t")
    before = (table.after("", 10), table.lease_ids())
    again = Table(tmp_path / "t")
    assert (again.after("", 10), again.lease_ids()) == before
    assert [t.attempt_id for t in again.leases[KEY].unfinished()] == ["j1.s.1.a1"]
    assert again.leases[KEY].started["j1.s.0.a1"] == Started(pid=77, start_ticks=5)


def test_a_known_lease_is_not_accepted_again_even_after_it_was_acknowledged(tmp_path):
    table = filled(tmp_path / "t")
    table.finish(KEY, report(ReportKind.FINISHED, "j1.s.1.a1", state=AttemptState.FAILED))
    assert table.accept([lease(shell("a"))]) == ()
    table.acknowledge([r.cursor for r in table.after("", 10)])
    assert table.lease_ids() == ()
    assert table.after("", 10) == ()
    for reopened in (table, Table(tmp_path / "t"), Table(tmp_path / "t")):
        assert reopened.accept([lease(shell("a"))]) == ()


def test_an_acknowledged_report_stays_away_and_numbers_go_on(tmp_path):
    table = filled(tmp_path / "t")
    first, second = table.after("", 10)
    table.acknowledge([first.cursor, "elsewhere-3", ""])
    again = Table(tmp_path / "t")
    assert again.after("", 10) == (second,)
    third = again.finish(KEY, report(ReportKind.FINISHED, "j1.s.1.a1", state=AttemptState.LOST))
    assert again.after(second.cursor, 10) == (third,)
    assert third.cursor not in (first.cursor, second.cursor)


def test_a_cursor_of_another_table_means_from_the_beginning(tmp_path):
    other = filled(tmp_path / "other").after("", 10)[-1].cursor
    assert len(filled(tmp_path / "t").after(other, 10)) == 2


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_a_torn_tail_loses_only_the_torn_line(tmp_path, cut):
    filled(tmp_path / "t").close()
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(data[: max(0, len(data) - cut)])
    table = Table(tmp_path / "t")
    table.accept([lease(shell("c"), lease_id="l2")])
    table.close()
    assert "l2" in Table(tmp_path / "t").lease_ids()


def test_a_damaged_line_in_the_middle_does_not_hide_what_follows(tmp_path):
    table = filled(tmp_path / "t")
    table.close()
    data = (tmp_path / "t").read_bytes().replace(b'"pid":77', b'"pid":78')
    (tmp_path / "t").write_bytes(data)
    again = Table(tmp_path / "t")
    assert [r.kind for r in again.after("", 10)] == [ReportKind.FINISHED]


def test_it_shrinks_when_acknowledged_lines_pile_up(tmp_path):
    table = Table(tmp_path / "t", compact_bytes=20_000)
    for i in range(300):
        key = (f"l{i}", 0)
        table.accept([lease(shell("true", index=i), lease_id=key[0])])
        done = Report(kind=ReportKind.FINISHED, lease_id=key[0], attempt_id=f"j1.s.{i}.a1")
        table.acknowledge([table.finish(key, done).cursor])
    table.close()
    assert (tmp_path / "t").stat().st_size < 60_000
    assert Table(tmp_path / "t").accept([lease(shell("true"), lease_id="l5")]) == ()


def test_a_start_whose_report_was_acknowledged_keeps_its_pid(tmp_path):
    table = Table(tmp_path / "t")
    table.accept([lease(shell("a"))])
    started = table.start(KEY, Started(pid=9, start_ticks=8), report(ReportKind.STARTED))
    table.acknowledge([started.cursor])
    table.close()
    for _ in range(2):
        again = Table(tmp_path / "t")
        assert again.leases[KEY].started == {"j1.s.0.a1": Started(pid=9, start_ticks=8)}
        assert again.after("", 10) == ()
        again.close()
