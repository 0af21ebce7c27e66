"""Faults of nodes are added up and forgotten by halves."""

from dataclasses import replace

import pytest

from scheduler.model.policy import HEALTH_HALF_LIFE_MS as HALF
from scheduler.queueing.health import MOST_PERMILLE, faults_milli, price_permille, with_fault
from tests.builders import a_node

NODE = a_node("n1")


@pytest.mark.parametrize(
    ("after_ms", "left"),
    [(-5, 1_000), (0, 1_000), (HALF // 2, 750), (HALF, 500), (2 * HALF, 250), (9 * HALF, 1), (10 * HALF, 0)],
)
def test_a_fault_is_forgotten_by_halves(after_ms, left):
    node = with_fault(NODE, "lost", 1_000_000)
    assert faults_milli(node, 1_000_000 + after_ms) == left


def test_it_is_never_far_from_the_exact_power():
    node = replace(NODE, faults_milli=1_000_000)
    for at in range(0, 3 * HALF, HALF // 37):
        exact = 1_000_000 * 2 ** (-at / HALF)
        assert exact - 2 <= faults_milli(node, at) <= exact * 1.062


def test_faults_add_up_and_the_latest_is_named():
    node = with_fault(with_fault(NODE, "lost", 0), "card 0 was quarantined", HALF)
    assert (node.faults_milli, node.faults_ms, node.fault_reason) == (1_500, HALF, "card 0 was quarantined")
    late = with_fault(node, "an older fact that comes later", 5)
    assert (late.faults_milli, late.faults_ms) == (2_500, HALF)


def test_the_price_is_exactly_nothing_for_a_healthy_node_and_bounded_for_a_sick_one():
    assert price_permille(NODE, 10**12, 50) == 0
    node = with_fault(NODE, "lost", 0)
    assert [price_permille(node, at, 50) for at in (0, HALF // 3, HALF, 2 * HALF)] == [50, 25, 25, 0]
    assert price_permille(node, 0, 0) == 0
    assert price_permille(replace(NODE, faults_milli=10**9), 0, 50) == MOST_PERMILLE
