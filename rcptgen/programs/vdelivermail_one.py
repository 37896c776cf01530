"""vdelivermail for one name (vdelivermail.c: main, process_valias, usernotfound)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from rcptgen.config import Vpopmail as Settings
from rcptgen.programs.vdelivermail_lines import BOUNCE, DEFER, LONGEST_LOOP, Budget, Delivery, Loops
from rcptgen.programs.vdelivermail_users import Mailboxes, dashes, dotqmail_names
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import Derived, Effect, Shell, Text, View
from rcptgen.rules.outcome import Kind
from rcptgen.vpopmail.assign import Assigned, Assignments, lowerit
from rcptgen.vpopmail.backend import Backend, Crash, Domain, Noticed, Unavailable, User
from rcptgen.vpopmail.choice import Backends
from rcptgen.vpopmail.text import c_string, is_domain_valid, is_username_valid

DTLINE = b"delivered-to: "
BOUNCE_ALL = b"bounce-no-mailbox"
DELETE_ALL = b"delete"
NO_SUCH_USER = "no such vpopmail user"
INVALID = "a name that vpopmail takes for invalid"
CRASH = "vdelivermail crashes over the record"
LOOP = "mail is looping"


def ends(status: int, reason: str, file: bytes = b"") -> Effect:
    """The effect of a vdelivermail that ends with one status."""
    return Effect(frozenset({status}), Kind.PROGRAM, reason, file=file)


@dataclass(frozen=True, slots=True)
class Vpopmail:
    """The installation: its settings, and what its files say."""

    settings: Settings
    qmail: bytes
    assignments: Assignments
    backends: Backends
    look_at_mailboxes: bool
    may_wait: bool
    """Whether a user's own directory may wait while his mail is accepted: nobody's mail is judged by where his goes."""


class DtLine:
    """The address in $DTLINE, in lower case: a constant, or made from the extension, or not known."""

    __slots__ = ("_after", "_before", "_without", "fixed")

    def __init__(
        self, fixed: bytes | None = None, before: bytes = b"", without: bytes = b"", after: bytes = b""
    ) -> None:
        self.fixed = fixed
        self._before, self._without, self._after = before, without, after

    @classmethod
    def of(cls, text: Text | None, extension: Text) -> DtLine:
        """What the variable says, for the text that $EXT is."""
        if isinstance(text, bytes):
            line = text.lower()
            return cls(line.removeprefix(DTLINE).removesuffix(b"\n") if line.startswith(DTLINE) else None)
        if isinstance(text, Derived) and text.free is extension:
            return cls(None, text.before.removeprefix(DTLINE), text.without, text.after.removesuffix(b"\n"))
        return cls()

    @classmethod
    def seen(cls, view: View) -> DtLine:
        """The address where $EXT may be anything that a view shows."""
        return cls() if view.name is None else cls(None, view.name, view.pre, b"@" + view.host)

    @property
    def key(self) -> tuple[bytes | None, bytes, bytes, bytes]:
        """What tells it from others."""
        return self.fixed, self._before, self._without, self._after

    def at(self, extension: bytes) -> bytes | None:
        """The address, for one extension."""
        if not self._after:
            return self.fixed
        return self._before + extension.lower()[len(self._without) :] + self._after

    def extension_of(self, address: bytes) -> bytes | None:
        """The extension for which it is `address`, or None."""
        address = address.lower()
        size = len(address) - len(self._before) - len(self._after)
        if not self._after or size < 0 or not (address.startswith(self._before) and address.endswith(self._after)):
            return None
        return self._without + address[len(self._before) :][:size]

    def is_always(self, domain: bytes) -> bool:
        """Whether it is every extension at `domain`."""
        return self._after == b"@" + domain.lower() and self._before == self._without


class Process:
    """One line of one home that runs vdelivermail; `one` says what becomes of mail for a name."""

    def __init__(
        self,
        vpopmail: Vpopmail,
        look: Look,
        shell: Shell,
        host: bytes,
        instruction: bytes,
        dtline: DtLine,
        leads: Leads | None = None,
    ) -> None:
        self.look = look
        self.settings = vpopmail.settings
        self.host = host
        self.instruction = instruction
        self.dtline = dtline
        self.budget = Budget()
        self._vpopmail = vpopmail
        self._shell = shell
        self._leads = leads
        self._assigned: Assigned | None = None
        self._backend: Backend | None = None
        self._mailboxes: Mailboxes | None = None
        self.looped = False
        """Whether some address was the one in $DTLINE."""

    def shares(self, other: Process) -> None:
        """Goes on with what another line of the same home has found out about the same domain."""
        self._assigned, self._backend, self._mailboxes = other._assigned, other._backend, other._mailboxes

    def one(self, text: bytes) -> Effect:
        """What becomes of mail for one extension."""
        try:
            return self._one(text)
        except Unavailable as error:
            return ends(DEFER, error.reason, error.source)
        except Crash:
            return ends(DEFER, CRASH)

    def _one(self, text: bytes) -> Effect:
        name = lowerit(c_string(text))
        if not is_username_valid(name) or not is_domain_valid(self.host):
            return ends(BOUNCE, INVALID)
        loops = partial(self._loops, self.dtline.at(c_string(text)))
        if loops(name + b"@" + self.assigned.name):
            return ends(BOUNCE, LOOP)
        base, dash, extension = name.partition(b"-")
        if not self.settings.qmail_ext:
            dash = extension = b""
        files = dotqmail_names(extension.replace(b".", b":"))
        user, by_base = None, False
        try:
            lines, default = self.alias(name)
            if not lines:
                user = self.user(name)
                by_base = user is None and bool(dash)
                user = self.user(base) if by_base else user
        except Unavailable as error:
            if error.noticed is Noticed.ALL or (error.noticed is Noticed.UNDASHED and not dash):
                raise
            return self.unnoticed(error, files, loops)
        if lines or user:
            self._varies()
        if lines:
            return self.carried_out(lines, loops, default)
        return self.delivered(user, files, loops, by_base=by_base) if user else self.not_found(files, loops)

    def _varies(self) -> None:
        """The name decides where the mail goes."""
        if self._leads is not None:
            self._leads.varies = True

    def _loops(self, address: bytes | None, line: bytes) -> bool:
        found = address is not None and len(line) <= LONGEST_LOOP and line.lower() == address
        self.looped |= found
        return found

    # -- the domain -------------------------------------------------------------------------------

    @property
    def assigned(self) -> Assigned:
        """What users/cdb says of the domain."""
        if self._assigned is None:
            self._assigned = self._vpopmail.assignments.assigned(self.look, self.host)
        return self._assigned

    @property
    def backend(self) -> Backend:
        """Where its users are kept."""
        if self._backend is None:
            domain = self.assigned.domain
            self._backend = self._vpopmail.backends.of(self.look, domain.directory if domain else self.look.home)
        return self._backend

    @property
    def domain(self) -> Domain | None:
        """The domain whose users a process of this owner finds, or None (vcdb.c, vmysql.c: vauth_getpw)."""
        domain = self.assigned.domain
        if domain is None or (self.backend.checks_uid and self.look.identity.uid not in (0, domain.uid)):
            return None
        return domain

    @property
    def aliases_of(self) -> Domain:
        """The domain whose valias rows are looked up, be it in users/cdb or not."""
        name, domain = self.assigned.name, self.assigned.domain
        return domain if domain is not None and domain.name == name else Domain(name, 0, 0, b"")

    # -- what is found ------------------------------------------------------------------------------

    def user(self, name: bytes) -> User | None:
        """A user of the domain."""
        return None if self.domain is None else self.backend.user(self.look, self.domain, name)

    def alias(self, name: bytes) -> tuple[Sequence[bytes], bytes | None]:
        """The valias rows that a name finds, and what $DEFAULT becomes by that (vdelivermail.c: process_valias)."""
        tails = {name[:end] + b"default": name[end:] for end in dashes(name)[:-1]}
        tried = [name, *tails]
        if self.settings.qmail_ext and b"-" in name:
            tried.append(name.partition(b"-")[0])
        lines = self.backend.alias(self.look, self.aliases_of, tried)
        if not any(line.startswith(b"|") for line in lines):
            return lines, None
        found = next((one for one in tried if self.backend.alias(self.look, self.aliases_of, [one])), name)
        return lines, None if found == name else tails.get(found)

    # -- what is done -------------------------------------------------------------------------------

    def delivery(self, loops: Loops) -> Delivery:
        """A process that has not done anything yet."""
        look_at_mailboxes = self._vpopmail.look_at_mailboxes
        return Delivery(
            self.look, self._shell, loops, self.budget, look_at_mailboxes=look_at_mailboxes, leads=self._leads
        )

    @property
    def mailboxes(self) -> Mailboxes:
        """What is known about the users of the domain."""
        if self._mailboxes is None:
            assert self.domain is not None, "users are of a domain"
            lda = self._vpopmail.qmail + b"/control/defaultdelivery" if self.settings.default_delivery else b""
            self._mailboxes = Mailboxes(
                self.look,
                self.domain,
                makes_directories=self.backend.makes_directories,
                default_delivery=lda,
                judge=self.settings.mailbox_dotqmail == "judge",
                may_wait=self._vpopmail.may_wait,
            )
        return self._mailboxes

    def delivered(self, user: User, files: Sequence[bytes], loops: Loops, *, by_base: bool = False) -> Effect:
        """The effect of mail for a user."""
        return self.mailboxes.effect(user, files, self.delivery(loops), by_base=by_base)

    def carried_out(
        self, lines: Sequence[bytes], loops: Loops, default: bytes | None = None, *, some_default: bool = False
    ) -> Effect:
        """The effect of valias rows; `default` is put into $DEFAULT, or `some_default` a text that nobody knows."""
        delivery = self.delivery(loops)
        if some_default:
            delivery.preamble = b"DEFAULT=$SENDER; export DEFAULT; "
        elif default is not None:
            delivery.preamble = b"DEFAULT='" + default.replace(b"'", b"'\\''") + b"'; export DEFAULT; "
        for line in lines:
            delivery.line(c_string(line))
        return delivery.effect(Kind.VALIAS)

    def unnoticed(self, error: Unavailable, files: Sequence[bytes], loops: Loops) -> Effect:
        """The effect where vdelivermail takes a database that does not answer for one without the user."""
        effect = self.not_found(files, loops)
        reason = f"{effect.reason} (vdelivermail does not notice: {error.reason})"
        return replace(effect, reason=reason, file=effect.file or error.source)

    def not_found(self, files: Sequence[bytes], loops: Loops) -> Effect:
        """The effect of the instruction (vdelivermail.c: usernotfound)."""
        instruction = self.instruction
        if instruction == BOUNCE_ALL:
            return ends(BOUNCE, NO_SUCH_USER)
        if instruction == DELETE_ALL:
            if self._leads is not None:
                self._leads.elsewhere("mail for unknown users is thrown away")
            return Effect(frozenset({0}), Kind.DISCARD, "mail for unknown users is thrown away")
        delivery = self.delivery(loops)
        if instruction.startswith((b"/", b"|")):
            self._varies()
        if instruction.startswith(b"/"):
            path = instruction if instruction.endswith(b"/") else instruction + b"/"
            if not delivery.file_of(path, files):
                delivery.line(path + b"Maildir/")
        else:
            delivery.line(instruction)
        effect = delivery.effect()
        if effect.kind in (Kind.DISCARD, Kind.UNKNOWN) or effect.statuses.isdisjoint((0, 99)):
            return effect
        return replace(effect, kind=Kind.CATCHALL)
