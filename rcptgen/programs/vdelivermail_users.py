"""What vdelivermail does for a user that it has found (vdelivermail.c: checkuser)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from rcptgen.programs.vdelivermail_lines import BOUNCE, DEFER, LONGEST_PATH, MAILBOX, Delivery
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import Effect
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Absent, EntryType, FailedForNow, Failure, Refused, Status
from rcptgen.vpopmail.backend import Domain, User

BOUNCE_FLAG = 0x10
LONGEST_MADE = 160
"""vpopmail.h: MAX_PW_DIR, the longest directory that vpopmail makes for a user."""

MOST_LISTINGS = 4
_MISSING = Absent(errno.ENOENT)
_NO_NAMES = frozenset((b"", b".", b".."))

LOCKED = "the mailbox is locked"
DOTQMAIL = b".qmail"


def dotqmail_names(extension: bytes) -> list[bytes]:
    """The files that are tried for an extension (vdelivermail.c: check_forward_deliver)."""
    if not extension:
        return [DOTQMAIL]
    names = [DOTQMAIL + b"-" + extension]
    names += [DOTQMAIL + b"-" + extension[:end] + b"default" for end in dashes(extension)]
    return [*names, DOTQMAIL]


def dashes(extension: bytes) -> list[int]:
    """Where the prefixes of an extension end, the longest first; the empty one is the last."""
    return [end for end in range(len(extension), 0, -1) if extension[end - 1 : end] == b"-"] + [0]


class Mailboxes:
    """The users of one domain, as far as their records do not decide by themselves.

    `default_delivery` is control/defaultdelivery in builds that go by it.  Where `judge` is
    False no directory below the domain's is looked at.  With `may_wait` the directory of a user
    whose mail is accepted, and his dot-qmail files, may wait.
    """

    def __init__(
        self,
        look: Look,
        domain: Domain,
        *,
        makes_directories: bool,
        default_delivery: bytes,
        judge: bool,
        may_wait: bool,
    ) -> None:
        self._look = look
        self._domain = domain
        self._makes_directories = makes_directories
        self._default_delivery = default_delivery
        self._judge = judge
        self._may_wait = may_wait
        self._listings: dict[bytes, dict[bytes, EntryType] | Failure] = {}
        self._writable: dict[bytes, bool] = {}

    def names(self, directory: bytes) -> dict[bytes, EntryType] | Failure:
        """What Look.names says; the last directories are remembered."""
        if self.is_missing(directory):
            return _MISSING
        if directory not in self._listings:
            if len(self._listings) >= MOST_LISTINGS:
                self._listings.clear()
            self._listings[directory] = self._look.names(directory)
        return self._listings[directory]

    def is_missing(self, directory: bytes) -> bool:
        """Whether a listing of the domain's directory, made before, shows that there is no such one below it.

        Then it can be made, if only the domain's directory can be written to.
        """
        base = self._domain.directory
        listed = self._listings.get(base)
        if not isinstance(listed, dict) or not directory.startswith(base + b"/"):
            return False
        first, *others = directory[len(base) + 1 :].split(b"/")
        return first not in listed and _NO_NAMES.isdisjoint((first, *others))

    def effect(self, user: User, files: Sequence[bytes], delivery: Delivery, *, by_base: bool = False) -> Effect:
        """What becomes of a message for the user, whose `.qmail` is the first of `files` that is there.

        `by_base`: the user was found by what stands before the dash of the address.
        """
        source = (user.file, 0)
        if user.gid & BOUNCE_FLAG:
            delivery.ends(BOUNCE, LOCKED, source)
            return delivery.effect()
        if self.is_granted(user.directory):
            delivery.takes(Kind.VPOPMAIL, MAILBOX, source)
            return delivery.effect()
        with self._look.apart() as may_wait:
            effect = self._looked_at(user, files, delivery, source, by_base=by_base)
            directory = user.directory
            if directory and self._may_wait and effect.statuses - {BOUNCE}:
                may_wait((directory, *(os.path.join(directory, name) for name in files)))
        return effect

    def _looked_at(
        self, user: User, files: Sequence[bytes], delivery: Delivery, source: tuple[bytes, int], *, by_base: bool
    ) -> Effect:
        """The same for a user whose directory decides."""
        directory = user.directory or self._filled_in(user, delivery, by_base=by_base)
        if delivery.going:
            self._exists(directory, delivery, source)
        if delivery.going and not delivery.file_of(directory, files):
            return self.mailbox(directory, delivery, source)
        return delivery.effect()

    def is_granted(self, directory: bytes) -> bool:
        """Whether mail for the user is taken to be delivered without a look (mailbox_dotqmail = "accept")."""
        return not self._judge and self.inside(directory) is not None

    def mailbox(self, directory: bytes, delivery: Delivery, source: tuple[bytes, int]) -> Effect:
        """What becomes of it where the user has no `.qmail`."""
        if self._default_delivery and delivery.default_delivery(self._default_delivery):
            return delivery.effect(Kind.VPOPMAIL)
        if delivery.going:
            delivery.line((directory + b"/Maildir/")[:LONGEST_PATH], source)
        return delivery.effect(Kind.VPOPMAIL)

    def _filled_in(self, user: User, delivery: Delivery, *, by_base: bool) -> bytes:
        """The directory that is made for a user without one (vpopmail.c: make_user_dir)."""
        source = (user.file, 0)
        directory = self._domain.directory + b"/" + user.name
        if not self._makes_directories:
            delivery.ends(BOUNCE, "the user has no directory, and vpopmail fails to make one", source)
        elif len(directory) - 1 > LONGEST_MADE or not self._may_write(self._domain.directory):
            delivery.ends(BOUNCE, "the user has no directory, and none can be made", source)
        elif by_base or not isinstance(self._look.status(directory), Absent):
            # Made and recorded it is all the same, or below a directory of its own: from then on mail arrives.
            delivery.unjudged("the user has no directory yet", source)
        else:
            delivery.made = directory
        return directory

    def _exists(self, directory: bytes, delivery: Delivery, source: tuple[bytes, int]) -> None:
        """Ends the delivery where the directory is not there and cannot be made (vpopmail.c: vmake_maildir)."""
        if delivery.made == directory:
            return
        parent, _, name = directory.rpartition(b"/")
        listed = self._listings.get(parent)
        if self.is_missing(directory):
            found: Status | Failure = _MISSING
            can_make = self._may_write(self._domain.directory)
        elif isinstance(listed, dict) and name not in listed and name not in (b"", b".", b".."):
            found = _MISSING
            can_make = self.inside(directory) is not None and self._may_write(parent)
        else:
            found = self._look.status(directory)
            can_make = isinstance(found, Absent | Refused) and self.can_make(directory)
        if isinstance(found, Status):
            return
        if isinstance(found, FailedForNow):
            delivery.ends(DEFER, "the directory cannot be looked up for now", source)
        elif can_make:
            delivery.made = self._look.path(directory)
        else:
            delivery.ends(BOUNCE, "the directory is not there and cannot be made", source)

    def inside(self, directory: bytes) -> bytes | None:
        """What of the path lies below the domain's directory, or None where it does not.

        vmake_maildir strips the characters that both begin with, makes the rest below the
        domain's directory, and then enters the path as it was: both must be the same place.
        """
        base = self._domain.directory
        shared = len(os.path.commonprefix([base, directory]))  # noqa: RUF071 - by characters, as vpopmail has it
        rest = directory[shared:].lstrip(b"/")
        if directory.startswith(b"/"):
            whole = shared == len(base) and (base.endswith(b"/") or directory[shared : shared + 1] == b"/")
            if not whole:
                return None
        return rest if rest and b".." not in rest.split(b"/") else None

    def can_make(self, directory: bytes) -> bool:
        """Whether a directory that is not there would be made (vpopmail.c: vmake_maildir, r_mkdir)."""
        rest = self.inside(directory)
        if rest is None:
            return False
        path = self._domain.directory
        for part in rest.split(b"/"):
            if part in (b"", b"."):
                continue
            found = self._look.status(path + b"/" + part)
            if isinstance(found, Status):
                path += b"/" + part
            else:
                missing = isinstance(found, Absent) and found.errno == errno.ENOENT
                return missing and self._may_write(path) and not self._taken(path, part)
        return False

    def _taken(self, path: bytes, name: bytes) -> bool:
        """Whether a link to nowhere is in the way."""
        names = self.names(path)
        return isinstance(names, dict) and name in names

    def _may_write(self, directory: bytes) -> bool:
        if directory not in self._writable:
            if len(self._writable) >= MOST_LISTINGS:
                self._writable.clear()
            found = self._look.accessible(directory, os.W_OK | os.X_OK)
            self._writable[directory] = isinstance(found, Status) and stat.S_ISDIR(found.mode)
        return self._writable[directory]
