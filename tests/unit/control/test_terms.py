"""The configuration file's money: what is documented and shipped is accepted, amounts and instants are exact."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scheduler.control import terms
from scheduler.control.bootstrap import Config, read_config
from scheduler.model.money import ANY_MODEL, PolicyStatus, yuan
from scheduler.model.usage import Sku

ROOT = Path(__file__).parents[3]


def test_the_documented_sections_are_accepted():
    guide = (ROOT / "docs" / "operating.md").read_text("utf-8")
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "rates:" in text]
    config = Config.model_validate(yaml.load(block, terms.Loader))
    assert config.rates[0].card().prices[0].hourly_micro_yuan == 14_000_000
    assert config.policies[0].version().ratio_bp == 3_000
    assert config.policies[0].version().truncation_micro_yuan == 10_000
    assert config.vouchers[0].voucher().policy == config.policies[0].id


def test_the_example_file_is_marked_as_one_and_its_draft_never_pays():
    config = read_config(str(ROOT / "examples" / "config" / "park.yaml"))
    assert all(rate.example for rate in config.rates)
    assert all(policy.example for policy in config.policies)
    drafts = [p for p in config.policies if p.id.startswith("guizhou")]
    assert [p.status for p in drafts] == [PolicyStatus.DRAFT]
    assert {v.policy for v in config.vouchers}.isdisjoint(p.id for p in drafts)


def test_the_shipped_prices_are_an_example_with_a_fallback():
    card = terms.example_card()
    assert card.is_example
    assert {(Sku.CARD, ANY_MODEL), (Sku.MIG, ANY_MODEL), (Sku.VCPU, ""), (Sku.MEMORY, "")} <= {
        (price.sku, price.model) for price in card.prices
    }


@given(st.integers(0, 10**18))
def test_an_amount_survives_being_written_and_read(micro):
    assert terms.micro_yuan(yuan(micro)) == micro


def test_decimals_of_a_file_never_become_binary_floats():
    found = yaml.load("a: 0.1\nb: 1e-6\nc: 123456789.123456\nd: .nan", terms.Loader)
    assert [terms.micro_yuan(found[k]) for k in "abc"] == [100_000, 1, 123_456_789_123_456]
    with pytest.raises(ValueError, match="is not an amount"):
        terms.micro_yuan(found["d"])


@pytest.mark.parametrize("value", [True, 0.5, None, [1], "1,000", "-1", "1e30", "Infinity"])
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(ValueError, match=r"amount|decimals|must be 0"):
        terms.micro_yuan(value)


MIDNIGHT_MS = 1_767_196_800_000  # 2026-01-01T00:00+08:00


@pytest.mark.parametrize(
    "value",
    ["2026-01-01", date(2026, 1, 1), "2026-01-01T00:00:00", datetime(2025, 12, 31, 16, tzinfo=UTC),
     datetime.fromisoformat("2026-01-01T00:00:00")],
)  # fmt: skip
def test_a_date_is_midnight_in_china(value):
    assert terms.instant_ms(value) == MIDNIGHT_MS


def test_until_a_date_means_to_the_end_of_that_day():
    assert terms.until_ms("2025-12-31") == MIDNIGHT_MS
    assert terms.until_ms("2026-01-01T00:00:00") == MIDNIGHT_MS


@pytest.mark.parametrize("value", ["", "2026", "2026-02-30", "tomorrow", 20260101, None, "9999-12-31", "0001-01-01"])
def test_what_is_no_date_is_refused(value):
    with pytest.raises(ValueError, match="is not a date"):
        terms.instant_ms(value)


@pytest.mark.parametrize(("text", "bp"), [("30%", 3_000), ("100%", 10_000), ("12.5 %", 1_250), ("0.01%", 1)])
def test_shares(text, bp):
    assert terms.basis_points(text) == bp


@pytest.mark.parametrize("text", ["30", "0%", "101%", "0.001%", "half", "NaN%", 0.3])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="is not a share"):
        terms.basis_points(text)
