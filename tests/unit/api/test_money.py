"""Money through the service's doors."""

import pytest

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
vouchers:
  - {id: v-a, tenant: studio-a, policy: p1, yuan: 100, valid_from: 2027-01-01, valid_until: 2027-12-31}
"""


@pytest.fixture
def park(tmp_path):
    file = tmp_path / "park.yaml"
    file.write_text(CONFIG)
    made = Installation(tmp_path, str(file))
    yield made
    made.close()


def run(park, key):
    return park.finish(park.submit(key=key).json()["id"])["id"]


def test_a_job_becomes_a_statement(park):
    key = park.key("studio-a")
    job = run(park, key)
    [found] = park.get("/statement", key, job=job).json()["statements"]
    assert found["tenant"] == "studio-a"
    assert found["gross_micro_yuan"] > 0
    print(found)
