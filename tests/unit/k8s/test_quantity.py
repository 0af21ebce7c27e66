import pytest

from k8s import quantity


@pytest.mark.parametrize(
    ("text", "cpu_milli", "mib", "whole_mib"),
    [
        ("1", 1_000, 1, 0),
        (2, 2_000, 1, 0),
        ("1500m", 1_500, 1, 0),
        ("0.1", 100, 1, 0),
        ("1u", 1, 1, 0),
        ("2Gi", 2 * 2**30 * 1_000, 2_048, 2_048),
        ("1e6", 10**9, 1, 0),
        ("3M", 3 * 10**9, 3, 2),
        ("1.5Ti", 3 * 2**39 * 1_000, 1_572_864, 1_572_864),
        ("1E", 10**21, 953_674_316_407, 953_674_316_406),
    ],
)
def test_quantities_are_exact(text, cpu_milli, mib, whole_mib):
    amount = quantity.nano(text)
    assert (quantity.milli(amount), quantity.mib(amount), quantity.whole_mib(amount)) == (cpu_milli, mib, whole_mib)


@pytest.mark.parametrize("text", ["", "x", "1Ki5", "1mi", "--1", None])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="not a quantity"):
        quantity.nano(text)
