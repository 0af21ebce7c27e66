"""What a server does with an object: create, replace, patch, apply, delete, evict, bind, scale."""

import copy
import json
import random
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tests.fakes.kube import kinds, managed, patches
from tests.fakes.kube.kinds import Kind
from tests.fakes.kube.refusal import Refusal
from tests.fakes.kube.schema import Findings
from tests.fakes.kube.selectors import look_up, selector_of
from tests.fakes.kube.storage import Storage, Stored

CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES = ("", "namespaces")
BUDGETS = ("policy", "poddisruptionbudgets")
APPLY, MERGE, JSON = "application/apply-patch+yaml", "application/merge-patch+json", "application/json-patch+json"
NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request on an object or a kind's objects."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    manager: str = "unknown"

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)

    @property
    def is_dry(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def details(self) -> dict[str, Any]:
        return {"name": self.name, "group": self.kind.group, "kind": self.kind.plural}

    @property
    def spoken(self) -> str:
        """As messages name the kind: ``rayjobs.ray.io "train"``."""
        plural = f"{self.kind.plural}.{self.kind.group}" if self.kind.group else self.kind.plural
        return f'{plural} "{self.name}"'


def text_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Verbs:
    """The verbs on one storage. Every method takes the storage's lock; they raise Refusal and change nothing then."""

    def __init__(self, storage: Storage, seed: int = 0) -> None:
        self.storage = storage
        self.schemas = kinds.schemas()
        self._dice = random.Random(seed)
        self.kinds: dict[tuple[str, str, str], Kind] = {}
        """By group, version and plural."""
        for kind in kinds.built_in():
            self._add(kind)

    def new_uid(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))

    def _add(self, kind: Kind) -> None:
        self.kinds[kind.group, kind.version, kind.plural] = kind

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, call: Call) -> Stored:
        """The stored object. Raises Refusal."""
        found = self.storage.get(call.kind.table, call.key)
        if found is None:
            raise Refusal(404, f"{call.spoken} not found", details=call.details)
        return found

    def shown(self, stored: Stored, kind: Kind) -> bytes:
        """As a version of the kind shows it."""
        if stored.obj.get("apiVersion") == kind.api_version:
            return stored.raw
        return json.dumps({**stored.obj, "apiVersion": kind.api_version}, separators=(",", ":")).encode()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, call: Call, body: dict[str, Any]) -> Stored:
        """A new object."""
        with self.storage.lock:
            if call.subresource:
                return self._create_below(call, body)
            meta = body.setdefault("metadata", {})
            if meta.get("resourceVersion"):
                raise Refusal(400, "resourceVersion should not be set on objects to be created")
            if not meta.get("name") and meta.get("generateName"):
                letters = "".join(self._dice.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
                meta["name"] = meta["generateName"] + letters
            call = self._named(call, meta.get("name", ""))
            obj = self._conformed(call, body)
            if self.storage.get(call.kind.table, call.key) is not None:
                raise Refusal(409, f"{call.spoken} already exists", reason="AlreadyExists", details=call.details)
            return self._create(call, obj, self._owned_by(call, "Update"))

    def _named(self, call: Call, name: str) -> Call:
        if not name:
            raise self._invalid(call, [("metadata.name", "Required value: name or generateName is required")])
        if call.kind.group not in kinds.FREE_NAMES and not NAME.fullmatch(name):
            message = f"Invalid value: {name!r}: a lowercase RFC 1123 subdomain must consist of lower case characters"
            raise self._invalid(call, [("metadata.name", message)])
        return replace(call, name=name)

    def _create(self, call: Call, obj: dict[str, Any], entry: managed.Entry) -> Stored:
        namespace = self.storage.get(NAMESPACES, ("", call.namespace))
        if call.kind.namespaced and namespace is None:
            raise Refusal(404, f'namespaces "{call.namespace}" not found', details={"kind": "namespaces"})
        if namespace is not None and "deletionTimestamp" in namespace.obj["metadata"]:
            raise Refusal(403, f"{call.spoken} is forbidden: namespace {call.namespace} is being terminated")
        if "status" in call.kind.subresources and call.kind.plural not in kinds.BORN_WITH_STATUS:
            obj.pop("status", None)
        obj = patches.merge_patch(kinds.INITIAL.get(call.kind.table, {}), obj)
        meta = {**obj["metadata"], "name": call.name, "uid": self.new_uid()}
        meta["creationTimestamp"] = text_now()
        if call.kind.namespaced:
            meta["namespace"] = call.namespace
        if call.kind.has_generation:
            meta["generation"] = 1
        meta.pop("managedFields", None)
        obj = {**obj, "metadata": meta}
        if entry.operation == "Apply":
            return self._store(call, managed.with_entries(obj, [entry]))
        return self._store(call, managed.update(None, obj, entry, call.kind.schema, self.schemas))

    def replace(self, call: Call, body: dict[str, Any]) -> Stored:
        """PUT: the object becomes ``body``, with its resourceVersion as precondition."""
        with self.storage.lock:
            if call.subresource == "scale":
                return self._rescale(call, look_up(body, "spec.replicas"), body.get("metadata", {}))
            live = self.get(call)
            meta = body.get("metadata", {})
            if meta.get("name", call.name) != call.name:
                raise Refusal(400, f"the name of the object ({meta['name']}) does not match the name on the URL")
            if call.kind.is_conditional and not meta.get("resourceVersion"):
                message = "Invalid value: 0x0: must be specified for an update"
                raise self._invalid(call, [("metadata.resourceVersion", message)])
            return self._update(call, live, body)

    def patch(self, call: Call, kind: str, patch: Any) -> Stored:
        """PATCH of one of three kinds; the fourth, strategic merge, is not here."""
        with self.storage.lock:
            if kind == APPLY:
                return self._apply(call, patch)
            change: dict[str, Callable[[Any, Any], Any]] = {MERGE: patches.merge_patch, JSON: patches.json_patch}
            if kind not in change:
                raise Refusal(
                    415, f"the body of the request was in an unknown format - accepted: {APPLY}, {MERGE}, {JSON}"
                )
            if call.subresource == "scale":
                scale = self.scale_of(call)
                changed = change[kind](scale, patch)
                return self._rescale(call, look_up(changed, "spec.replicas"), changed["metadata"])
            live = self.get(call)
            try:
                body = change[kind](live.obj, patch)
            except patches.Unprocessable as error:
                raise Refusal(422, str(error), details=call.details) from None
            return self._update(call, live, body)

    def _update(self, call: Call, live: Stored, body: dict[str, Any]) -> Stored:
        self._check_version(call, live, body.get("metadata", {}))
        obj = self._conformed(call, body)
        obj = self._kept(call, live.obj, obj)
        obj = managed.update(live.obj, obj, self._owned_by(call, "Update"), call.kind.schema, self.schemas)
        return self._write(call, live, obj)

    def _apply(self, call: Call, config: dict[str, Any]) -> Stored:
        if not call.query.get("fieldManager"):
            raise Refusal(400, "fieldManager is required for apply patch")
        meta = config.setdefault("metadata", {})
        if meta.get("managedFields"):
            raise Refusal(400, "metadata.managedFields must be nil")
        if (config.get("apiVersion"), config.get("kind")) != (call.kind.api_version, call.kind.name):
            raise Refusal(400, f"apiVersion and kind must be {call.kind.api_version} {call.kind.name}")
        self._check_declared(call, config)
        live = self.storage.get(call.kind.table, call.key)
        entry = self._owned_by(call, "Apply")
        if live is None:
            if meta.get("resourceVersion") or meta.get("uid"):
                raise Refusal(409, f"{call.spoken}: precondition failed: there is no such object", details=call.details)
            if call.subresource:
                raise Refusal(404, f"{call.spoken} not found", details=call.details)
            owned = frozenset(managed.fields(config, call.kind.schema, self.schemas))
            return self._create(call, self._conformed(call, config), replace(entry, paths=owned))
        self._check_version(call, live, meta)
        wanted = {k: v for k, v in config.items() if k == "status" or call.subresource != "status" or k != "spec"}
        if not call.subresource and "status" in call.kind.subresources:
            wanted.pop("status", None)
        force = call.query.get("force") == "true"
        try:
            obj = managed.apply(live.obj, wanted, entry, call.kind.schema, self.schemas, force=force)
        except managed.Conflict as conflict:
            causes = [
                ("FieldManagerConflict", path, f'conflict with "{owner}"')
                for owner, paths in conflict.owners.items()
                for path in paths
            ]
            raise Refusal(409, str(conflict), causes=causes, details=call.details) from None
        meta = {k: v for k, v in live.obj["metadata"].items() if k in managed.SERVERS and k != "managedFields"}
        obj = {**obj, "metadata": {**obj["metadata"], **meta}}
        obj = self._kept(call, live.obj, self._conformed(call, obj))
        return self._write(call, live, obj)

    def _check_declared(self, call: Call, config: dict[str, Any]) -> None:
        """Fields to be applied must be the kind's. Real servers answer 500 where they are not."""
        findings = Findings()
        self.schemas.conform(config, call.kind.schema, findings)
        said = [*findings.mistyped, *((path, "field not declared in schema") for path in findings.unknown)]
        if said:
            what = f"{call.namespace}/{call.name}; {call.kind.api_version}, Kind={call.kind.name}"
            path, why = said[0]
            raise Refusal(500, f"failed to create typed patch object ({what}): .{path}: {why}")

    def _kept(self, call: Call, live: Mapping[str, Any], obj: dict[str, Any]) -> dict[str, Any]:
        """``obj`` with what this way of writing may not change, as it was."""
        meta = {**obj.get("metadata", {})}
        before = live["metadata"]
        if call.subresource == "status":
            obj = {**live, **({"status": obj["status"]} if "status" in obj else {})}
            meta = {**before, "managedFields": meta.get("managedFields", before.get("managedFields", []))}
        elif "status" in call.kind.subresources:
            obj = {k: v for k, v in obj.items() if k != "status"}
            obj |= {"status": live["status"]} if "status" in live else {}
        fixed = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion")
        meta = {k: v for k, v in meta.items() if k not in fixed} | {k: before[k] for k in fixed if k in before}
        return {**obj, "apiVersion": call.kind.api_version, "kind": call.kind.name, "metadata": meta}

    def _write(self, call: Call, live: Stored, obj: dict[str, Any]) -> Stored:
        if content(obj, times=False) == content(live.obj, times=False):
            return live
        if call.kind.has_generation and specified(obj, call.kind) != specified(live.obj, call.kind):
            obj["metadata"]["generation"] = live.obj["metadata"].get("generation", 0) + 1
        is_over = "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers")
        if is_over and not call.is_dry and not self._lingers(call, obj):
            return self._remove(call, obj)
        return self._store(call, obj)

    def _store(self, call: Call, obj: dict[str, Any]) -> Stored:
        if call.is_dry:
            made = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.storage.version)}}
            return Stored(made, json.dumps(made).encode(), self.storage.version)
        if call.kind.table == CRDS:
            obj = self._established(obj)
        stored = self.storage.write(call.kind.table, call.key, obj)
        if call.kind.table == CRDS:
            for kind in kinds.custom(obj):
                self._add(kind)
        self._collect_orphan(call, stored)
        return stored

    @staticmethod
    def _established(obj: dict[str, Any]) -> dict[str, Any]:
        conditions = [
            {"type": t, "status": "True", "reason": "Double", "message": ""} for t in ("NamesAccepted", "Established")
        ]
        names = obj["spec"]["names"]
        return {**obj, "status": {**obj.get("status", {}), "conditions": conditions, "acceptedNames": names}}

    # ── deleting ─────────────────────────────────────────────────────────────────────────────────────────────────

    def delete(self, call: Call, options: Mapping[str, Any]) -> tuple[Stored, bool]:
        """The object, and whether it is gone at once."""
        with self.storage.lock:
            live = self.get(call)
            self._check_preconditions(call, live, options.get("preconditions") or {})
            if call.is_dry:
                return live, True
            policy = options.get("propagationPolicy") or call.query.get("propagationPolicy", "Background")
            grace = options.get("gracePeriodSeconds", call.query.get("gracePeriodSeconds"))
            meta = {**live.obj["metadata"]}
            finalizers = list(meta.get("finalizers", ()))
            finalizers += {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, [])
            if finalizers:
                meta["finalizers"] = finalizers
            obj = {**live.obj, "metadata": meta}
            is_graceful = self._lingers(call, obj) and (grace is None or int(grace) > 0)
            if finalizers or is_graceful:
                return self._marked(call, obj, grace), False
            return self._remove(call, obj), True

    def vanish(self, call: Call) -> None:
        """The object is gone at once, whatever it waited for."""
        with self.storage.lock:
            self._remove(call, self.get(call).obj)

    def _marked(self, call: Call, obj: dict[str, Any], grace: Any) -> Stored:
        meta = obj["metadata"]
        if "deletionTimestamp" not in meta:
            default_s = (
                look_up(obj, "spec.terminationGracePeriodSeconds") or 30 if call.kind.plural in kinds.GRACEFUL else 0
            )
            meta |= {"deletionTimestamp": text_now()}
            meta |= {"deletionGracePeriodSeconds": int(grace) if grace is not None else default_s}
            if call.kind.has_generation:
                meta["generation"] = meta.get("generation", 0) + 1
        live = self.get(call)
        stored = live if content(obj) == content(live.obj) else self.storage.write(call.kind.table, call.key, obj)
        return self._finalized(call, stored)

    def _finalized(self, call: Call, stored: Stored) -> Stored:
        """What the garbage collector does for an object that waits for it."""
        obj = copy.deepcopy(dict(stored.obj))
        meta = obj["metadata"]
        for mine, delete in ((FOREGROUND, True), (ORPHAN, False)):
            if mine in meta.get("finalizers", ()):
                self._release(meta["uid"], delete=delete)
                blocking = [b for b in self.storage.owned[meta["uid"]] if delete and self.storage.get(*b) is not None]
                if not blocking:
                    meta["finalizers"] = [f for f in meta["finalizers"] if f != mine]
        if not meta.get("finalizers"):
            meta.pop("finalizers", None)
        if obj["metadata"] == stored.obj["metadata"]:
            return stored
        if "finalizers" in meta or self._lingers(call, obj):
            return self.storage.write(call.kind.table, call.key, obj)
        return self._remove(call, obj)

    @staticmethod
    def _lingers(call: Call, obj: Mapping[str, Any]) -> bool:
        """A pod on a node stays until its kubelet has ended it."""
        return (
            call.kind.table == ("", "pods")
            and bool(look_up(obj, "spec.nodeName"))
            and look_up(obj, "status.phase") not in ("Succeeded", "Failed")
        )

    def _remove(self, call: Call, obj: Mapping[str, Any]) -> Stored:
        gone = self.storage.write(call.kind.table, call.key, None)
        if call.kind.table == CRDS:
            for kind in kinds.custom(gone.obj):
                self.kinds.pop((kind.group, kind.version, kind.plural), None)
                self.storage.drop_table(kind.table)
        if call.kind.table == NAMESPACES:
            for table in {kind.table for kind in self.kinds.values() if kind.namespaced}:
                for key in [k for k in self.storage.table(table).ordered() if k[0] == call.name]:
                    self._delete_now(table, key)
        self._release(obj["metadata"]["uid"], delete=True)
        for owner in obj["metadata"].get("ownerReferences") or ():
            self._waits_no_more(owner["uid"])
        return gone

    def _waits_no_more(self, uid: str) -> None:
        """An owner that is deleted in the foreground goes with the last of its dependents."""
        table, key = self.storage.uids.get(uid, (None, None))
        owner = self.storage.get(table, key) if table is not None else None
        if owner is not None and FOREGROUND in owner.obj["metadata"].get("finalizers", ()):
            self._finalized(self._call_on(table, key), owner)

    def _release(self, uid: str, *, delete: bool) -> None:
        """Dependents of an owner that goes: those without another living owner go too, or all stay without it."""
        for table, key in sorted(self.storage.owned[uid]):
            stored = self.storage.get(table, key)
            if stored is None:
                continue
            left = [o for o in stored.obj["metadata"]["ownerReferences"] if o["uid"] != uid]
            if delete and not any(o["uid"] in self.storage.uids for o in left):
                self._delete_now(table, key)
            else:
                meta = {**stored.obj["metadata"], "ownerReferences": left}
                self.storage.write(table, key, {**stored.obj, "metadata": meta})
        if not self.storage.owned[uid]:
            del self.storage.owned[uid]

    def _collect_orphan(self, call: Call, stored: Stored) -> None:
        owners = stored.obj["metadata"].get("ownerReferences") or ()
        if owners and not any(o["uid"] in self.storage.uids for o in owners):
            self._delete_now(call.kind.table, call.key)

    def _delete_now(self, table: tuple[str, str], key: tuple[str, str]) -> None:
        self.delete(self._call_on(table, key), {})

    def _call_on(self, table: tuple[str, str], key: tuple[str, str]) -> Call:
        kind = next(k for k in self.kinds.values() if k.table == table)
        return Call(kind=kind, namespace=key[0], name=key[1])

    # ── subresources ─────────────────────────────────────────────────────────────────────────────────────────────

    def _create_below(self, call: Call, body: dict[str, Any]) -> Stored:
        live = self.get(call)
        if call.subresource == "eviction":
            if look_up(live.obj, "status.phase") == "Running":
                self._spend_budget(call, live)
            return self.delete(call, body.get("deleteOptions") or {})[0]
        if call.subresource == "binding":
            if look_up(live.obj, "spec.nodeName"):
                raise Refusal(409, f"{call.spoken}: pod is already assigned to node", details=call.details)
            obj = patches.merge_patch(live.obj, {"spec": {"nodeName": look_up(body, "target.name")}})
            return self._store(call, obj)
        raise Refusal(405, f"the server does not allow this method on {call.kind.plural}/{call.subresource}")

    def _spend_budget(self, call: Call, pod: Stored) -> None:
        table = self.storage.table(BUDGETS)
        for key in [k for k in table.ordered() if k[0] == call.namespace]:
            budget = table.objects[key]
            if not selector_of(look_up(budget.obj, "spec.selector"))(pod.obj):
                continue
            allowed = look_up(budget.obj, "status.disruptionsAllowed") or 0
            if allowed <= 0:
                cause = ("DisruptionBudget", "", f"The disruption budget {key[1]} needs more healthy pods")
                message = "Cannot evict pod as it would violate the pod's disruption budget."
                raise Refusal(429, message, causes=[cause])
            if not call.is_dry:
                left = patches.merge_patch(budget.obj, {"status": {"disruptionsAllowed": allowed - 1}})
                self.storage.write(BUDGETS, key, left)

    def scale_of(self, call: Call) -> dict[str, Any]:
        """The Scale of an object."""
        live = self.get(call)
        wanted, present, selector = call.kind.scale
        meta = {k: v for k, v in live.obj["metadata"].items() if k in ("name", "namespace", "uid", "creationTimestamp")}
        text = look_up(live.obj, selector) if selector else ""
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {**meta, "resourceVersion": str(live.version)},
            "spec": {"replicas": look_up(live.obj, wanted) or 0},
            "status": {"replicas": look_up(live.obj, present) or 0, **({"selector": text} if text else {})},
        }

    def _rescale(self, call: Call, replicas: Any, meta: Mapping[str, Any]) -> Stored:
        if not isinstance(replicas, int) or replicas < 0:
            raise self._invalid(call, [("spec.replicas", "must be greater than or equal to 0")])
        live = self.get(call)
        self._check_version(call, live, meta)
        change: dict[str, Any] = {}
        below = change
        *way, last = call.kind.scale[0].split(".")
        for step in way:
            below = below.setdefault(step, {})
        below[last] = replicas
        obj = patches.merge_patch(live.obj, change)
        obj = managed.update(live.obj, obj, self._owned_by(call, "Update"), call.kind.schema, self.schemas)
        return self._write(call, live, obj)

    # ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _check_preconditions(call: Call, live: Stored, wanted: Mapping[str, str]) -> None:
        for what, is_now in (("uid", live.obj["metadata"]["uid"]), ("resourceVersion", str(live.version))):
            if what in wanted and wanted[what] != is_now:
                name = {"uid": "UID", "resourceVersion": "ResourceVersion"}[what]
                said = f"Precondition failed: {name} in precondition: {wanted[what]}, {name} in object meta: {is_now}"
                message = f"Operation cannot be fulfilled on {call.spoken}: {said}"
                raise Refusal(409, message, details=call.details)

    def _check_version(self, call: Call, live: Stored, meta: Mapping[str, Any]) -> None:
        if meta.get("resourceVersion") not in (None, "", str(live.version)):
            message = "the object has been modified; please apply your changes to the latest version and try again"
            raise Refusal(409, f"Operation cannot be fulfilled on {call.spoken}: {message}", details=call.details)
        if meta.get("uid", live.obj["metadata"]["uid"]) != live.obj["metadata"]["uid"]:
            raise self._invalid(call, [("metadata.uid", f'Invalid value: "{meta["uid"]}": field is immutable')])

    def _conformed(self, call: Call, body: dict[str, Any]) -> dict[str, Any]:
        for what, is_now in (("apiVersion", call.kind.api_version), ("kind", call.kind.name)):
            if body.get(what, is_now) != is_now:
                raise Refusal(400, f"{what} {body[what]!r} does not match the expected {is_now!r}")
        body = {**body, "apiVersion": call.kind.api_version, "kind": call.kind.name}
        body["metadata"] = body.get("metadata") or {}
        findings = Findings()
        lenient = "" if call.kind.custom else "status"
        obj = self.schemas.conform(body, call.kind.schema, findings, lenient=lenient)
        if findings.unknown and call.query.get("fieldValidation") == "Strict":
            unknown = ", ".join(f'unknown field "{path}"' for path in findings.unknown)
            raise Refusal(400, f"strict decoding error: {unknown}")
        if findings.mistyped and not call.kind.custom:
            path, said = findings.mistyped[0]
            raise Refusal(400, f"{call.kind.name} in version {call.kind.version!r} cannot be handled: {path} {said}")
        if findings.mistyped or findings.invalid:
            raise self._invalid(call, [*findings.mistyped, *findings.invalid])
        namespace = obj["metadata"].get("namespace", call.namespace)
        if namespace != call.namespace:
            raise Refusal(400, f"the namespace of the object ({namespace}) does not match the namespace on the request")
        return obj

    def _invalid(self, call: Call, found: list[tuple[str, str]]) -> Refusal:
        causes = [("FieldValueInvalid", path, said) for path, said in found]
        told = ", ".join(f"{path}: {said}" for path, said in found)
        return Refusal(422, f'{call.kind.name} "{call.name}" is invalid: {told}', causes=causes, details=call.details)

    @staticmethod
    def _owned_by(call: Call, operation: str) -> managed.Entry:
        return managed.Entry(
            manager=call.manager,
            operation=operation,
            api_version=call.kind.api_version,
            subresource=call.subresource,
            time=text_now(),
            paths=frozenset(),
        )


def content(obj: Mapping[str, Any], *, times: bool = True) -> Any:
    """The object without its version and (not ``times``) without the times at which fields were set."""
    meta = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    if not times and "managedFields" in meta:
        meta["managedFields"] = [{k: v for k, v in e.items() if k != "time"} for e in meta["managedFields"]]
    return {**obj, "metadata": meta}


def specified(obj: Mapping[str, Any], kind: Kind) -> Any:
    """What its generation counts changes of."""
    return {k: v for k, v in obj.items() if k not in ("metadata", "status")} if kind.custom else obj.get("spec")
