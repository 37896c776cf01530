"""`rcptgen install-units`: puts the systemd units in place, as this installation and its configuration need them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.resources import files

import click

from rcptgen.cli import Globals, safe
from rcptgen.config import DEFAULT_PATH, Config
from rcptgen.errors import ConfigurationError, PublishFailed
from rcptgen.publish.files import Publication
from rcptgen.publish.paths import locate, ours, writable_by_others

UNITS = ("rcptgen-watch.service", "rcptgen.service", "rcptgen.timer", "rcptgen.path")
SERVICES = ("rcptgen-watch.service", "rcptgen.service")
SQL_TCP = "sql-tcp.conf"
DIRECTORY = "/etc/systemd/system"
MODE = 0o644

# What stands in the units as they are shipped.
_PROGRAM = "ExecStart=/usr/bin/python3 -I -m rcptgen"
_QMAIL = "/var/qmail/"
_WRITABLE = "ReadWritePaths="
_WATCHED = f"PathChanged={os.fsdecode(DEFAULT_PATH)}"


@click.command("install-units")
@click.option("--dir", "directory", metavar="DIR", help=f"Where they go  [default: {DIRECTORY}].")
@click.option("--sql-tcp", is_flag=True, help="Drop-ins, too, for a vpopmail database that is reached over TCP.")
@click.option("--print", "only_print", is_flag=True, help="Write them to stdout instead.")
@click.pass_obj
def command(given: Globals, directory: str | None, sql_tcp: bool, only_print: bool) -> int:
    """Install the systemd units, for this Python and the configured outputs.

    The services rcptgen-watch and rcptgen (one compile), and for the latter a timer and a path
    unit.  Nothing is enabled or started.  What you change belongs into drop-ins (systemctl
    edit): another install-units replaces the units.
    """
    given.asking = False
    if given.state_path is not None:
        raise click.UsageError("the units keep their state in /var/lib/rcptgen: leave --state away")
    where = os.path.abspath(os.fsencode(directory)) if directory else given.root.rstrip(b"/") + DIRECTORY.encode()
    units = dict(_units(given, given.config(), sql_tcp=sql_tcp))
    if only_print:
        for name, text in units.items():
            click.echo(f"# {safe(os.fsdecode(where))}/{name}\n{text}")
        return 0
    for name, changed in _installed(where, units).items():
        if changed or given.verbose:
            _say(given, f"{os.fsdecode(where)}/{name}: {'installed' if changed else 'unchanged'}")
    for warning in _warnings():
        click.echo(f"rcptgen: {safe(warning)}", err=True)
    _say(given, "then: systemctl daemon-reload && systemctl enable --now rcptgen-watch.service")
    return 0


def _say(given: Globals, text: str) -> None:
    if not given.quiet:
        click.echo(safe(text), err=True)


def _units(given: Globals, config: Config, *, sql_tcp: bool) -> Iterator[tuple[str, str]]:
    """Every file to install: its name below the units' directory, and its text."""
    shipped = files("rcptgen") / "systemd"
    program = [sys.executable, "-I", "-m", "rcptgen"]
    file = os.fsdecode(DEFAULT_PATH)
    if given.config_path is not None:
        file = os.path.abspath(os.fsdecode(given.config_path))
        program += ["--config", file]
    start = "ExecStart=" + " ".join(_quoted(word).replace("$", "$$") for word in program)
    writable = "ReadWritePaths=" + " ".join(_writable(config))
    qmail = _escaped(config.qmail.directory.rstrip("/")) + "/"

    def adapted(line: str) -> str:
        if line.startswith(_PROGRAM):
            return start + line.removeprefix(_PROGRAM)
        if line == _WATCHED:
            return f"PathChanged={_escaped(file)}"
        return writable if line.startswith(_WRITABLE) else line.replace(_QMAIL, qmail)

    for name in UNITS:
        lines = (shipped / name).read_text(encoding="utf-8").splitlines()
        yield name, "".join(f"{adapted(line)}\n" for line in lines)
    if sql_tcp:
        for name in SERVICES:
            yield f"{name}.d/{SQL_TCP}", (shipped / SQL_TCP).read_text(encoding="utf-8")


def _writable(config: Config) -> Iterator[str]:
    """The directories that a compile renames files into; those of the metrics may be missing."""
    for directory in sorted({os.path.dirname(one.path) for one in config.outputs}):
        yield _quoted(directory)
    if config.metrics.textfile:
        yield _quoted("-" + os.path.dirname(config.metrics.textfile))


def _escaped(word: str) -> str:
    """`word` with systemd's specifiers taken literally; raises ConfigurationError for what no unit file can hold."""
    if not word.isprintable():
        raise ConfigurationError(f"{safe(word)}: a unit file cannot name this")
    return word.replace("%", "%%")


def _quoted(word: str) -> str:
    """`word` as one word of a unit's list (systemd.syntax(7))."""
    text = _escaped(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if set(word) & set(" '\"\\;") else text


def _installed(where: bytes, units: dict[str, str]) -> dict[str, bool]:
    """Writes all units or none; of each whether it is new or changed."""
    for directory in sorted({os.path.dirname(name) for name in units} - {""}):
        _make_directory(where + b"/" + os.fsencode(directory))
    with Publication() as publication:
        for name, text in units.items():
            publication.stage(where + b"/" + os.fsencode(name), MODE).write([text.encode()])
        done = publication.commit()
    return {name: one.changed for name, one in zip(units, done, strict=True)}


def _make_directory(path: bytes) -> None:
    place = locate(path)
    try:
        os.mkdir(place.name, 0o755, dir_fd=place.directory)
    except FileExistsError:
        pass
    finally:
        place.close()


def _warnings() -> Iterator[str]:
    """What would keep the units from doing their work, or let others do it."""
    if importlib.util.find_spec("sdnotify") is None:
        yield "rcptgen-watch.service takes sdnotify: pip install 'rcptgen[systemd]'"
    try:
        place = locate(os.fsencode(sys.executable))
    except PublishFailed as error:
        yield str(error)
        return
    status = os.fstat(place.directory)
    place.close()
    if not ours(status) or writable_by_others(status):
        yield f"{sys.executable}: others than root can replace it, and the units run it as root"
