"""What the election asks of an API server, on the double and on a real one."""

import pytest

from k8s.backoff import Backoff
from k8s.endpoint import Endpoint
from k8s.leader import Elector, Timing
from k8s.resource import ENDPOINT_SLICES, LEASES


def test_a_lease_goes_from_one_to_the_next(site, namespace):
    now_s = [0.0]
    api = site.connect(backoff=Backoff(tries=1))
    a, b = (Elector(api, namespace, "leader", name, timing=Timing(), clock=lambda: now_s[0]) for name in "ab")
    assert a.attempt()
    assert a.attempt()
    assert not b.attempt()
    now_s[0] = 8.0
    assert b.attempt()
    assert not a.attempt()
    b.release()
    assert not api.get(LEASES, "leader", namespace)["spec"].get("holderIdentity")
    assert a.attempt()
    assert api.get(LEASES, "leader", namespace)["spec"]["leaseTransitions"] == 2
    api.close()


@pytest.mark.needs(ENDPOINT_SLICES)
def test_the_service_leads_to_who_says_so_last(api, namespace):
    for address in ("10.0.0.1", "10.0.0.2"):
        assert Endpoint(api, namespace, "service", address, {"http": 80}).publish(lambda: True)
    assert Endpoint(api, namespace, "service", "10.0.0.3", {"http": 80}).publish(lambda: False)
    (only,) = api.get(ENDPOINT_SLICES, "service", namespace)["endpoints"]
    assert only["addresses"] == ["10.0.0.2"]
