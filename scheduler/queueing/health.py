"""How much went wrong on a node lately, by its own fault.

What counts is what a job cannot have done: the node was lost, one of its cards was put into quarantine, or a task
failed here that then succeeded elsewhere. A task that fails everywhere counts against its job alone.

Faults are forgotten by halves, because machines that failed are likelier to fail again, and the less so the longer they
have not (decreasing hazard: B. Schroeder, G. A. Gibson, "A large-scale study of failures in high-performance computing
systems", DSN 2006, where Weibull shapes of 0.7 to 0.8 fit). ``F(t) = F(t0) * 2 ** (-(t - t0) / half-life)``, on
integers: exact at whole half-lives and straight lines between them, at most 6.2 % too high.
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.model.node import Node
from scheduler.model.policy import HEALTH_HALF_LIFE_MS

FAULT_MILLI = 1_000
"""One fault."""
STEP_PERMILLE, MOST_PERMILLE = 25, 500
"""Prices move in steps, so that nodes with a past fall into few classes, and are half of what is asked at most."""


def faults_milli(node: Node, at_ms: int) -> int:
    """What counts of the node's faults at an instant; an earlier one than the last fault's changes nothing."""
    halvings, rest_ms = divmod(max(at_ms - node.faults_ms, 0), HEALTH_HALF_LIFE_MS)
    left = node.faults_milli >> halvings
    return left - left * rest_ms // (2 * HEALTH_HALF_LIFE_MS)


def with_fault(node: Node, reason: str, at_ms: int) -> Node:
    """The node after one more fault."""
    at_ms = max(at_ms, node.faults_ms)
    return replace(node, faults_milli=faults_milli(node, at_ms) + FAULT_MILLI, faults_ms=at_ms, fault_reason=reason)


def price_permille(node: Node, at_ms: int, fault_permille: int) -> int:
    """By how much dearer the node is, in thousandths of the cards that work on it asks for; 0 for a healthy one.

    ``fault_permille``: for one whole fault.
    """
    price = faults_milli(node, at_ms) * fault_permille // FAULT_MILLI
    return min(price // STEP_PERMILLE * STEP_PERMILLE, MOST_PERMILLE)
