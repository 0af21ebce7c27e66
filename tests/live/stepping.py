"""A step of a job through an agent, as the control plane would order it: no service, no Ray."""

from scheduler.model.order import LeaseOrder, ReportKind


def run_step(agent, step, orders, roots, *, cpu_milli=1_000):
    """Ends of all tasks of a step, in the order they came: one lease holds them all."""
    lease = LeaseOrder(
        lease_id=f"l-{step.name}",
        tenant=agent.tenant,
        node=agent.node,
        tasks=orders,
        cpu_milli=cpu_milli,
        memory_mib=step.resources.memory_mib,
        warm_key=step.warm_key,
        roots=roots,
    )
    agent.submit([lease])
    ends, cursor = [], ""
    while len(ends) < len(orders):
        for report in agent.poll(cursor, 1_000):
            cursor = report.cursor or cursor
            if report.kind is ReportKind.FINISHED and report.lease_id == lease.lease_id:
                ends.append(report)
    return ends
