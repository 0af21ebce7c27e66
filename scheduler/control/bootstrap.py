"""What every start makes sure of: the default queue and tenant, those of the configuration file, and first keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scheduler.control.cycle import Cycle, Decide
from scheduler.control.operations import Operations, check_queue, check_tenant
from scheduler.control.ports import KeyRing
from scheduler.control.settings import Home, Settings
from scheduler.control.tokens import write_private
from scheduler.engine import Engine
from scheduler.model.errors import InvalidInput, Problem
from scheduler.model.event import Event, QueueSet, TenantSet
from scheduler.model.key import Role
from scheduler.model.queue import Queue, Tenant

DEFAULT = "default"
MOST_BYTES = 1024 * 1024


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QueueConfig(_Strict):
    """A queue in the configuration file."""

    name: str
    parent: str = ""
    weight: int = 100


OWN_FOLDER = "own"
"""In ``roots``: the tenant's folder under the home. A folder really named so can be written ``./own``."""


class TenantConfig(_Strict):
    """A tenant in the configuration file. Without roots it gets a folder under the home.

    A relative root starts at the configuration file's folder.
    """

    name: str
    display_name: str = ""
    queues: list[str] = [DEFAULT]
    roots: list[str] = []


class Config(_Strict):
    """The file given by ``--config``."""

    queues: Annotated[list[QueueConfig], Field(default_factory=list)]
    tenants: Annotated[list[TenantConfig], Field(default_factory=list)]


def read_config(path: str) -> Config:
    """The configuration file. Raises InvalidInput with every mistake."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput([Problem("--config", f"cannot read {path}: {error.strerror}")]) from None
    if len(data) > MOST_BYTES:
        raise InvalidInput([Problem("--config", f"{path} is larger than 1 MiB")])
    try:
        return Config.model_validate(yaml.safe_load(data) or {})
    except yaml.YAMLError as error:
        raise InvalidInput([Problem("--config", f"{path} is not YAML: {' '.join(str(error).split())}")]) from None
    except ValidationError as error:
        raise InvalidInput(Problem(_pointer(e["loc"]), e["msg"]) for e in error.errors()) from None


def apply(settings: Settings, cycle: Cycle, operations: Operations, keys: KeyRing, home: Home) -> None:
    """Bring tenants and queues to what the settings say, then see that each has a key. Raises InvalidInput."""
    config = read_config(settings.config) if settings.config else Config(queues=[], tenants=[])
    queues = [Queue(name=q.name, parent=q.parent, weight=q.weight) for q in config.queues]
    if all(q.name != DEFAULT for q in queues):
        queues.insert(0, Queue(name=DEFAULT))
    tenants = [_tenant(t, Path(settings.config).absolute().parent, home) for t in config.tenants]
    if all(t.name != DEFAULT for t in tenants):
        tenants.insert(0, Tenant(name=DEFAULT, display_name="Default"))
    # Queues before tenants, so that a tenant may use a queue of the same file.
    for position, queue in enumerate(queues):
        cycle.call(_put_queue(queue, f"queues[{position}]."))
    for position, tenant in enumerate(tenants):
        cycle.call(_put_tenant(_rooted(tenant, settings, operations), f"tenants[{position}]."))
    _first_keys(keys, home, [t.name for t in tenants])


def _tenant(config: TenantConfig, folder: Path, home: Home) -> Tenant:
    return Tenant(
        name=config.name,
        display_name=config.display_name,
        queues=tuple(config.queues),
        storage_roots=tuple(_root(root, config.name, folder, home) for root in config.roots),
    )


def _root(root: str, tenant: str, folder: Path, home: Home) -> str:
    if "://" in root:
        return root
    if root != OWN_FOLDER:
        return str((folder / root).resolve())
    own = home.storage(tenant)
    own.mkdir(parents=True, exist_ok=True)
    return str(own.resolve())


def _rooted(tenant: Tenant, settings: Settings, operations: Operations) -> Tenant:
    """``default`` may also use the folders given by ``--root``."""
    made = operations.with_root(tenant)
    if made.name != DEFAULT:
        return made
    more = tuple(str(Path(root).resolve()) for root in settings.roots)
    return Tenant(
        name=made.name,
        display_name=made.display_name,
        queues=made.queues,
        storage_roots=tuple(dict.fromkeys((*made.storage_roots, *more))),
    )


def _put_queue(queue: Queue, pointer: str) -> Decide[None]:
    def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
        if queue in tuple(engine.queues()):
            return (), None
        check_queue(engine, queue, pointer)
        return (QueueSet(at_ms=now_ms, queue=queue),), None

    return decide


def _put_tenant(tenant: Tenant, pointer: str) -> Decide[None]:
    def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
        if tenant in tuple(engine.tenants()):
            return (), None
        check_tenant(engine, tenant, pointer)
        return (TenantSet(at_ms=now_ms, tenant=tenant),), None

    return decide


def _first_keys(keys: KeyRing, home: Home, tenants: Sequence[str]) -> None:
    """Written before it is told to anyone; a crash in between leaves an unused key, never a missing one."""
    if not home.key.exists():
        _, secret = keys.add_key(DEFAULT, Role.OPERATOR, label="first key of this installation")
        write_private(home.key, f"{secret}\n".encode())
    for tenant in tenants:
        path = home.keys / tenant
        if tenant != DEFAULT and not path.exists():
            _, secret = keys.add_key(tenant, Role.TENANT, label="from the configuration file")
            write_private(path, f"{secret}\n".encode())


def _pointer(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
