"""What tests of the lanes on a park on paper share."""

import itertools
import time

from tests.farm import lease

GPU = "nvidia.com/gpu"
numbers = itertools.count(1)


def slots(node, *which):
    return tuple(f"slot:{node}:{GPU}:{n}" for n in which)


def until(condition, what="it"):
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.002)
    return found


def objects(farm, plural):
    return {o["metadata"]["name"]: o for o in farm.park.double.objects(plural)}


def clusters(farm):
    return {name: o for name, o in objects(farm, "rayclusters").items() if not o["metadata"].get("ownerReferences")}


def train(*argv, **fields):
    """A gang of two ranks of the job lane."""
    return [
        lease(number, *argv, node=node, rank=rank, ranks=2, devices=slots(node, 0), lane="job", kind="train", **fields)
        for number in [next(numbers)]
        for rank, node in enumerate(("alpha", "beta"))
    ]
