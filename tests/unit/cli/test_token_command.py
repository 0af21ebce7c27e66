"""A token of the park's OpenID issuer in place of a key."""

import sys

import pytest


@pytest.fixture
def without_key(shisuan, monkeypatch):
    monkeypatch.delenv("SHISUAN_KEY")

    def command(text):
        monkeypatch.setenv("SHISUAN_TOKEN_COMMAND", text)

    return command


def test_what_the_command_prints_is_the_token(shisuan, api, without_key):
    without_key("printf '%s\\n' eyJh.eyJi.sig")
    api.answers["GET /keys"] = {"keys": []}
    assert shisuan("keys", "list").code == 0
    assert api.shown == ["Bearer eyJh.eyJi.sig"]


def test_a_key_goes_before_it(shisuan, api, monkeypatch):
    monkeypatch.setenv("SHISUAN_TOKEN_COMMAND", "false")
    api.answers["GET /keys"] = {"keys": []}
    assert shisuan("keys", "list").code == 0
    assert api.shown == ["Bearer sk-test"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "SHISUAN_TOKEN_COMMAND ended with code 1: false"),
        ("/no/such/program", "SHISUAN_TOKEN_COMMAND cannot be run"),
        ("sh -c 'unfinished", "SHISUAN_TOKEN_COMMAND cannot be run"),
        ("true", "must print a token and nothing else"),
        ("echo two words", "must print a token and nothing else"),
        (f"{sys.executable} -c \"print('令牌')\"", "must print a token and nothing else"),
    ],
)
def test_a_command_that_gives_none_is_said(shisuan, api, without_key, command, words):
    without_key(command)
    result = shisuan("keys", "list")
    assert result.code == 2
    assert words in result.err
    assert api.shown == []


def test_a_key_for_figures_is_asked_for(shisuan, api):
    api.answers["POST /keys"] = {"id": "k1", "key": "sk-new", "tenant": "default"}
    result = shisuan("keys", "create", "--tenant", "default", "--figures")
    assert (result.code, result.out) == (0, "sk-new\n")
    (body,) = api.bodies("POST", "/keys")
    assert body["role"] == "figures"
    assert shisuan("keys", "create", "--tenant", "default", "--figures", "--operator").code == 2
