"""The configuration file (/etc/rcptgen.toml): a contract, in which unknown keys are errors.

Paths in it are those of the host, taken below the alternate root by whoever reads them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from rcptgen.errors import ConfigurationError

DEFAULT_PATH = b"/etc/rcptgen.toml"


def _absolute(path: str, key: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"{key} must be an absolute path")


def _path(path: str, key: str) -> None:
    _absolute(path, key)
    if "\0" in path:
        raise ValueError(f"{key} holds a NUL")


def _command(words: tuple[str, ...], key: str) -> None:
    if words:
        _absolute(words[0], f"the program of {key}")
    if any("\0" in word for word in words):
        raise ValueError(f"{key} holds a NUL")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section: immutable, keyword only, no unknown keys."""


class Qmail(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this host's qmail was built and started."""

    directory: str = "/var/qmail"
    break_: str = msgspec.field(default="-", name="break")
    forbidden_modes: int = 0o002
    alias: str = "alias"
    default_delivery: str = "./Mailbox"
    accounts: str = "auto"

    def __post_init__(self) -> None:
        if len(self.break_.encode()) > 1:
            raise ValueError("break is one character (conf-break), or empty for none")
        if not 0 <= self.forbidden_modes <= 0o7777:
            raise ValueError("forbidden_modes are permission bits (conf-patrn), such as 0o002")
        if self.accounts not in ("auto", "enumerate", "passwd") and not self.accounts.startswith("/"):
            raise ValueError('accounts is "auto", "enumerate", "passwd" or an absolute path')
        _absolute(self.directory, "directory")


class Vpopmail(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this host's vpopmail was built."""

    backend: Literal["auto", "cdb", "mysql", "postgresql"] = "auto"
    directory: str = "/home/vpopmail"
    qmail_ext: bool = False
    valias: Literal["auto"] | bool = "auto"
    many_domains: bool = True
    default_delivery: bool = False
    mailbox_dotqmail: Literal["judge", "accept"] = "judge"

    def __post_init__(self) -> None:
        _absolute(self.directory, "directory")


class Programs(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the shell finds the programs that dot-qmail lines name."""

    path: str = "/var/qmail/bin:/usr/local/bin:/usr/bin:/bin"


class Policy(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the administrator wants beyond the truth."""

    prepended: Literal["auto", "exact", "prefix", "refuse"] = "auto"
    dead_forwards: Literal["accept", "reject"] = "accept"
    relay: Literal["accept", "file"] = "accept"
    percenthack: Literal["refuse", "widen"] = "refuse"
    suffix_domains: tuple[str, ...] = ()
    envnoathost_names: bool = False


class Guard(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a shrinking list is held back."""

    domain_loss: float = 0.50
    domain_loss_min: int = 5
    total_loss: float = 0.05
    total_loss_min: int = 50
    new_catchalls: int = 10
    must_accept: tuple[str, ...] = ()
    must_refuse: tuple[str, ...] = ()
    must_be_mounted: tuple[str, ...] = ()
    on_hold: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.domain_loss <= 1 and 0 <= self.total_loss <= 1):
            raise ValueError("domain_loss and total_loss are shares between 0 and 1")
        if min(self.domain_loss_min, self.total_loss_min, self.new_catchalls) < 0:
            raise ValueError("domain_loss_min, total_loss_min and new_catchalls are counts")
        for text in (*self.must_accept, *self.must_refuse):
            local, at, domain = text.rpartition("@")
            if not domain or (at and not local) or "*" in local[:-1] + domain or not text.isprintable() or " " in text:
                raise ValueError(f"{text!r} is not user@domain, prefix*@domain or *@domain")
        for path in self.must_be_mounted:
            _absolute(path, "must_be_mounted")
        _command(self.on_hold, "on_hold")


class History(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many publications are remembered, and who is told of one."""

    keep: int = 10
    on_publish: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.keep <= 1000:
            raise ValueError("keep is a number of generations between 2 and 1000")
        _command(self.on_publish, "on_publish")


class Extra(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Overlays: addresses to accept or refuse whatever the host says."""

    accept: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    accept_files: tuple[str, ...] = ()
    reject_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("accept_files", "reject_files"):
            for path in getattr(self, key):
                _path(path, key)


class Relay(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file with the recipients of relayed domains, for `[policy] relay = "file"`."""

    file: str
    format: Literal["text", "csv", "cdb"] = "text"
    column: int | str = 1
    header: bool = False
    delimiter: str = ","

    def __post_init__(self) -> None:
        _path(self.file, "file")
        if self.column == "" or (isinstance(self.column, int) and self.column < 1):
            raise ValueError("column is the name of a column, or its number from 1 on")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0' or not self.delimiter.isascii():
            raise ValueError("delimiter is one ASCII character, and no quote or line end")
        if self.format != "csv" and (self.column != 1 or self.header or self.delimiter != ","):
            raise ValueError('column, header and delimiter go with format = "csv"')


class Watch(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The watch service."""

    socket: str = "/run/rcptgen/trigger.sock"
    debounce: float = 0.2
    max_delay: float = 2.0
    rest: float = 5.0
    sweep: float = 60.0
    full: float = 86400.0
    sql_poll: float = 5.0

    def __post_init__(self) -> None:
        _absolute(self.socket, "socket")
        if min(self.debounce, self.rest) < 0 or self.max_delay < self.debounce:
            raise ValueError("debounce, max_delay and rest are not negative, and max_delay is not less than debounce")
        if min(self.sweep, self.full, self.sql_poll) < 1:
            raise ValueError("sweep, full and sql_poll are seconds, at least one")


class Metrics(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What node_exporter's textfile collector is to pick up; empty: nothing."""

    textfile: str = ""

    def __post_init__(self) -> None:
        if self.textfile:
            _absolute(self.textfile, "textfile")
            if not self.textfile.endswith(".prom"):
                raise ValueError("textfile must end in .prom: the collector reads no other file")


class Plugins(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Third-party code runs as root: only what is named here is loaded."""

    programs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


class Output(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file to publish.

    `wildcards` says what becomes of rules that the format cannot say.  `options` are the other
    keys of the section, which are the target's own.
    """

    target: str
    path: str
    mode: int = 0o644
    wildcards: Literal["widen", "drop-domain", "refuse"] = "widen"
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _absolute(self.path, "path")
        if not 0 <= self.mode <= 0o777:
            raise ValueError("mode is a file mode such as 0o644")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration; every key has a default."""

    qmail: Qmail = Qmail()
    vpopmail: Vpopmail = Vpopmail()
    programs: Programs = Programs()
    policy: Policy = Policy()
    guard: Guard = Guard()
    extra: Extra = Extra()
    watch: Watch = Watch()
    history: History = History()
    metrics: Metrics = Metrics()
    serve: dict[str, Any] = {}
    plugins: Plugins = Plugins()
    relay: tuple[Relay, ...] = ()
    output: tuple[Output, ...] = ()

    def __post_init__(self) -> None:
        if self.relay and self.policy.relay != "file":
            raise ValueError('[[relay]] goes with [policy] relay = "file"')
        if self.policy.relay == "file" and not self.relay:
            raise ValueError('[policy] relay = "file" needs a [[relay]] with the file')

    def without_hooks(self) -> Config:
        """The same, but nobody is told of anything."""
        guard = msgspec.structs.replace(self.guard, on_hold=())
        history = msgspec.structs.replace(self.history, on_publish=())
        return msgspec.structs.replace(self, guard=guard, history=history)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The configured outputs; without any, qmail's own validrcptto.cdb."""
        return self.output or (
            Output(target="validrcptto", path=self.qmail.directory.rstrip("/") + "/control/validrcptto.cdb"),
        )


_SECTIONS: dict[str, type[Section]] = {
    "qmail": Qmail,
    "vpopmail": Vpopmail,
    "programs": Programs,
    "policy": Policy,
    "guard": Guard,
    "history": History,
    "extra": Extra,
    "watch": Watch,
    "metrics": Metrics,
    "plugins": Plugins,
    "relay": Relay,
    "output": Output,
}


OptionNames = Callable[[str, Sequence[str]], Sequence[str]]
"""The options that a target has, by its name and the names of the plugins that may be loaded."""


def _no_options(target: str, plugins: Sequence[str]) -> Sequence[str]:
    return ()


def parse(data: bytes, name: str, option_names: OptionNames = _no_options) -> Config:
    """The configuration that the TOML text `data` holds; `name` is the file's name for messages.

    Raises ConfigurationError with every unknown key and the nearest known one, or with
    the first value that does not fit.
    """
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError, UnicodeDecodeError, and what int() and deep nesting let through.
        raise ConfigurationError(f"{name}: not a TOML file: {error}") from None
    _options(table, option_names)
    problems = list(_unknown_keys(table))
    if problems:
        raise ConfigurationError("\n".join(f"{name}: {problem}" for problem in problems))
    try:
        return msgspec.convert(table, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _options(table: dict[str, Any], option_names: OptionNames) -> None:
    """Puts the keys of each output that are its target's options into a table of their own."""
    plugins = table.get("plugins")
    known = plugins.get("targets") if isinstance(plugins, dict) else None
    names = [one for one in known if isinstance(one, str)] if isinstance(known, list) else []
    outputs = table.get("output")
    for part in outputs if isinstance(outputs, list) else ():
        if isinstance(part, dict) and isinstance(part.get("target"), str) and "options" not in part:
            try:
                wanted = option_names(part["target"], names)
            except ConfigurationError:
                continue  # an unknown target is told by whoever uses the output
            options = {key: part.pop(key) for key in wanted if key in part}
            if options:
                part["options"] = options


def _unknown_keys(table: dict[str, Any]) -> list[str]:
    problems = []
    known = [*Config.__struct_encode_fields__]
    for key, value in table.items():
        if key not in known:
            problems.append(f"unknown section [{key}]{_nearest(key, known)}")
            continue
        section = _SECTIONS.get(key)
        for part in value if isinstance(value, list) else [value]:
            if section is not None and isinstance(part, dict):
                fields = [*section.__struct_encode_fields__]
                problems += [
                    f"unknown key {name!r} in [{key}]{_nearest(name, fields)}" for name in part if name not in fields
                ]
    return problems


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; the nearest known one is {close[0]!r}" if close else f"; known are {', '.join(known)}"
