"""What the smallest changes cost to find. Whether they are the smallest: ``tests/property/test_what.py``."""

from unittest import mock

from scheduler.engine.trials import Trials
from scheduler.model.plan import ChangeKind
from tests.builders import Park, a_job, a_node, a_step


def test_on_a_full_farm_the_leases_that_must_end_are_found_with_some_dozens_of_plans():
    """The park stands still for so long. 200 leases, four of which hold a node that the gang needs."""
    park = Park(*(a_node(f"n{i}", cpus=16, cards=4) for i in range(50)))
    park.submit(a_job(1, a_step(cards=1, count=200)))
    while park.cycle().actions:
        pass
    park.submit(a_job(2, a_step(cards=4)))
    with mock.patch.object(Trials, "starts_without", autospec=True, side_effect=Trials.starts_without) as tried:
        changes = park.engine.changes("j2", "work", park.now_ms, park.policy)
    (ending,) = (change for change in changes if change.kind is ChangeKind.END_LEASES)
    leases = {record.lease.id: record.lease for record in park.engine.snapshot().leases}
    assert len({leases[name].allocations[0].node for name in ending.names}) == 1
    assert ending.amount == 4
    assert tried.call_count < 40
