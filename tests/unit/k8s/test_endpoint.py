"""Where the Service leads, and who may say so."""

import pytest

from k8s.endpoint import Endpoint
from tests.fakes.kube.faults import Fault, Loss


@pytest.fixture
def park(double):
    double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "park"}})
    return double


def endpoint(api, address):
    return Endpoint(api, "park", "shisuan", address, {"http": 8080})


def addresses(park):
    found = park.get("endpointslices", "shisuan", "park")
    return [address for one in found["endpoints"] for address in one["addresses"]]


def yes():
    return True


def test_the_service_leads_to_the_last_leader(api, park):
    assert endpoint(api, "10.0.0.1").publish(yes)
    found = park.get("endpointslices", "shisuan", "park")
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "shisuan"
    assert found["addressType"] == "IPv4"
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert endpoint(api, "10.0.0.2").publish(yes)
    assert addresses(park) == ["10.0.0.2"]


def test_an_address_of_the_other_family_is_told_so(api, park):
    endpoint(api, "fd00::1").publish(yes)
    assert park.get("endpointslices", "shisuan", "park")["addressType"] == "IPv6"


@pytest.mark.parametrize("is_first", [True, False])
def test_who_leads_no_longer_says_nothing(api, park, is_first):
    if not is_first:
        endpoint(api, "10.0.0.1").publish(yes)
    assert endpoint(api, "10.0.0.2").publish(lambda: False)
    assert park.get("endpointslices", "shisuan", "park") is None if is_first else addresses(park) == ["10.0.0.1"]


@pytest.mark.parametrize("is_first", [True, False])
def test_who_slept_after_it_was_allowed_changes_nothing_of_the_successors(api, park, is_first):
    if not is_first:
        endpoint(api, "10.0.0.1").publish(yes)
    allowed = iter([True, True, False])

    def sleeps():
        if (may := next(allowed)) and addresses_or_none(park) != ["10.0.0.3"]:
            endpoint(api, "10.0.0.3").publish(yes)  # the successor, meanwhile
        return may

    old = endpoint(api, "10.0.0.1")
    assert not old.publish(sleeps)
    assert old.publish(lambda: False)
    assert addresses(park) == ["10.0.0.3"]


def addresses_or_none(park):
    return addresses(park) if park.get("endpointslices", "shisuan", "park") else None


@pytest.mark.parametrize("verb", ["get", "create"])
def test_a_server_in_trouble_is_asked_again_by_the_caller(api, park, verb):
    park.faults.add(Fault(verbs=(verb,), status=403))
    assert not endpoint(api, "10.0.0.1").publish(yes)
    park.faults.add(Fault(verbs=(verb,), loss=Loss.ANSWER))
    while not endpoint(api, "10.0.0.1").publish(yes):
        pass
    assert addresses(park) == ["10.0.0.1"]
