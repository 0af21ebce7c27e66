"""Lists of conditions, as every controller keeps them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.kube.verbs import text_now

Condition = dict[str, str]


def with_condition(
    before: Sequence[Mapping[str, str]], kind: str, status: bool | str, reason: str, message: str = ""
) -> list[Condition]:
    """``before`` with this condition; its time is that of the last change of status."""
    text = status if isinstance(status, str) else str(status)
    made = {"type": kind, "status": text, "reason": reason, "message": message}
    old = next((dict(one) for one in before if one["type"] == kind), {})
    made["lastTransitionTime"] = old["lastTransitionTime"] if old.get("status") == text else text_now()
    if {key: old.get(key, "") for key in made} == made:
        return [dict(one) for one in before]
    return [*(dict(one) for one in before if one["type"] != kind), made]


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether a status has a condition that is true."""
    return any(one["type"] == kind and one["status"] == "True" for one in status.get("conditions") or ())
