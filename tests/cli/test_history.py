"""`rcptgen history`: a true table, exact JSON, nothing unescaped, and never a traceback."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from runs import Names, Site, called

from rcptgen.cli import who as who_module
from rcptgen.cli.who import who
from rcptgen.publish.history import Who

MAILDIR = "./Maildir/\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/locals": "",
        "control/virtualdomains": "shop.example:joe\nd\udcff.example:joe-odd\n",
        **{f"~joe/.qmail-n{number:02}": MAILDIR for number in range(10)},
        "~joe/.qmail-odd-x": MAILDIR,
    }
    return Site(tmp_path, names)


@pytest.mark.root
def test_table(site: Site) -> None:
    site.published()
    site.host.write("~joe/.qmail-new", MAILDIR)
    site.host.write("~joe/.qmail-n00", "joe@elsewhere.example\n")
    site.host.remove("~joe/.qmail-n01")
    site.published()
    done = site.run("history")
    assert (done.status, done.err) == (0, "")
    title, first, second = done.out.splitlines()
    assert title.split() == ["TIME", "RECORDS", "GAINED", "LOST", "KIND", "HELD", "WHY"]
    assert first.split()[0] == "1"
    assert second.split()[0] == "2*"
    # What changes in shop.example: one comes, one goes, one is a forward now.
    assert second.split()[4:] == ["+1", "-1", "~1", "0", "compile"]
    assert all(len(line) <= 80 for line in (title, first, second))


@pytest.mark.root
def test_json_and_show(site: Site) -> None:
    site.published()
    site.host.write("~joe/.qmail-odd-\udce4y\x1b", MAILDIR)
    site.published()
    told = site.run("history", "--json").json
    assert (told["version"], told["current"], told["rollback"]) == (1, 2, None)
    first, second = told["generations"]
    assert [first["generation"], second["generation"]] == [1, 2]
    assert first["kinds"]["mailbox"] == 12
    assert first["time"] <= second["time"]
    assert (second["reason"], second["by"], second["same_files"], second["held"]) == ("compile", None, False, [])
    affected = {one["domain"]: one for one in second["changes"]["most"]}
    odd = affected["d\\xff.example"]
    assert (odd["gained"], odd["domain_b64"]) == (1, "ZP8uZXhhbXBsZQ==")
    shown = site.run("history", "show", "2", "--json").json
    assert (shown["generation"], shown["against"]) == (2, 1)
    by_domain = {one["domain"]: one for one in shown["changes_by_domain"]}
    assert by_domain["d\\xff.example"]["gained"] == 1
    assert by_domain["d\\xff.example"]["sample"][0]["what"] == "gained"
    text = site.run("history", "show", "2").out
    assert "\x1b" not in text
    assert "  + \\xe4y\\x1b@d\\xff.example\n" in text
    assert "d\\xff.example: 1 gained, 0 lost, 0 of another kind\n" in text


@pytest.mark.root
def test_show_where_the_one_before_is_gone(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", "[history]\nkeep = 2\n")
    for number in range(4):
        site.host.write(f"~joe/.qmail-m{number}", MAILDIR)
        site.published()
    assert [one["generation"] for one in site.run("history", "--json").json["generations"]] == [3, 4]
    text = site.run("history", "show", "3").out
    assert "the generation before is not kept; against it: 1 gained, 0 lost, 0 of another kind\n" in text
    assert "shop.example: 1 gained" in text
    assert "m3@shop.example" in site.run("history", "show", "4").out
    missing = site.run("history", "show", "1")
    assert (missing.status, missing.out) == (2, "")
    assert "there are: 3, 4" in missing.err


@pytest.mark.root
def test_damaged_generation_is_passed_over(site: Site) -> None:
    site.published()
    site.host.write("~joe/.qmail-new", MAILDIR)
    site.published()
    (site.state / "generations" / "1" / "meta.json").write_bytes(b'{"format": 1')
    done = site.run("history")
    assert (done.status, len(done.out.splitlines())) == (0, 2)
    assert "generation 1" in done.err
    assert site.run("history", "show", "1").status == 2
    assert site.run("history", "show", "2").status in (0, 2)


@pytest.mark.root
def test_history_says_where_files_are_not_those_of_it(site: Site) -> None:
    site.published()
    site.file.write_bytes(b"by hand")
    done = site.run("history")
    assert (done.status, len(done.out.splitlines())) == (0, 2)
    assert "not those of generation 1" in done.err


def test_nothing_yet(tmp_path: Path) -> None:
    for options, out in (([], ""), (["--json"], '"generations": []')):
        done = called("--state", tmp_path / "state", "history", *options)
        assert (done.status, done.err) == (0, "rcptgen: nothing was published yet\n")
        assert out in done.out
    assert not (tmp_path / "state").exists()
    assert called("--state", tmp_path / "state", "history", "show", "1").status == 2
    assert called("--state", tmp_path / "state", "history", "show", "x").status == 2
    assert called("-q", "--state", tmp_path / "state", "history").err == ""


@pytest.mark.root
@pytest.mark.parametrize("words", ["history", "history show 1", "approve --plan", "rollback", "resume"])
def test_others_may_not_look(site: Site, words: str) -> None:
    """Also below another root: the state holds every address."""
    site.published()
    site.top.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(12345)
            os._exit(site.run(*words.split()).status)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77


# --- who -----------------------------------------------------------------------------------------


def test_who_gives_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(who_module, "_login", os.getuid)
    monkeypatch.setenv("SUDO_USER", "x" * 1000)
    found = who()
    name = pwd.getpwuid(os.getuid()).pw_name
    assert (found.uid, found.user, found.login, found.login_user) == (os.getuid(), name, os.getuid(), name)
    assert found.sudo_user == "x" * 64
    monkeypatch.setenv("SUDO_USER", "a\udcff\x1b")
    assert who().sudo_user == "a\\xff\x1b"
    monkeypatch.delenv("SUDO_USER")
    assert who().sudo_user == ""


@pytest.mark.parametrize(
    ("text", "uid"), [("1000", 1000), ("0\n", 0), ("4294967295", None), ("", None), ("x", None), (None, None)]
)
def test_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, uid: int | None) -> None:
    if text is not None:
        (tmp_path / "loginuid").write_text(text)
    monkeypatch.setattr(who_module, "LOGIN", tmp_path / "loginuid")
    assert who().login == uid


def test_who_in_words() -> None:
    assert str(Who(uid=0)) == "uid 0"
    assert str(Who(uid=0, user="root", sudo_user="joe", login=1000, login_user="joe")) == "root (sudo by joe)"
    assert str(Who(uid=0, user="root", login=1000)) == "root (logged in as uid 1000)"
    assert str(Who(uid=0, user="root", sudo_user="root", login=0, login_user="root")) == "root"
