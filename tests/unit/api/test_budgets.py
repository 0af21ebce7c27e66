"""A tenant whose budget is used up waits, says so, and goes on once the budget is raised."""


def booked(service):
    """Whoever asks for money's state has everything booked that is recorded; the cycle then hears of it."""
    service.get("/vouchers")
    service.settle()


def test_nothing_of_a_tenant_without_budget_starts_until_it_is_raised(service):
    key = service.key("poor")
    assert service.call("PUT", "/tenants/poor", {"budget": "0"}).json()["budget"] == "0.00"
    booked(service)
    assert service.cycle.policy.unfunded == ("poor",)
    job_id = service.submit(key=key).json()["id"]
    service.settle()
    assert service.workers.ran == []
    (wait,) = service.get(f"/jobs/{job_id}/explain").json()["waits"]
    assert [reason["kind"] for reason in wait["reasons"]] == ["budget"]
    service.call("PUT", "/tenants/poor", {"budget": "100"})
    booked(service)
    assert service.workers.ran == [f"{job_id}.command.0.a1"]
    assert service.call("PUT", "/tenants/poor", {}).json()["budget"] is None


def test_a_budget_that_is_no_amount_is_refused(service):
    answer = service.call("PUT", "/tenants/poor", {"budget": "much"})
    assert (answer.status_code, "budget" in answer.text) == (400, True)
