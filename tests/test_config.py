"""The configuration file: defaults, values that do not fit, and the nearest key to one that is unknown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.config import Config, Output, parse
from rcptgen.errors import ConfigurationError


def read(text: str | bytes) -> Config:
    return parse(text if isinstance(text, bytes) else text.encode(), "rcptgen.toml")


def test_every_key_is_optional() -> None:
    config = read("")
    assert config == Config()
    assert (config.qmail.directory, config.qmail.break_, config.qmail.forbidden_modes) == ("/var/qmail", "-", 0o002)
    assert (config.qmail.alias, config.qmail.default_delivery, config.qmail.accounts) == ("alias", "./Mailbox", "auto")
    assert (config.policy.prepended, config.policy.relay, config.policy.percenthack) == ("auto", "accept", "refuse")
    assert (config.guard.domain_loss, config.guard.domain_loss_min, config.guard.new_catchalls) == (0.5, 5, 10)
    assert (config.guard.total_loss, config.guard.total_loss_min) == (0.05, 50)
    assert config.programs.path == "/var/qmail/bin:/usr/local/bin:/usr/bin:/bin"
    assert config.outputs == (Output(target="validrcptto", path="/var/qmail/control/validrcptto.cdb", mode=0o644),)


def test_values_are_taken() -> None:
    config = read(
        """
        [qmail]
        directory = "/opt/qmail/"
        break = "+"
        forbidden_modes = 0o022
        accounts = "/etc/mail.passwd"
        [policy]
        prepended = "prefix"
        suffix_domains = ["a.example"]
        [guard]
        must_accept = ["joe@example"]
        [extra]
        reject = ["spam@example"]
        [watch]
        socket = "/run/mail/rcptgen.sock"
        [metrics]
        textfile = "/var/lib/node_exporter/rcptgen.prom"
        [serve]
        anything = 1
        """
    )
    assert (config.qmail.break_, config.qmail.forbidden_modes) == ("+", 0o022)
    assert config.policy.suffix_domains == ("a.example",)
    assert config.outputs[0].path == "/opt/qmail/control/validrcptto.cdb"
    two = read('[[output]]\ntarget = "a"\npath = "/x"\n[[output]]\ntarget = "b"\npath = "/y"\nmode = 0o600\n')
    assert [(one.target, one.path, one.mode) for one in two.outputs] == [("a", "/x", 0o644), ("b", "/y", 0o600)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[qmial]\n", "unknown section [qmial]; the nearest known one is 'qmail'"),
        ("[zzz]\n", "unknown section [zzz]; known are qmail, vpopmail, programs, policy, guard"),
        ("[qmail]\nbrek = '-'\n", "unknown key 'brek' in [qmail]; the nearest known one is 'break'"),
        ("[qmail]\nbreak_ = '-'\n", "unknown key 'break_' in [qmail]; the nearest known one is 'break'"),
        ("[policy]\nsuffix_domain = []\n", "the nearest known one is 'suffix_domains'"),
        ("[[output]]\ntarget = 'a'\npath = '/x'\nmod = 1\n", "unknown key 'mod' in [output]; the nearest"),
        ("[watch]\nsocket = 'trigger.sock'\n", "socket must be an absolute path"),
        ("[metrics]\ntextfile = 'rcptgen.prom'\n", "textfile must be an absolute path"),
        ("[metrics]\ntextfile = '/var/rcptgen.txt'\n", "textfile must end in .prom"),
        ("[qmail]\nbreak = '--'\n", "break is one character"),
        ("[qmail]\nbreak = 'é'\n", "break is one character"),
        ("[qmail]\nforbidden_modes = -1\n", "permission bits"),
        ("[qmail]\nforbidden_modes = 0o10000\n", "permission bits"),
        ("[qmail]\nforbidden_modes = true\n", "Expected `int`, got `bool`"),
        ("[qmail]\ndirectory = 'var/qmail'\n", "directory must be an absolute path"),
        ("[qmail]\naccounts = 'ldap'\n", 'accounts is "auto", "enumerate"'),
        ("[policy]\nprepended = 'some'\n", "Invalid enum value 'some'"),
        ("[policy]\nsuffix_domains = 'a.example'\n", "Expected `array`, got `str`"),
        ("[guard]\ndomain_loss = 1.5\n", "shares between 0 and 1"),
        ("[guard]\nnew_catchalls = -1\n", "are counts"),
        ("[[output]]\ntarget = 'a'\npath = 'x'\n", "path must be an absolute path"),
        ("[[output]]\ntarget = 'a'\npath = '/x'\nmode = 0o1000\n", "mode is a file mode"),
        ("[[output]]\npath = '/x'\n", "missing required field `target`"),
        ("qmail = 1\n", "Expected `object`, got `int`"),
        ("[qmail\n", "not a TOML file"),
        ("a = " + "9" * 5000 + "\n", "not a TOML file"),
        ("a = " + "[" * 100_000 + "\n", "not a TOML file"),
        (b"\xff", "not a TOML file"),
    ],
)
def test_what_does_not_fit_is_named(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        read(text)
    assert caught.value.status == 78
    assert all(line.startswith("rcptgen.toml: ") for line in str(caught.value).splitlines()[:1])


def test_every_unknown_key_of_a_file_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read("[qmail]\nbrek = '-'\n[gard]\n[policy]\nrelays = 'accept'\n")
    lines = str(caught.value).splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "rcptgen.toml: unknown key 'brek' in [qmail]",
        "rcptgen.toml: unknown section [gard]",
        "rcptgen.toml: unknown key 'relays' in [policy]",
    ]


words = st.sampled_from([*"xqe[]={}.1\n", "qmail", "break", "output", "extra", "accept", "'-'"])


@given(st.one_of(st.binary(max_size=40), st.lists(words, max_size=12).map(lambda found: "".join(found).encode())))
def test_any_bytes_are_a_configuration_or_an_error(data: bytes) -> None:
    try:
        assert isinstance(read(data), Config)
    except ConfigurationError as error:
        assert str(error).startswith("rcptgen.toml: ")


@given(st.dictionaries(st.sampled_from(["directory", "break", "alias", "accounts"]), st.text(max_size=5)))
def test_any_text_in_qmail_is_taken_or_refused(values: dict[str, Any]) -> None:
    text = "[qmail]\n" + "".join(f"{key} = {_quoted(value)}\n" for key, value in values.items())
    try:
        config = read(text)
    except ConfigurationError:
        absolute = values.get("directory", "/").startswith("/")
        one = len(values.get("break", "").encode()) <= 1
        known = values.get("accounts", "auto") in ("auto", "enumerate", "passwd")
        assert not (absolute and one and (known or values["accounts"].startswith("/")))
    else:
        assert config.qmail.alias == values.get("alias", "alias")


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(one):08x}" for one in text) + '"'
