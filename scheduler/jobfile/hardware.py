"""The resources a file asks for, as the model's Resources."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from scheduler.jobfile import jobfields
from scheduler.jobfile.quantity import Cards, Malformed
from scheduler.model import catalogue
from scheduler.model.job import Resources

MEDIA_MEMORY_MIB = 2_048
"""Blender and ffmpeg: what a small scene, or a 4K encode, takes."""


def matching(name: str, models: Collection[str]) -> tuple[str, ...]:
    """Catalogue ids that ``name`` means (``catalogue.resolve_alias``). Raises Malformed, listing all, if none does."""
    found = catalogue.resolve_alias(name, models)
    if found:
        return found
    families = {model.split("-")[0] for model in models}
    by_lower = {known.lower(): known for known in (*sorted(families), *models)}
    close = get_close_matches(name.lower(), list(by_lower), n=1)
    raise Malformed(f"unknown card model {name!r}", tuple(sorted(models)), by_lower[close[0]] if close else "")


def resources(
    wish: jobfields.Resources, *, models: Collection[str], has_cards: bool, memory_mib: int, with_cards: bool = True
) -> Resources:
    """What one task holds. Raises Malformed for a card model or a MIG profile the catalogue does not have.

    ``has_cards`` decides what ``accelerators: auto`` means; ``with_cards`` False leaves cards and
    licences out (scene building).
    """
    cards = (wish.accelerators if with_cards else None) or Cards()
    if cards.auto and not has_cards:
        cards = Cards()
    chosen = tuple(dict.fromkeys(model for name in cards.models for model in _known(name, models)))
    _check_profile(cards.mig_profile if models else "")
    wanted = bool(cards.count or cards.milli)
    return Resources(
        cpu_milli=wish.cpus or 1_000,
        memory_mib=wish.memory or memory_mib,
        scratch_mib=wish.scratch or 0,
        cards=cards.count,
        card_milli=cards.milli,
        card_models=tuple(sorted(chosen)),
        card_memory_mib=(wish.accelerator_memory or 0) if wanted else 0,
        mig_profile=cards.mig_profile,
        features=tuple(sorted(wish.features)) if wanted else (),
        labels=tuple(sorted(wish.labels.items())),
        tolerations=tuple(sorted(wish.tolerations)),
        same_island=wish.same_island and cards.count > 1,
        licences=tuple(sorted((wish.licences or {}).items())) if with_cards else (),
    )


def _check_profile(profile: str) -> None:
    valid = catalogue.mig_profiles()
    if profile and profile not in valid:
        close = get_close_matches(profile, valid, n=1)
        raise Malformed(f"no card can be cut into MIG instances {profile!r}", valid, close[0] if close else "")


def _known(name: str, models: Collection[str]) -> tuple[str, ...]:
    """Without a catalogue every name is taken as it is."""
    return matching(name, models) if models else (name,)
