"""What a place costs, in parts of a card: the unit in which all criteria of a placement meet. Lower is better.

The cost of a shape on a node is the sum of

* what leases do not change (``static_cost``): engines and memory that the work does not need and others might, the
  time a slower card holds what it is given longer, and the price of a node on which something went wrong lately;
* a broken NVLink island, which costs more than all else together (``kernels.SPLIT``);
* what the node can then be expected to serve less than before, under the demand mix (``fragment.value``).

Equal costs go to the tighter place: an opened card for fractions, then the fewest suitable cards or thousandths left
over, then the least cpu and memory left over (their sum, not the larger of both: equal memories would hide a tighter
cpu). Hard conditions are no cost; they are in ``fit``.
"""

from __future__ import annotations

from scheduler.model.node import Device
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.cluster import NodeClass
from scheduler.placement.fit import Demand, Features, suitable
from scheduler.placement.kernels import MILLI_CARD

CARD = MILLI_CARD * WHOLE_CARD_MILLI
"""One card in the unit of all costs."""
ENGINES = ("nvenc", "rt")
"""Engines that only some cards have, and that only some work needs."""
ENGINE_PERMILLE = 100
"""Taking a card with an engine one does not need costs others a tenth of it, as long as nothing is known of them. The
demand mix says more: nodes that work which needs the engine could use lose value when it is taken away."""
MEMORY_PERMILLE, MEMORY_LEAST_MIB = 20, 12_288
"""Each doubling of a card's memory over what is asked (over 12 GiB when nothing is) costs a fiftieth of a card."""
SPEED_LEAST_MILLI = 50
"""A card slower than a twentieth of the fastest is counted as that."""


def static_cost(demand: Demand, kind: NodeClass, features: Features) -> int:
    """The part of the cost that only the class of the node decides. The caller knows that the class admits the shape.

    Work without cards pays one card on a node that has any: it goes there only when nothing else is left. A node's own
    price counts for it as for one card.
    """
    ask = demand.resources
    asked = ask.card_milli or ask.cards * WHOLE_CARD_MILLI
    if not asked:
        return (CARD if any(kind.leasable) else 0) + CARD * kind.price_permille // 1_000
    slots = zip(kind.kinds, kind.slots, kind.leasable, strict=True)
    alike = {number: device for number, device, is_free in slots if is_free}
    losses = (_lost_permille(demand, device, features) for device in suitable(alike.values(), ask, features))
    return min((asked * MILLI_CARD * (lost + kind.price_permille) // 1_000 for lost in losses), default=0)


def _lost_permille(demand: Demand, device: Device, features: Features) -> int:
    """What is lost per card of this kind, in thousandths of a card."""
    ask = demand.resources
    has, needs = features.get(device.model, frozenset()), ask.features
    idle = sum(_carries(has, engine) and not _carries(needs, engine) for engine in ENGINES)
    doublings = (device.memory_mib // max(ask.card_memory_mib, MEMORY_LEAST_MIB)).bit_length() - 1
    speed = max(dict(demand.speeds).get(device.model, 1_000), SPEED_LEAST_MILLI)
    return idle * ENGINE_PERMILLE + max(doublings, 0) * MEMORY_PERMILLE + (1_000 - speed) * 1_000 // speed


def _carries(features: frozenset[str] | tuple[str, ...], engine: str) -> bool:
    return any(feature.partition(":")[0] == engine for feature in features)
