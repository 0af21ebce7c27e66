"""Label and field selectors, as predicates."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Predicate = Callable[[Mapping[str, Any]], bool]
_PARTS = re.compile(r"[^,(]+(?:\([^)]*\))?")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)")
_EQUAL = re.compile(r"(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)")
_HAS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s=!(),]+)")


class Malformed(Exception):
    """The selector cannot be read, or names a field that cannot be selected by."""


def look_up(obj: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def label_selector(text: str) -> Predicate:
    """As ``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Raises Malformed."""
    tests = [_label_test(part.strip()) for part in _PARTS.findall(text) if part.strip()]

    def matches(obj: Mapping[str, Any]) -> bool:
        labels = obj.get("metadata", {}).get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _label_test(part: str) -> Predicate:
    if found := _SET.fullmatch(part):
        key, values = found["key"], {v.strip() for v in found["values"].split(",")}
        wanted = found["op"] == "in"
        return lambda labels: (labels.get(key) in values) == wanted
    if found := _EQUAL.fullmatch(part):
        key, value, wanted = found["key"], found["value"], found["op"] != "!="
        return lambda labels: (labels.get(key) == value) == wanted
    if found := _HAS.fullmatch(part):
        key, wanted = found["key"], not found["no"]
        return lambda labels: (key in labels) == wanted
    raise Malformed(f"unable to parse requirement: {part!r}")


def field_selector(text: str, fields: Iterable[str]) -> Predicate:
    """As ``spec.nodeName=n1,status.phase!=Failed``. Raises Malformed for what ``fields`` does not name."""
    allowed = {"metadata.name", "metadata.namespace", *fields}
    tests = list(_field_tests(text, allowed))
    return lambda obj: all((_told(look_up(obj, key)) == value) == wanted for key, value, wanted in tests)


def _field_tests(text: str, allowed: set[str]) -> Iterator[tuple[str, str, bool]]:
    for part in filter(None, (p.strip() for p in text.split(","))):
        found = _EQUAL.fullmatch(part)
        if found is None:
            raise Malformed(f"invalid field selector: {part!r}")
        if found["key"] not in allowed:
            raise Malformed(f"field label not supported: {found['key']}")
        yield found["key"], found["value"], found["op"] != "!="


def _told(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def selector_of(spec: Mapping[str, Any] | None) -> Predicate:
    """A LabelSelector object (of a PodDisruptionBudget): ``matchLabels`` and ``matchExpressions``."""
    spec = spec or {}
    parts = [f"{k}={v}" for k, v in spec.get("matchLabels", {}).items()]
    forms = {
        "In": "{key} in ({values})",
        "NotIn": "{key} notin ({values})",
        "Exists": "{key}",
        "DoesNotExist": "!{key}",
    }
    parts += (
        forms[e["operator"]].format(key=e["key"], values=",".join(e.get("values", ())))
        for e in spec.get("matchExpressions", ())
    )
    return label_selector(",".join(parts))
