"""Which tokens of an issuer are believed, what the others are told, and how often the issuer is asked."""

import pytest

from scheduler.control.identity import OidcConfig, Person, Refused
from scheduler.model.errors import InvalidInput, IssuerSilent
from scheduler.model.key import Role
from scheduler.oidc.issuer import AGAIN_S, FRESH_S, PAUSE_S, STALE_S, Issuer
from tests.fakes.issuer import AUDIENCE, FakeIssuer, part

ROLES = {"artists": "tenant", "operators": "operator", "prometheus": "figures"}


@pytest.fixture
def double():
    made = FakeIssuer()
    yield made
    made.close()


class Asked:
    """An issuer as the service sees it, with a clock of its own."""

    def __init__(self, double, **fields):
        config = {"issuer": double.url, "audience": AUDIENCE, "roles": ROLES, **fields}
        self.double, self.passed_s = double, 0.0
        self.issuer = Issuer(OidcConfig.model_validate(config), monotonic=lambda: self.passed_s)

    def person(self, token=None):
        return self.issuer.person(token or self.double.token(), self.double.now_s * 1_000)

    def refusal(self, token):
        with pytest.raises(Refused) as caught:
            self.person(token)
        return caught.value


@pytest.fixture
def asked(double):
    made = Asked(double)
    yield made
    made.issuer.close()


@pytest.mark.parametrize("kid", ["r1", "e1"])
def test_a_signed_token_says_who_it_is(asked, double, kid):
    assert asked.person(double.token(kid)) == Person(subject="alice", tenant="studio-a", role=Role.TENANT)


def test_who_is_in_several_groups_has_the_highest_role(asked, double):
    assert asked.person(double.token(groups=["prometheus", "operators", "artists", 5])).role is Role.OPERATOR
    assert asked.person(double.token(groups="prometheus", tenant=None)) == Person(
        subject="alice", tenant="", role=Role.FIGURES
    )


def test_claims_may_have_other_names_and_values(double):
    asked = Asked(double, tenant_claim="org", tenants={"Studio A Ltd": "studio-a"}, role_claim="r", roles={})
    assert asked.person(double.token(tenant=None, org="Studio A Ltd")).tenant == "studio-a"
    assert "'Studio B'" in str(asked.refusal(double.token(org="Studio B")))


WRONG = {
    "expired": ({"exp": 1_799_999_900}, "expired 100 s ago", "已过期 100 秒"),
    "without an end": ({"exp": None}, "never expires", "没有过期时间"),
    "of tomorrow": ({"nbf": 1_800_003_600}, "begins in 3600 s", "3600 秒后才生效"),
    "issued later": ({"iat": 1_800_003_600}, "begins in 3600 s", "时钟不一致"),
    "with words for a time": ({"exp": "soon"}, "claim exp is no time", "exp"),
    "for another": ({"aud": "payroll"}, "is for 'payroll', not for 'shisuan'", "受众"),
    "for nobody": ({"aud": None}, "is for None", "受众"),
    "of another issuer": ({"iss": "https://evil.example"}, "is of 'https://evil.example'", "签发"),
    "without a subject": ({"sub": None}, "claim sub", "主体"),
    "without a tenant": ({"tenant": None}, "no tenant (claim tenant)", "租户"),
    "without a role": ({"groups": ["cooks"]}, "gives a role here (what does: artists, operators, prometheus)", "角色"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_token_is_refused_with_the_reason_in_both_languages(asked, double, case):
    changes, en, zh = WRONG[case]
    refused = asked.refusal(double.token(**changes))
    assert en in refused.said("en")
    assert zh in refused.said("zh")
    assert refused.en in str(refused)
    assert refused.zh in str(refused)


def test_clocks_may_differ_a_little(asked, double):
    assert asked.person(double.token(exp=double.now_s - 50, iat=double.now_s - 300))
    assert asked.person(double.token(iat=double.now_s + 50, nbf=double.now_s + 50))


def test_one_of_several_audiences_is_enough(asked, double):
    assert asked.person(double.token(aud=["other", AUDIENCE])).subject == "alice"


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "PS256", "RS512", None, 5])
def test_other_ways_to_sign_are_refused_whatever_the_key(asked, double, alg):
    token = double.token(alg="none" if not isinstance(alg, str) or alg == "None" else alg, header={"alg": alg})
    assert "is not accepted (valid: RS256, ES256)" in asked.refusal(token).en


def test_only_what_is_configured_is_accepted(double):
    asked = Asked(double, algorithms=["ES256"])
    assert asked.person(double.token("e1"))
    assert "'RS256', which is not accepted" in str(asked.refusal(double.token("r1")))


def test_a_key_is_used_for_its_own_kind_only(asked, double):
    assert "cannot be read" in str(asked.refusal(double.token("e1", header={"alg": "RS256"})))


def test_changed_claims_spoil_the_signature(asked, double):
    head, _, signature = double.token().split(".")
    forged = f"{head}.{part({**double.claims, 'iss': double.url, 'aud': AUDIENCE, 'exp': 9e9})}.{signature}"
    assert "signature is wrong" in str(asked.refusal(forged))
    stranger = FakeIssuer()
    double_of_it = stranger.token(iss=double.url)
    stranger.close()
    assert "signature is wrong" in str(asked.refusal(double_of_it))


@pytest.mark.parametrize("text", ["eyJ.x.y", "eyJhbGciOiJSUzI1NiJ9..", "eyJ" + "a" * 20_000 + ".b.c", "eyJ\udc80.b.c"])
def test_what_is_no_token_is_refused(asked, text):
    assert asked.refusal(text)


def test_a_critical_extension_that_we_do_not_know_is_refused(asked, double):
    assert asked.refusal(double.token(header={"crit": ["exp2"], "exp2": 1}))


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_asked_for_once_and_again_when_they_are_old(asked, double):
    for _ in range(5):
        asked.person()
    assert double.asked == ["/.well-known/openid-configuration", "/keys"]
    asked.passed_s = FRESH_S
    asked.person()
    assert double.asked.count("/keys") == 2


def test_a_new_key_is_learnt_and_the_old_one_forgotten(asked, double):
    asked.person()
    old = double.token("r1")
    double.rotate("r2")
    asked.passed_s = PAUSE_S
    assert asked.person(double.token("r2"))
    assert "no key 'r1'" in str(asked.refusal(old))


def test_made_up_keys_do_not_make_us_ask_without_end(asked, double):
    asked.person()
    for n in range(50):
        asked.refusal(double.token(header={"kid": f"x{n}"}))
    assert double.asked.count("/keys") == 1
    asked.passed_s = PAUSE_S
    for n in range(50):
        asked.refusal(double.token(header={"kid": f"x{n}"}))
    assert double.asked.count("/keys") == 2


def test_known_keys_are_believed_for_a_day_while_the_issuer_is_silent(asked, double):
    asked.person()
    double.status, asked.passed_s = 503, FRESH_S
    for _ in range(10):
        assert asked.person()
    assert double.asked.count("/.well-known/openid-configuration") == 2, "it is not asked with each request"
    asked.passed_s = STALE_S
    with pytest.raises(IssuerSilent, match="answers 503: temporarily_unavailable"):
        asked.person()
    double.status, asked.passed_s = 200, STALE_S + AGAIN_S
    assert asked.person()


def test_an_issuer_that_was_never_heard_is_asked_now_and_then(asked, double):
    double.status = 500
    for _ in range(10):
        with pytest.raises(IssuerSilent):
            asked.person()
    assert len(double.asked) == 1
    double.status, asked.passed_s = 200, AGAIN_S
    assert asked.person()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"issuer": "https://other.example"}, "calls itself 'https://other.example'"),
        ({"jwks_uri": "http://keys.example/"}, "must be https"),
        ({"jwks_uri": ""}, "must be https"),
    ],
)
def test_an_issuer_that_says_something_else_is_not_believed(asked, double, says, words):
    double.says = says
    with pytest.raises(IssuerSilent, match=words):
        asked.person()


def test_keys_that_we_do_not_know_are_passed_over(asked, double):
    plain = double.jwks
    double.jwks = lambda: {"keys": [{"kty": "OKP", "kid": "o"}, {"kty": "RSA", "kid": "broken"}, 5, *plain()["keys"]]}
    assert asked.person()


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"issuer": "http://sso.example"}, "https"),
        ({"algorithms": ["HS256"]}, "RS256"),
        ({"algorithms": []}, "at least 1"),
        ({"roles": {"x": "king"}}, "operator"),
        ({"client_id": "page"}, "redirect_url"),
        ({"client_id": "page", "redirect_url": "https://a.example/back", "scopes": ["profile"]}, "openid"),
    ],
)
def test_wrong_settings_are_named(fields, words):
    with pytest.raises(ValueError, match=words):
        OidcConfig.model_validate({"issuer": "https://sso.example", "audience": "a", **fields})


def test_certificates_that_are_not_there_are_named(double, tmp_path):
    with pytest.raises(InvalidInput, match="ca_file"):
        Asked(double, ca_file=str(tmp_path / "none.crt"))
