"""What the money verbs ask of the API, and what they show."""

import json

import pytest

from scheduler.model.event import PolicySet, RateCardSet, UsageSealed, VoucherGranted
from scheduler.model.money import Limit
from scheduler.report import money as told
from scheduler.store import open_store
from tests.money import START_MS, card, policy, usage, voucher
from tests.unit.cli.conftest import error, job

PART = {
    "voucher": "v-a", "policy": "p1", "owner": "贵阳市大数据局", "payout": "deduct", "micro_yuan": 4_200_000,
    "limit": "ratio",
}  # fmt: skip
ROW = {
    "job_id": "j17", "job_name": "film", "step": "render", "sku": "card", "model": "H100-SXM-80GB", "rate": "r1",
    "fallback": False, "hourly_micro_yuan": 14_000_000, "free": "", "tax": "it-6", "lines": 3, "held_ms": 3_600_000,
    "amount": 3_600_000_000, "gross_micro_yuan": 14_000_000, "subsidies": [PART], "limit": "ratio", "limit_note": "",
    "passed_over": {"p2": 2_800_000}, "due_micro_yuan": 9_800_000, "reversal": False, "ledger_seq": [7, 9],
}  # fmt: skip
FREE = ROW | {
    "free": "lost", "gross_micro_yuan": 0, "due_micro_yuan": 0, "subsidies": [], "passed_over": {}, "limit": "free",
}  # fmt: skip
LINE = {
    "usage_id": "l1:5:held_charged", "lease_id": "l1", "start_ms": 1_800_000_000_000, "end_ms": 1_800_003_600_000,
    "corrects": "", "note": "", **ROW, "ledger_seq": 7,
}  # fmt: skip
STATEMENT = {
    "tenant": "studio", "start_ms": 0, "end_ms": 0, "job_id": "", "gross_micro_yuan": 14_000_000,
    "deducted_micro_yuan": 4_200_000, "granted_micro_yuan": 0, "due_micro_yuan": 9_804_667, "due_fen": 980,
    "rounding_micro_yuan": -4_667, "example": True, "rows": [ROW, FREE], "lines": [],
}  # fmt: skip


def answer(**more):
    return {"ledger_seq": 9, "ledger_hash": "ab" * 32, "statements": [STATEMENT | more]}


def test_a_statement_shows_each_amount_with_its_reason(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    api.answers["GET /statement"] = answer()
    result = shisuan("statement", "--month", "2026-11")
    assert result.code == 0
    assert api.asked[-1][2] == {"month": "2026-11"}
    for words in (
        "studio, 2026-11", "EXAMPLE PRICES", "j17 film", "H100-SXM-80GB card-hours", "1.000000", "14.00", "9.80",
        "v-a (p1, 贵阳市大数据局) pays 4.20", "p2 would have paid 2.80: never both", "free: the park lost it",
        "9.804667", "-0.004667", "9.80 yuan", "up to transaction 9",
    ):  # fmt: skip
        assert words in result.out, words


def test_every_line_names_its_record_and_its_place_in_the_ledger(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    api.answers["GET /statement"] = answer(lines=[LINE], job_id="j17")
    result = shisuan("statement", "--job", "j17", "--lines")
    assert api.asked[-1][2] == {"job": "j17", "lines": "true"}
    for words in ("studio, job j17", "l1:5:held_charged", "2027-01-15 16:00:00", "r1"):
        assert words in result.out, words


def test_a_refund_and_an_empty_month(shisuan, api):
    back = ROW | {"reversal": True, "amount": -3_600_000_000, "gross_micro_yuan": -14_000_000, "subsidies": []}
    api.answers["GET /statement"] = answer(rows=[back], due_fen=-5)
    result = shisuan("statement")
    assert "-1.000000" in result.out
    assert "-0.05 yuan" in result.out
    api.answers["GET /statement"] = answer(rows=[])
    assert "Nothing was booked in this time." in shisuan("statement").out


@pytest.mark.parametrize("limit", Limit)
def test_every_reason_is_a_sentence(limit):
    row = ROW | {"subsidies": [], "passed_over": {}, "limit": limit.value, "limit_note": "p1"}
    assert "{" not in " ".join(told.why(row))
    assert limit.value in told.LIMITS


def test_json_is_the_services_own(shisuan, api):
    api.answers["GET /statement"] = answer()
    assert json.loads(shisuan("statement", "-o", "json").out) == answer()


def test_rates(shisuan, api):
    price = {"sku": "card", "model": "*", "hourly_micro_yuan": 5_000_000, "voucher": True, "tax": "it-6"}
    one = {
        "id": "r1", "valid_from_ms": 1_767_196_800_000, "known_from_ms": 1, "in_force": True, "example": True,
        "rounding": "half_up", "charges_starting": False, "note": "", "prices": [price],
    }  # fmt: skip
    api.answers["GET /rates"] = {"rates": [one, one | {"id": "r0", "in_force": False}]}
    result = shisuan("rates")
    for words in ("r1", "2026-01-01 00:00:00", "EXAMPLE PRICES", "any other", "5.00", "yes", "it-6"):
        assert words in result.out, words
    assert "r0" not in result.out
    assert "r0" in shisuan("rates", "--all").out


VOUCHER = {
    "id": "v-a", "tenant": "studio", "policy": "p1", "owner": "贵阳市大数据局", "state": "used_up",
    "amount_micro_yuan": 100_000_000, "left_micro_yuan": 0, "burnt_micro_yuan": 100_000_000, "valid_from_ms": 1,
    "valid_to_ms": 1_798_732_800_000, "priority": 100, "excluded": "",
}  # fmt: skip
POLICY = {
    "id": "p1", "title": "", "status": "in_force", "owner": "贵阳市大数据局", "ratio_bp": 3_000, "fiscal_year": 2026,
    "example": True, "pool": None,
}  # fmt: skip


def test_vouchers(shisuan, api, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    api.answers |= {"GET /vouchers": {"vouchers": [VOUCHER]}, "GET /policies": {"policies": [POLICY]}}
    for argv in (("vouchers",), ("vouchers", "list")):
        result = shisuan(*argv)
        for words in ("v-a", "used up", "100.00", "2027-01-01 00:00:00", "30.00 %", "EXAMPLE"):
            assert words in result.out, words


def test_granting_and_revoking(shisuan, api):
    api.answers["POST /vouchers"] = VOUCHER | {"id": "v7", "amount_micro_yuan": 12_500_000}
    result = shisuan(
        "vouchers", "grant", "--tenant", "studio", "--policy", "p1", "--amount", "12.5", "--valid-until", "2026-12-31"
    )
    assert result.out == "v7: 12.50 yuan for studio.\n"
    [body] = api.bodies("POST", "/vouchers")
    assert (body["yuan"], body["valid_until"], body["valid_from"], body["id"]) == ("12.5", "2026-12-31", "", "")
    api.answers["POST /vouchers/v7/revoke"] = VOUCHER | {"id": "v7", "state": "revoked"}
    assert shisuan("vouchers", "revoke", "v7", "--reason", "twice").code == 0
    assert api.bodies("POST", "/vouchers/v7/revoke") == [{"reason": "twice"}]
    api.answers["POST /vouchers"] = error("InvalidInput", "policy: p1 is a draft", 400)
    refused = shisuan(
        "vouchers", "grant", "--tenant", "studio", "--policy", "p1", "--amount", "1", "--valid-until", "2026-12-31"
    )
    assert (refused.code, refused.err) == (2, "error: policy: p1 is a draft\n")


def verdict(**more):
    return {
        "ok": True,
        "difference": "",
        "ledger_seq": 3,
        "ledger_hash": "ab",
        "ledger_cursor": 7,
        "journal_seq": 7,
    } | more


def test_verify_asks_the_service(shisuan, api):
    api.answers["GET /ledger/verify"] = verdict()
    result = shisuan("ledger", "verify")
    assert (result.code, result.out.splitlines()[0][:15]) == (0, "3 transactions:")
    api.answers["GET /ledger/verify"] = verdict(ok=False, difference="ledger: transaction 2 was changed", journal_seq=9)
    result = shisuan("ledger", "verify")
    assert result.code == 1
    assert "transaction 2 was changed" in result.out
    assert "not looked at by the ledger yet: 2" in result.out


def test_verify_reads_a_database_by_itself(shisuan, api, tmp_path):
    from scheduler.control.keeper import Keeper
    from scheduler.model.snapshot import Changes

    url = f"sqlite:///{tmp_path / 'copy.db'}"
    store = open_store(url)
    epoch = store.acquire_epoch("me")
    events = (
        RateCardSet(at_ms=START_MS, card=card()), PolicySet(at_ms=START_MS, policy=policy()),
        VoucherGranted(at_ms=START_MS, voucher=voucher()), UsageSealed(at_ms=START_MS, record=usage()),
    )  # fmt: skip
    store.commit(epoch, events, Changes(at_ms=START_MS, next_job=1, next_lease=1))
    Keeper(store, epoch).catch_up()
    store.close()
    result = shisuan("ledger", "verify", "--database", url)
    assert (result.code, api.asked) == (0, [])
    assert "3 transactions" in result.out
    assert shisuan("ledger", "verify", "--database", "nonsense").code == 1


def test_describe_shows_the_cost(shisuan, api):
    cost = {"sealed_gross_micro_yuan": 14_000_000, "sealed_due_micro_yuan": 9_800_000, "running_micro_yuan": 500_000,
            "example": True}  # fmt: skip
    api.answers["GET /jobs/j17"] = job("succeeded", cost=cost)
    api.answers["GET /jobs/j17/explain"] = {"waits": []}
    assert (
        "14.00 yuan, vouchers deduct 4.20, and 0.50 for what runs now (EXAMPLE PRICES)"
        in shisuan("describe", "j17").out
    )


def test_plan_shows_what_it_would_cost(shisuan, api, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "film.yaml").write_text("kind: RenderJob\n")
    price = {
        "step": "render", "hourly_low_micro_yuan": 14_000_000, "hourly_high_micro_yuan": 18_000_000, "parallel": 4,
        "run_ms_mean": 60_000, "estimate_low_micro_yuan": 933_333, "estimate_high_micro_yuan": 1_200_000,
        "basis": "same_scene",
    }  # fmt: skip
    api.answers["POST /plan"] = {
        "tasks": 4, "steps": [], "starts": [], "waits": [], "prices": [price], "example_prices": False,
    }  # fmt: skip
    result = shisuan("plan", "film.yaml")
    for words in (
        "14.00 to 18.00",
        "56.00 to 72.00",
        "0.933333 to 1.20",
        "1 min 00 s a task in your jobs with the same",
    ):
        assert words in result.out, words
