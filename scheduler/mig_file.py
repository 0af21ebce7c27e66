"""Reads the MIG configurations that the GPU Operator gives its MIG manager: a ConfigMap with mig-parted's file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from k8s.api import Api
from k8s.errors import Absent, NotAllowed
from k8s.resource import CONFIG_MAPS
from scheduler.control import terms
from scheduler.control.lanes import MigConfigMapConfig, MigEntries, MigEntryConfig
from scheduler.model.errors import InvalidInput, Problem, unknown

AT = "kubernetes.mig_config_map"
VERSION = "v1"
"""Of mig-parted's file."""
_ENTRIES = TypeAdapter(MigEntries)


def read(api: Api, told: MigConfigMapConfig) -> dict[str, list[MigEntryConfig]]:
    """The configurations that ``told`` names. Raises InvalidInput for what is not there or cannot be understood, and
    KubernetesError when the API server does not answer.
    """
    where = f"ConfigMap {told.namespace}/{told.name}"
    try:
        data = api.get(CONFIG_MAPS, told.name, told.namespace).get("data") or {}
    except Absent:
        raise InvalidInput([Problem(AT, f"there is no {where}")]) from None
    except NotAllowed as error:
        raise InvalidInput([Problem(AT, f"the service may not read {where}: {error}")]) from None
    if told.key not in data:
        raise InvalidInput([unknown(f"{AT}.key", f"key of {where}", told.key, data)])
    known = _configs(data[told.key], f"{told.key} of {where}")
    missing = [(at, name) for at, name in enumerate(told.use) if name not in known]
    problems = [unknown(f"{AT}.use[{at}]", f"configuration of {where}", name, known) for at, name in missing]
    found: dict[str, list[MigEntryConfig]] = {}
    for name in (name for name in told.use if name in known):
        try:
            found[name] = _ENTRIES.validate_python(known[name])
        except ValidationError as error:
            at = f"{AT}.use[{told.use.index(name)}]"
            for problem in terms.problems_of(error):
                message = f"{where}: mig-configs.{name}{problem.pointer}: {problem.message}"
                problems.append(replace(problem, pointer=at, message=message))
    if problems:
        raise InvalidInput(problems)
    return found


def _configs(text: str, where: str) -> dict[str, Any]:
    """What the file has under ``mig-configs``, unread. Raises InvalidInput."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput([Problem(AT, f"{where} is not YAML: {' '.join(str(error).split())}")]) from None
    if not isinstance(document, dict) or not isinstance(document.get("mig-configs"), dict):
        raise InvalidInput([Problem(AT, f"{where} has no mig-configs")])
    if document.get("version") != VERSION:
        raise InvalidInput([Problem(AT, f"{where} is of version {document.get('version')!r}", (VERSION,))])
    return {str(name): entries for name, entries in document["mig-configs"].items()}
