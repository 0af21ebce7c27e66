"""Money through the service's doors."""

import pytest

from scheduler.control.audit import audit
from scheduler.model.errors import InvalidInput
from scheduler.model.event import RateCardSet
from tests.unit.api.conftest import Installation

CONFIG = """
tenants:
  - {name: studio-a}
  - {name: sister, subsidy_excluded: related party of the operator}
rates:
  - id: r1
    valid_from: 2026-01-01
    prices:
      - {sku: vcpu, yuan_per_hour: 0.36, voucher: true, tax: it-6}
      - {sku: memory, yuan_per_hour: 0.015}
policies:
  - id: p1
    status: in_force
    owner: 贵阳市大数据局
    pool: {yuan: 1000, fiscal_year: 2027}
    valid_from: 2027-01-01
    valid_until: 2027-12-31
    ratio: 30%
    skus: [vcpu]
  - id: draft
    status: draft
    owner: 省大数据局
    pool: {yuan: 140000000, fiscal_year: 2027}
    valid_from: 2027-01-01
    valid_until: 2027-12-31
    ratio: 30%
vouchers:
  - {id: v-a, tenant: studio-a, policy: p1, yuan: 100, valid_from: 2027-01-01, valid_until: 2027-12-31}
  - {id: v-s, tenant: sister, policy: p1, yuan: 100, valid_from: 2027-01-01, valid_until: 2027-12-31}
"""
MONTH = "2027-01"  # of the clock of Installation


@pytest.fixture(scope="module")
def park(tmp_path_factory):
    folder = tmp_path_factory.mktemp("money")
    (folder / "park.yaml").write_text(CONFIG)
    made = Installation(folder, str(folder / "park.yaml"))
    yield made
    made.close()


def run(park, key, **more):
    return park.finish(park.submit(key=key, **more).json()["id"])["id"]


def statements(park, key=None, **query):
    answer = park.get("/statement", key, **query)
    assert answer.status_code == 200, answer.text
    return answer.json()["statements"]


def test_a_job_becomes_a_statement_that_explains_each_yuan(park):
    key = park.key("studio-a")
    job = run(park, key)
    [found] = statements(park, key, job=job, lines=True)
    assert found["gross_micro_yuan"] == found["due_micro_yuan"] + found["deducted_micro_yuan"]
    assert found["due_fen"] * 10_000 == found["due_micro_yuan"] + found["rounding_micro_yuan"]
    for field in ("gross_micro_yuan", "due_micro_yuan"):
        for parts in ("rows", "lines"):
            assert sum(part[field] for part in found[parts]) == found[field]
    [row] = [row for row in found["rows"] if row["sku"] == "vcpu" and not row["free"]]
    [part] = row["subsidies"]
    assert (part["voucher"], part["policy"], part["owner"], part["limit"]) == ("v-a", "p1", "贵阳市大数据局", "ratio")
    assert part["micro_yuan"] == row["gross_micro_yuan"] * 3 // 10
    records = {r["id"]: r for r in park.get("/usage", key, job=job).json()["records"]}
    for line in found["lines"]:
        assert line["lease_id"] == records[line["usage_id"]]["lease_id"]
        assert park.store.txns(after=line["ledger_seq"] - 1, limit=1)[0].idem == f"usage:{line['usage_id']}"


def test_the_months_statement_holds_the_job_and_other_months_do_not(park):
    key = park.key("studio-a")
    job = run(park, key)
    [month] = statements(park, key, month=MONTH)
    assert job in {row["job_id"] for row in month["rows"]}
    assert {row["job_name"] for row in month["rows"]} == {"hello"}
    [present] = statements(park, key)
    assert present["rows"] == month["rows"]
    [empty] = statements(park, key, month="2027-02")
    assert (empty["rows"], empty["due_fen"]) == ([], 0)


def test_a_related_party_pays_in_full_and_is_told_why(park):
    key = park.key("sister")
    [found] = statements(park, key, job=run(park, key))
    [row] = [row for row in found["rows"] if row["sku"] == "vcpu" and not row["free"]]
    assert (row["subsidies"], row["limit"]) == ([], "excluded")
    assert row["limit_note"] == "related party of the operator"


def test_tenants_see_their_own_only(park):
    mine, theirs = park.key("studio-a"), park.key("sister")
    job = run(park, mine)
    assert park.get("/statement", theirs, job=job).status_code == 404
    assert park.get("/statement", theirs, tenant="studio-a").status_code == 404
    assert {v["tenant"] for v in park.get("/vouchers", theirs).json()["vouchers"]} == {"sister"}
    assert {s["tenant"] for s in statements(park, theirs)} == {"sister"}
    assert park.get("/policies", theirs).json()["policies"][0]["pool"] is None
    run(park, theirs)
    assert {"sister", "studio-a"} <= {s["tenant"] for s in statements(park)}


@pytest.mark.parametrize(
    "query", [{"month": "2027"}, {"month": "2027-13"}, {"month": "２０２７-01"}, {"tenant": "nobody"}]
)
def test_what_makes_no_sense_is_refused_with_a_pointer(park, query):
    answer = park.get("/statement", **query)
    assert answer.status_code == 400
    assert answer.json()["error"]["problems"][0]["pointer"] in query


def grant(park, key=None, **more):
    body = {"tenant": "studio-a", "policy": "p1", "yuan": "12.5", "valid_until": "2027-12-31"} | more
    return park.post("/vouchers", body, key)


def test_an_operator_grants_and_revokes(park):
    given = grant(park)
    assert given.status_code == 201
    made = given.json()
    assert (made["state"], made["left_micro_yuan"]) == ("active", 12_500_000)
    assert made["valid_to_ms"] == 1_830_268_800_000  # 2028-01-01 in China
    gone = park.post(f"/vouchers/{made['id']}/revoke", {"reason": "granted twice"}).json()
    assert (gone["state"], gone["left_micro_yuan"]) == ("revoked", 0)
    assert park.post(f"/vouchers/{made['id']}/revoke", {"reason": "again"}).status_code == 409
    assert park.post("/vouchers/v99/revoke", {"reason": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("more", "pointer", "words"),
    [
        ({"tenant": "studio-b"}, "tenant", "did you mean 'studio-a'?"),
        ({"policy": "p2"}, "policy", "valid: draft, p1"),
        ({"policy": "draft"}, "policy", "is a draft"),
        ({"yuan": "100000"}, "yuan", "has only 8"),
        ({"yuan": "0"}, "yuan", "above 0"),
        ({"yuan": "1.0000001"}, "yuan", "more than 6 decimals"),
        ({"yuan": "NaN"}, "yuan", "6 decimals"),
        ({"yuan": "many"}, "yuan", "is not an amount"),
        ({"valid_until": "2027-02-30"}, "valid_until", "is not a date"),
        ({"valid_until": "2026-01-01"}, "valid_until", "before"),
        ({"id": "v-a"}, "id", "already"),
        ({"id": "V A"}, "id", "lower-case"),
    ],
)
def test_a_wrong_grant_is_refused_with_a_pointer(park, more, pointer, words):
    answer = grant(park, **more)
    assert answer.status_code == 400
    [problem] = answer.json()["error"]["problems"]
    assert problem["pointer"] == pointer
    assert words in answer.json()["error"]["message"]


def test_only_operators_change_money(park):
    key = park.key("studio-a")
    assert grant(park, key).status_code == 403
    assert park.post("/vouchers/v-a/revoke", {"reason": "x"}, key).status_code == 403
    assert park.post("/usage/l1:1:x/reverse", {"reason": "x"}, key).status_code == 403
    assert park.get("/ledger/verify", key).status_code == 403


def test_a_charge_is_taken_back_by_a_booking_that_names_it(park):
    key = park.key("studio-a")
    job = run(park, key)
    [before] = statements(park, key, job=job, lines=True)
    for usage_id in sorted({line["usage_id"] for line in before["lines"]}):
        assert park.post(f"/usage/{usage_id}/reverse", {"reason": "a faulty card"}).status_code == 200
        assert park.post(f"/usage/{usage_id}/reverse", {"reason": "again"}).status_code == 409
    assert park.post("/usage/nothing/reverse", {"reason": "x"}).status_code == 404
    [after] = statements(park, key, job=job, lines=True)
    assert (after["gross_micro_yuan"], after["due_micro_yuan"], after["deducted_micro_yuan"]) == (0, 0, 0)
    assert len(after["lines"]) == 2 * len(before["lines"])
    assert {line["note"] for line in after["lines"] if line["corrects"]} == {"a faulty card"}


def test_the_job_says_what_it_has_cost_and_a_plan_what_it_would(park):
    key = park.key("studio-a")
    job = park.submit(key=key).json()["id"]
    park.settle()
    [attempt] = [a for a in park.workers.ran if a.startswith(f"{job}.")]
    park.workers.over.add(attempt)
    park.workers.begin(attempt)
    park.settle()
    park.clock.now += 3_600_000
    cost = park.get(f"/jobs/{job}", key).json()["cost"]
    assert (cost["sealed_gross_micro_yuan"], cost["running_micro_yuan"]) == (0, 360_000 + 7_500)
    park.workers.finish(attempt)
    park.finish(job)
    cost = park.get(f"/jobs/{job}", key).json()["cost"]
    [found] = statements(park, key, job=job)
    assert cost["sealed_gross_micro_yuan"] == found["gross_micro_yuan"] == 367_500
    assert (cost["sealed_due_micro_yuan"], cost["running_micro_yuan"]) == (found["due_micro_yuan"], 0)
    text = "kind: CommandJob\napiVersion: shisuan/v1\nname: hello\nrun: 'true'\narray: 10\n"
    [price] = park.post("/plan", {"file": text}, key).json()["prices"]
    assert (price["hourly_low_micro_yuan"], price["parallel"], price["basis"]) == (367_500, 10, "same_name")
    assert price["estimate_low_micro_yuan"] == (367_500 * price["run_ms_mean"] * 10 * 2 + 3_600_000) // 7_200_000


def test_the_ledger_is_proved_on_demand(park):
    run(park, park.key("studio-a"))
    found = park.get("/ledger/verify").json()
    assert (found["ok"], found["difference"]) == (True, "")
    assert found["ledger_hash"] == park.store.ledger_head().hash.hex()


# ── the configuration file ───────────────────────────────────────────────────────────────────────────────────────────


def start(folder, text):
    (folder / "park.yaml").write_text(text)
    made = Installation(folder, str(folder / "park.yaml"))
    made.close()
    return made


def reopened(made):
    from scheduler.store import open_store

    return open_store(f"sqlite:///{made.home.path / 'shisuan.db'}")


def test_starting_again_records_nothing_twice(tmp_path):
    start(tmp_path, CONFIG)
    store = reopened(start(tmp_path, CONFIG))
    cards = [event for _, event in store.journal() if isinstance(event, RateCardSet)]
    assert len(cards) == 1
    assert audit(store).difference == ""
    store.close()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("yuan_per_hour: 0.36", "yuan_per_hour: 0.37", r"rates\[0\]: r1 is recorded with other content \(prices\[0\]"),
        ("ratio: 30%", "ratio: 31%", r"policies\[0\]: p1 is recorded with other content \(ratio_bp: 3000"),
        ("policy: p1, yuan: 100", "policy: p1, yuan: 101", r"vouchers\[0\]: v-a is recorded with other content"),
    ],
)
def test_what_is_in_force_is_not_edited_silently(tmp_path, before, after, words):
    start(tmp_path, CONFIG)
    with pytest.raises(InvalidInput, match=words):
        start(tmp_path, CONFIG.replace(before, after, 1))


def test_without_prices_of_its_own_it_uses_the_example_and_says_so(tmp_path):
    made = Installation(tmp_path)
    job = run(made, None)
    [card] = made.get("/rates").json()["rates"]
    assert (card["id"], card["example"], card["in_force"]) == ("example-1", True, True)
    [found] = statements(made, job=job)
    assert found["example"]
    assert found["gross_micro_yuan"] > 0
    made.close()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("0.36", "0.3600001", r"rates\[0\].prices\[0\].yuan_per_hour: 0.3600001 yuan has more than 6 decimals"),
        ("0.36", "-1", r"rates\[0\].prices\[0\].yuan_per_hour: must be 0 to"),
        ("0.36", ".inf", r"rates\[0\].prices\[0\].yuan_per_hour: '.inf' is not an amount"),
        ("sku: vcpu", "sku: cpu", r"rates\[0\].prices\[0\].sku: "),
        ("sku: vcpu", "sku: vcpu, model: H100", r"rates\[0\].prices\[0\]: vcpu has no models"),
        ("sku: vcpu", "sku: card, model: H100-SXM", r"rates\[0\].prices\[0\]: unknown card model 'H100-SXM'; did you"),
        ("sku: memory", "sku: vcpu", r"rates\[0\]: prices\[1\]: vcpu has two prices"),
        ("valid_from: 2026-01-01", "valid_from: soon", r"rates\[0\].valid_from: 'soon' is not a date"),
        ("ratio: 30%", "ratio: 0.3", r"policies\[0\].ratio: .* is not a share such as 30%"),
        ("ratio: 30%", "ratio: 130%", r"policies\[0\].ratio: '130%' is not a share"),
        ("skus: [vcpu]", "purposes: [gaming]", r"policies\[0\].purposes\[0\]: "),
        ("policy: p1, yuan: 100", "policy: p9, yuan: 100", r"vouchers\[0\].policy: unknown policy version 'p9'"),
        ("policy: p1, yuan: 100", "policy: draft, yuan: 100", r"vouchers\[0\].policy: draft is a draft"),
        ("id: v-s", "id: v-a", r"vouchers\[1\]: v-a is recorded with other content"),
        ("rates:", "ratings:", "ratings: "),
    ],
)
def test_a_mistake_in_the_file_is_pointed_at(tmp_path, before, after, words):
    with pytest.raises(InvalidInput, match=words):
        start(tmp_path, CONFIG.replace(before, after, 1))
