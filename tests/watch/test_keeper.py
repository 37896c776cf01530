"""What is read again, and what is not, of a host that is compiled again and again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keeping import Kept, keeping
from watched import DOMAINS, domain_of

from rcptgen.config import Config, Extra, Policy, Relay
from rcptgen.errors import ConfigurationError, PublishFailed, RcptgenError
from rcptgen.host import Domain
from rcptgen.keeper import CONTROL
from rcptgen.policy import Policy as Shaping
from rcptgen.policy import Shaped
from rcptgen.reader import Reader
from rcptgen.request import Request
from rcptgen.source.tree import FailedForNow

pytestmark = pytest.mark.root

ONE = f"{DOMAINS}/one.example".encode()
TWO = f"{DOMAINS}/two.example".encode()
JOE = b"/home/joe"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    yield from keeping(tmp_path, monkeypatch)


def test_the_first_look_makes_the_list_of_a_compile(kept: Kept) -> None:
    kept.start()
    assert kept.is_true()
    assert kept.accepts("ann@one.example")
    assert not kept.accepts("nobody@one.example")


def test_only_what_was_touched_is_read(kept: Kept) -> None:
    kept.start()
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    result = kept.touched(ONE)
    assert result is not None
    assert (result.status, result.gained, result.lost) == (0, 1, 0)
    assert set(kept.homes) == {ONE}
    assert kept.accepts("eve@one.example")
    assert kept.is_true()


@pytest.mark.parametrize("unit", [ONE, JOE, CONTROL])
def test_rules_that_are_what_they_were_publish_nothing(kept: Kept, unit: bytes) -> None:
    kept.start()
    inode = kept.file.stat().st_ino
    kept.edits.users("one.example", ("ann", "bob"), crypt="another")
    kept.edits.renamed("~joe/.qmail-sales", "./Maildir/\n")
    result = kept.touched(unit)
    # Control files that were written to just now are read again in any case.
    assert result is None or (unit == CONTROL and not result.changed)
    assert unit == CONTROL or set(kept.homes) == {unit}
    assert kept.file.stat().st_ino == inode


def test_a_home_that_only_a_single_address_leads_to(kept: Kept) -> None:
    """Such a domain never stands; its home was forgotten without being read again."""
    kept.host.remove("~joe/.qmail-site-web")
    kept.edits.written("control/virtualdomains", "info@single.example:joe-single\n")
    kept.start()
    kept.edits.written("~joe/.qmail-single-info", "|bouncesaying gone\n")
    result = kept.touched(JOE)
    assert result is not None
    assert not kept.accepts("info@single.example")
    kept.edits.written("~joe/.qmail-single-info", "./Maildir/\n")
    kept.touched(JOE)
    assert kept.accepts("info@single.example")
    assert kept.touched(JOE) is None
    assert JOE in kept.keeper.units_of(())


def test_a_control_file_reads_only_what_does_not_stand(kept: Kept) -> None:
    # In a local domain the names of all virtual domains can be written to as well.
    kept.edits.written("control/locals", "#\n")
    kept.start()
    for name, thing in domain_of("new.example", ("eve",)).items():
        kept.host.write(name, thing)
    kept.edits.assigned("one.example", "two.example", "new.example")
    kept.edits.line("control/virtualdomains", "new.example:new.example", there=True)
    result = kept.touched(CONTROL)
    assert result is not None
    assert {ONE, TWO}.isdisjoint(kept.homes)
    assert f"{DOMAINS}/new.example".encode() in kept.homes
    assert kept.accepts("eve@new.example")
    assert kept.is_true()
    read, gone = kept.keeper.read()
    assert {unit for unit, _ in read}.isdisjoint({ONE, TWO})
    assert not gone


def test_a_control_file_is_noticed_after_a_home_was(kept: Kept) -> None:
    """Reading a home anew made the worker forget what the control files had been."""
    kept.start()
    kept.edits.users("one.example", ("ann",))
    kept.touched(ONE)
    kept.edits.line("control/virtualdomains", "more.example:joe-site", there=True)
    assert kept.keeper.moved({CONTROL}) == {CONTROL}
    assert kept.touched(CONTROL) is not None
    assert kept.accepts("web@more.example")


def test_a_domain_that_goes(kept: Kept) -> None:
    kept.start()
    kept.edits.line("control/virtualdomains", "two.example:two.example", there=False)
    kept.edits.line("control/rcpthosts", "two.example", there=False)
    kept.edits.assigned("one.example")
    assert kept.touched(CONTROL) is not None
    assert not kept.accepts("tom@two.example")
    assert kept.is_true()
    assert kept.keeper.read()[1] == [TWO]
    assert kept.touched(ONE) is None


def test_another_directory_for_a_domain_whose_mail_goes_through_another_one(kept: Kept) -> None:
    """vdelivermail asks users/cdb for the domain of the address, whoever's home it runs in."""
    kept.edits.line("control/virtualdomains", "alias.example:one.example", there=True)
    for name, thing in domain_of("alias.example", ("eve",)).items():
        kept.host.write(name, thing)
    kept.edits.assigned("one.example", "two.example", "alias.example")
    kept.start()
    assert kept.accepts("eve@alias.example")
    kept.edits.assigned("one.example", "two.example")
    kept.touched(CONTROL)
    assert not kept.accepts("eve@alias.example")
    assert kept.is_true()


def test_what_was_not_published_is_still_owed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The domains stood already, and nothing was left that would have brought another run."""
    kept.start()
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    with monkeypatch.context() as patch:
        patch.setattr("rcptgen.build.Build.publish", _full)
        with pytest.raises(PublishFailed):
            kept.touched(ONE)
    assert not kept.accepts("eve@one.example")
    assert kept.touched() is not None
    assert kept.accepts("eve@one.example")
    assert kept.touched() is None


def _full(*_: object, **__: object) -> None:
    raise PublishFailed("no space left")


def test_control_files_that_say_nothing_leave_all_as_it_was(kept: Kept) -> None:
    kept.start()
    before = kept.file.read_bytes()
    away = kept.host.path("control/me").with_name("away")
    for name in ("me", "locals"):
        os.rename(kept.host.path(f"control/{name}"), away.with_name(f"{name}.away"))
    with pytest.raises(ConfigurationError):
        kept.touched(CONTROL)
    assert kept.file.read_bytes() == before
    assert CONTROL in kept.keeper.swept()
    for name in ("me", "locals"):
        os.rename(away.with_name(f"{name}.away"), kept.host.path(f"control/{name}"))
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    kept.touched(CONTROL, ONE)
    assert kept.accepts("eve@one.example")


def test_a_configuration_that_is_none_leaves_all_as_it_was(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.start()
    with monkeypatch.context() as patch:
        patch.setattr(kept, "configure", _bad)
        kept.keeper.configure = kept.configure
        with pytest.raises(RcptgenError):
            kept.keeper.everything("hangup")
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    kept.touched(ONE)
    assert set(kept.homes) == {ONE}
    assert kept.accepts("eve@one.example")


def _bad() -> tuple[Config, Request]:
    raise ConfigurationError("no such option")


def test_a_home_that_cannot_be_read_is_tried_again_and_keeps_its_rules(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.start()
    with monkeypatch.context() as patch:
        patch.setattr("rcptgen.qmail.home.Home.listing", lambda self: self.note_failure(FailedForNow(5)))
        result = kept.touched(ONE)
        assert result is not None
        assert result.status == 75
        assert kept.accepts("ann@one.example")
        inode = kept.file.stat().st_ino
        assert ONE in kept.keeper.swept()
        assert kept.keeper.moved({ONE}) == set()
        again = kept.touched(ONE)
        assert again is None or not again.outputs[0].changed
        assert kept.file.stat().st_ino == inode
    kept.edits.users("one.example", ("ann", "eve"))
    assert ONE in kept.keeper.swept()
    kept.touched(ONE)
    assert kept.accepts("eve@one.example")
    assert kept.is_true()


def test_a_damaged_database_holds_its_domain_back_and_never_stands(kept: Kept) -> None:
    kept.start()
    kept.edits.renamed(f"{DOMAINS}/one.example/vpasswd.cdb", b"not a cdb")
    result = kept.touched(ONE)
    assert result is not None
    assert result.status == 75
    assert kept.accepts("ann@one.example")
    kept.edits.written("~joe/.qmail-more", "./Maildir/\n")
    other = kept.touched(JOE)
    assert other is not None
    assert other.status == 75
    assert kept.accepts("ann@one.example")
    assert kept.accepts("joe-more@mail.example")
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    kept.touched(ONE)
    assert kept.accepts("eve@one.example")
    assert kept.is_true()


def test_dead_forwards_build_every_domain_anew(kept: Kept) -> None:
    kept.config = Config(policy=Policy(dead_forwards="reject"))
    kept.edits.written("~joe/.qmail-to-two", "&tom@two.example\n")
    kept.start()
    assert kept.accepts("joe-to-two@mail.example")
    kept.edits.users("two.example", ("tim",))
    assert kept.touched(TWO) is not None
    assert not kept.accepts("joe-to-two@mail.example")
    assert kept.is_true()


def by_files(kept: Kept) -> None:
    """The host has overlays and recipients from files."""
    kept.host.write("/etc/accept", "fred@one.example\nsrs-*\n")
    kept.host.write("/etc/reject", "bob@one.example\n")
    kept.host.write("/etc/relay", "joe@relay.example\n")
    kept.config = Config(
        extra=Extra(accept_files=("/etc/accept",), reject_files=("/etc/reject",)),
        policy=Policy(relay="file"),
        relay=(Relay(file="/etc/relay"),),
    )
    kept.start()


@pytest.mark.parametrize(
    ("file", "content", "address", "accepted"),
    [
        ("/etc/accept", "fred@one.example\nsrs-*\nnew@two.example\n", "new@two.example", True),
        ("/etc/accept", "# a line more\nfred@one.example\nsrs-*\nnew@joe.example\n", "new@joe.example", True),
        ("/etc/accept", "fred@one.example\nsrs-*\nbounce\n", "bounce@mail.example", True),
        ("/etc/accept", "fred@one.example\n", "srs-1@two.example", False),
        ("/etc/accept", "fred@one.example\nsrs-*\nx@new.example\n", "x@new.example", True),
        ("/etc/reject", "ann@one.example\nbob@one.example\n", "ann@one.example", False),
        ("/etc/relay", "joe@relay.example\nann@relay.example\n", "ann@relay.example", True),
    ],
)
def test_files_of_rules_are_control_files(kept: Kept, file: str, content: str, address: str, accepted: bool) -> None:
    by_files(kept)
    assert kept.accepts(address) is not accepted
    kept.edits.written(file, content)
    result = kept.touched(CONTROL)
    assert result is not None
    assert result.status == 0
    assert kept.accepts(address) is accepted
    assert kept.is_true()


def test_a_rule_for_one_domain_builds_that_one_anew(kept: Kept) -> None:
    by_files(kept)
    kept.edits.appended("/etc/accept", "new@two.example\n")
    assert kept.touched(CONTROL) is not None
    assert {ONE, TWO} & set(kept.homes) == {TWO}
    kept.edits.written("/etc/relay", "joe@relay.example\nann@relay.example\n")
    assert kept.touched(CONTROL) is not None
    assert {ONE, TWO} & set(kept.homes) == set()


def test_recipients_from_files_are_built_anew_only_when_they_are_others(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_files(kept)
    shaped: list[bytes] = []
    real = Shaping.shape

    def shape(self: Shaping, domain: Domain) -> Shaped:
        shaped.append(domain.name)
        return real(self, domain)

    monkeypatch.setattr(Shaping, "shape", shape)
    for file, content, anew in (
        ("/etc/accept", "# a line more\nfred@one.example\nsrs-*\n", True),  # the prefix has another line
        ("/etc/accept", "# a line more\nfred@one.example\nsrs-*\nx@one.example\n", False),
        ("/etc/relay", "# a line more\njoe@relay.example\n", False),
        ("/etc/relay", "joe@relay.example\nann@relay.example\n", True),
        ("/etc/accept", "fred@one.example\nx@relay.example\n", True),
    ):
        kept.edits.written(file, content)
        shaped.clear()
        assert kept.touched(CONTROL) is not None
        assert (b"relay.example" in shaped) is anew, content
        assert kept.is_true()
    kept.edits.users("one.example", ("ann", "eve"))
    shaped.clear()
    assert kept.touched(ONE) is not None
    assert b"relay.example" not in shaped
    assert kept.is_true()


@pytest.mark.parametrize("file", ["/etc/accept", "/etc/reject", "/etc/relay"])
def test_a_file_of_rules_in_trouble_and_back(kept: Kept, file: str) -> None:
    by_files(kept)
    before = kept.file.read_bytes()
    content = kept.edits.path(file).read_text()
    kept.edits.removed(file)
    result = kept.touched(CONTROL)
    assert result is not None
    assert (result.status, list(result.kept)) == (75, [file.encode()])
    assert kept.file.read_bytes() == before
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    result = kept.touched(ONE)
    assert result is not None
    assert result.status == 75
    assert kept.accepts("eve@one.example")
    assert kept.accepts("fred@one.example")
    assert not kept.accepts("bob@one.example")
    assert not kept.accepts("ann@relay.example")
    kept.edits.written(file, content)
    assert kept.keeper.swept() >= {CONTROL}
    result = kept.touched(CONTROL)
    assert result is not None
    assert result.status == 0
    assert kept.is_true()


@pytest.mark.parametrize("spoilt", ["emptied", "removed"])
def test_a_file_of_rules_that_is_meant_to_be_empty_after_all(kept: Kept, spoilt: str) -> None:
    """Nothing stands that was built of what the file had said before, though it says no more than it did then."""
    kept.host.write("/etc/reject", "bob\n")
    kept.config = Config(extra=Extra(reject_files=("/etc/reject",)))
    kept.start()
    if spoilt == "removed":
        kept.edits.removed("/etc/reject")
    else:
        kept.edits.written("/etc/reject", "")
    result = kept.touched(CONTROL)
    assert result is not None
    assert result.status == 75
    assert not kept.accepts("bob@one.example")
    kept.edits.written("/etc/reject", "# nobody\n")
    result = kept.touched(CONTROL)
    assert result is not None
    assert result.status == 0
    assert kept.accepts("bob@one.example")
    assert kept.is_true()


def test_a_file_of_rules_that_gives_errors_is_looked_at_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    by_files(kept)
    real = Reader.read

    def read(self: Reader, path: bytes, identity: Any, limit: int) -> Any:
        if path != b"/etc/accept":
            return real(self, path, identity, limit)
        self._tree.status(b"/etc/no-such-file")
        return FailedForNow(errno.EIO)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", read)
        kept.edits.written("/etc/accept", "fred@one.example\nsrs-*\nnew@two.example\n")
        result = kept.touched(CONTROL)
        assert result is not None
        assert result.status == 75
        assert kept.accepts("fred@one.example")


def test_what_files_of_rules_were_read_from_is_watched(kept: Kept) -> None:
    by_files(kept)
    kept.edits.written("/etc/accept", "fred@one.example\n")
    kept.touched(CONTROL)
    (control,) = [paths for unit, paths in kept.keeper.read()[0] if unit == CONTROL]
    assert {b"/etc/accept", b"/etc/reject", b"/etc/relay"} <= set(control.looked_at)


def test_a_percent_hacked_domain_is_built_anew(kept: Kept) -> None:
    kept.host.write("control/percenthack", "one.example\n")
    kept.start()
    assert kept.touched(ONE) is None
    kept.edits.users("one.example", ("ann", "bob", "eve"))
    assert kept.touched(ONE) is not None
    assert kept.is_true()


def test_a_home_that_two_domains_share(kept: Kept) -> None:
    kept.edits.line("control/virtualdomains", "same.example:joe-site", there=True)
    kept.start()
    kept.edits.written("~joe/.qmail-site-new", "./Maildir/\n")
    assert kept.touched(JOE) is not None
    assert kept.accepts("new@joe.example")
    assert kept.accepts("new@same.example")
    assert kept.is_true()


def test_the_home_of_an_account_comes_and_goes(kept: Kept) -> None:
    kept.start()
    assert kept.accepts("ann@mail.example")
    home = kept.host.path("~ann")
    home.rename(home.with_name("ann.away"))
    assert CONTROL in kept.keeper.moved({CONTROL})
    assert kept.touched(CONTROL) is not None
    assert not kept.accepts("ann@mail.example")
    home.with_name("ann.away").rename(home)
    assert kept.touched(CONTROL) is not None
    assert kept.accepts("ann@mail.example")
    assert kept.is_true()


def test_a_file_that_has_just_changed_is_not_believed_and_not_called_changed(kept: Kept) -> None:
    kept.start()
    kept.edits.users("one.example", ("ann", "eve"))
    kept.touched(ONE)
    assert ONE in kept.keeper.swept({ONE})
    assert kept.keeper.moved({ONE}) == set()


def test_the_program_of_many_homes_vanishes(kept: Kept) -> None:
    kept.start()
    assert not kept.accepts("nobody@two.example")
    os.rename(kept.host.path("/home/vpopmail/bin/vdelivermail"), kept.host.path("/home/vpopmail/bin/away"))
    assert {ONE, TWO} <= kept.keeper.moved(kept.keeper.units_of(()))
    kept.touched(ONE, TWO)
    assert kept.accepts("nobody@two.example")
