"""The command line: one thin click command a file; here is what they share."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from rcptgen import __version__
from rcptgen.config import DEFAULT_PATH, Config, parse
from rcptgen.errors import ConfigurationError, NeedsRoot, RcptgenError, Shortage, UsageTrouble
from rcptgen.rules.shown import safe as safe
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Absent, Regular, SourceTree
from rcptgen.targets import option_names, target, target_names
from rcptgen.targets.base import Target

DEFAULT_STATE = b"/var/lib/rcptgen"
INTERRUPTED = 130
BUG = 70
_COMPLETING = "_RCPTGEN_COMPLETE"
"""Set by the shells' completion scripts (click.shell_completion): nothing is run, words are completed."""
_OUTPUT = re.compile(r"([^=,]*(?:,[a-z_]+=[^=,/]*)*)=(.+)", re.DOTALL)
_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})

COMMANDS = {
    "compile": "compile_",
    "check": "check",
    "explain": "explain",
    "list": "list_",
    "dump": "dump",
    "query": "query",
    "diff": "diff",
    "verify": "verify",
    "approve": "approve",
    "replay": "replay",
    "history": "history",
    "rollback": "rollback",
    "resume": "resume",
    "lint": "lint",
    "doctor": "doctor",
    "watch": "watch",
    "report": "report",
    "trigger": "trigger",
    "install-units": "install_units",
}

PATH = click.Path(readable=False)
"""For arguments that are files or directories: shells complete them, and we say ourselves what is wrong with one."""


@dataclass(slots=True)
class Globals:
    """The options before the command.  `asking`: the command answers a question, so that trouble is status 2."""

    root: bytes = b"/"
    config_path: bytes | None = None
    state_path: bytes | None = None
    quiet: bool = False
    verbose: bool = False
    asking: bool = True

    def config(self) -> Config:
        """The configuration that is in force: `--config`, else the one of the host, else all defaults.

        What an alternate root says of hooks is not obeyed: they would run here, not there.
        """
        if self.config_path is not None:
            found = SourceTree(b"/", access="bits", record=False).read(os.path.abspath(self.config_path))
            if isinstance(found, Absent):
                raise ConfigurationError(f"{shown(self.config_path)}: no such file")
            path = self.config_path
        else:
            found = SourceTree(self.root, access="bits", record=False).read(DEFAULT_PATH)
            path = DEFAULT_PATH
            if isinstance(found, Absent):
                return Config()
        if not isinstance(found, Regular):
            reason = os.strerror(found.errno) if hasattr(found, "errno") else "not a regular file of usual size"
            raise ConfigurationError(f"{shown(path)}: cannot be read: {reason}")
        config = parse(found.data, shown(path), option_names)
        return config if self.root == b"/" or self.config_path is not None else config.without_hooks()

    def state(self) -> bytes | None:
        """The state directory: `--state`, else the usual one for the live host, else none."""
        if self.state_path is not None:
            return os.path.abspath(self.state_path)
        return DEFAULT_STATE if self.root == b"/" else None

    def tell(self, troubles: Mapping[bytes, str]) -> None:
        """Says which files of rules cannot be used, by path with the reason: the answers are without their rules."""
        for path, why in troubles.items() if not self.quiet else ():
            click.echo(f"rcptgen: {shown(path)}: {why}; what it says is not known", err=True)

    def need_root(self) -> None:
        """Raises NeedsRoot where only root could read the host as its users do."""
        if os.geteuid() == 0:
            return
        if self.root == b"/":
            raise NeedsRoot("the live host is read as each home's owner: that needs root")
        if not self.quiet:
            _say("not run as root: what each owner may read is judged from the mode bits alone")


def spelled(text: str) -> tuple[str, dict[str, str]]:
    """The name and the options of a target as the command line spells it: `NAME` or `NAME,OPTION=VALUE,...`."""
    name, *options = text.split(",")
    pairs = [one.partition("=") for one in options]
    if any(not equals for _, equals, _ in pairs):
        raise click.UsageError(f"{safe(text)}: not TARGET or TARGET,OPTION=VALUE")
    return name, {key: value for key, _, value in pairs}


def named(text: str) -> tuple[str, str] | None:
    """The target, as it is spelled, and the path that `TARGET=PATH` names; None where the text is nothing like it."""
    parts = _OUTPUT.fullmatch(text)
    return None if parts is None else (parts[1], parts[2])


def target_of(config: Config, text: str | None, file: bytes) -> Target:
    """The target of a compiled file: as it is spelled, else that of the configured output at that path.

    What is not spelled, the options and what becomes of rules that the format cannot say, is
    that of the configured output, where it has the same target.
    """
    plugins = config.plugins.targets
    path = os.fsdecode(os.path.abspath(file))
    output = next((one for one in config.output if one.path == path), None)
    name, options = (output.target if output is not None else "validrcptto", {}) if text is None else spelled(text)
    if name not in target_names(plugins):
        raise click.UsageError(f"no target is called {safe(name)!r}; known are {', '.join(target_names(plugins))}")
    wildcards = "widen"
    if output is not None and output.target == name:
        wildcards = output.wildcards
        options = options or output.options
    return target(name, break_=config.qmail.break_.encode(), wildcards=wildcards, options=options, plugins=plugins)


TARGET = click.option(
    "--target",
    metavar="TARGET",
    shell_complete=lambda ctx, param, incomplete: [name for name in target_names() if name.startswith(incomplete)],
    help="The file's format  [default: that of the configured output, else validrcptto].",
)


class _Lazy(click.Group):
    """Commands are imported when they are called: a compile from cron does not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(f"rcptgen.cli.{module}").command
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", metavar="FILE", type=PATH, help="Configuration file  [default: /etc/rcptgen.toml of the host]."
)
@click.option("--root", metavar="DIR", type=PATH, default="/", help="Read the host below DIR instead of the live one.")
@click.option(
    "--state", metavar="DIR", type=PATH, help="What runs remember  [default: /var/lib/rcptgen; with --root none]."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.version_option(__version__, prog_name="rcptgen")
@click.pass_context
def cli(ctx: click.Context, config: str | None, root: str, state: str | None, quiet: bool, verbose: bool) -> None:
    """Compile the valid recipients of a qmail host into validrcptto.cdb."""
    if quiet and verbose:
        raise click.UsageError("-q and -v contradict each other")
    given = ctx.ensure_object(Globals)
    given.root = os.path.abspath(os.fsencode(root))
    given.config_path = None if config is None else os.fsencode(config)
    given.state_path = None if state is None else os.fsencode(state)
    given.quiet, given.verbose = quiet, verbose
    if not os.path.isdir(given.root):
        raise click.UsageError(f"--root {shown(given.root)}: no such directory")


def run(arguments: list[str]) -> int:
    """The exit status of the command line `arguments`; this is the one place that turns exceptions into statuses."""
    given = Globals()
    try:
        status: Any = cli.main(arguments, prog_name="rcptgen", standalone_mode=False, obj=given, color=_colour())
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        text = io.StringIO()
        error.show(file=text)
        for line in text.getvalue().splitlines():
            click.echo(safe(line), err=True)
        return UsageTrouble.status
    except click.ClickException as error:
        _say(error.format_message())
        return UsageTrouble.status
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and _COMPLETING in os.environ:
            sys.stdout.flush()
            return 0
        # The reader went away (head, less): click then exits with 1, which would be an answer.
        _forget_output()
        return 128 + 13
    except RcptgenError as error:
        for line in str(error).split("\n"):
            _say(line)
        return UsageTrouble.status if given.asking and error.status == 1 else error.status
    except MemoryError:
        _say("out of memory")
        return UsageTrouble.status if given.asking else Shortage.status
    except OSError as error:
        if error.filename is None and error.errno in _CANNOT_WRITE:
            _say(f"cannot write the answer: {error.strerror}")
            _forget_output()
            return UsageTrouble.status
        return _bug()
    except Exception:  # noqa: BLE001 - the last resort: a bug is told apart from every answer
        return _bug()


def _bug() -> int:
    _say("this is a bug in rcptgen:")
    for line in traceback.format_exc().splitlines():
        click.echo(safe(line), err=True)
    return BUG


def _forget_output() -> None:
    """What is left in Python's buffer must not make it complain, and change the status, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def when(moment: float) -> str:
    """A time as a person reads it, in the local zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _say(text: str) -> None:
    click.echo(f"rcptgen: {safe(text)}", err=True)


def _colour() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


class _Talk(io.FileIO):
    """stderr: that nobody hears us changes neither what we do nor the exit status."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _streams() -> None:
    """Descriptors 0 to 2 are open, so that no file of ours gets their numbers, and can take any text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - an answer that goes nowhere is an error
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every locale can spell every name.
        sys.stdout.reconfigure(errors="backslashreplace")
    talk = io.BufferedWriter(_Talk(2, "w", closefd=False))
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr = io.TextIOWrapper(talk, encoding, "backslashreplace", line_buffering=True)


def main() -> None:
    """The console script."""
    _streams()
    sys.exit(run(sys.argv[1:]))
