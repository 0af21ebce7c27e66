import pytest

from scheduler.model.catalogue import BY_ID
from scheduler.placement.mig import Instance, Recut, place, recut, starts

H100, A30, PRO = BY_ID["H100-SXM-80GB"], BY_ID["A30"], BY_ID["RTX-PRO-6000-Server"]


def at(profile, start, is_idle=True):
    return Instance(profile=profile, start=start, is_idle=is_idle)


@pytest.mark.parametrize(
    ("board", "profile", "expected"),
    [
        (H100, "1g.10gb", (0, 1, 2, 3, 4, 5, 6)),
        (H100, "1g.10gb+me", (0, 1, 2, 3, 4, 5, 6)),
        (H100, "1g.20gb", (0, 2, 4, 6)),
        (H100, "2g.20gb", (0, 2, 4)),
        (H100, "3g.40gb", (0, 4)),
        (H100, "4g.40gb", (0,)),
        (H100, "7g.80gb", (0,)),
        (A30, "2g.12gb", (0, 2)),
        (PRO, "2g.48gb+gfx", (0, 2)),
    ],
)
def test_starts_are_those_of_the_driver(board, profile, expected):
    assert starts(board, profile) == expected


def fill(board, *profiles):
    instances = []
    for profile in profiles:
        start = place(board, instances, profile)
        if start is None:
            return None
        instances.append(at(profile, start))
    return instances


@pytest.mark.parametrize("board", [b for b in BY_ID.values() if b.mig], ids=lambda b: b.id)
def test_as_many_of_a_profile_as_the_catalogue_says_and_no_more(board):
    for profile in board.mig:
        assert fill(board, *[profile.name] * profile.most)
        assert fill(board, *[profile.name] * (profile.most + 1)) is None


@pytest.mark.parametrize(
    ("profiles", "fits"),
    [
        (("4g.40gb", "3g.40gb"), True),
        (("3g.40gb", "3g.40gb", "1g.10gb"), False),
        (("3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"), True),
        (("1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb"), False),
        (("7g.80gb", "1g.10gb"), False),
        (("1g.10gb+me", "1g.10gb+me"), False),
    ],
)
def test_what_lies_together_on_a_card(profiles, fits):
    assert (fill(H100, *profiles) is not None) == fits


def test_the_cheapest_cut_destroys_least_and_only_what_is_idle():
    cut = [at("3g.40gb", 4, is_idle=False), at("2g.20gb", 0), at("1g.10gb", 2), at("1g.10gb", 3)]
    assert recut(H100, cut, "1g.20gb") == Recut(destroy=(cut[1],), create=at("1g.20gb", 0), slices_lost=2)
    assert recut(H100, cut, "3g.40gb") == Recut(destroy=tuple(cut[1:]), create=at("3g.40gb", 0), slices_lost=4)
    assert recut(H100, cut, "7g.80gb") is None
    assert recut(H100, [], "7g.80gb") == Recut(destroy=(), create=at("7g.80gb", 0), slices_lost=0)
