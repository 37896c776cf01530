#!/usr/bin/env python3
"""Makes share/: man pages and shell completion, from the click commands and docs/configuration.md.

    script/make_docs.py             writes them
    script/make_docs.py --check     status 1 and the names of those that are not as they would be written

Needs rcptgen and click in the Python that runs it.  What it writes goes into the wheel as it
stands here, so that nothing has to run when a package is built; it holds no dates.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from rcptgen import __version__
from rcptgen.cli import cli

TOP = Path(__file__).resolve().parent.parent
SHARE = TOP / "share"
CONFIGURATION = TOP / "docs" / "configuration.md"
README = TOP / "README.md"
SHELLS = {
    "bash": "bash-completion/completions/rcptgen",
    "zsh": "zsh/site-functions/_rcptgen",
    "fish": "fish/vendor_completions.d/rcptgen.fish",
}
FILES = {
    "/etc/rcptgen.toml": "the configuration: see **rcptgen.toml**(5)",
    "/var/lib/rcptgen": "what runs remember (`--state`)",
    "/var/qmail/control/validrcptto.cdb": "the list, where no other output is configured",
}


def commands() -> dict[str, click.Command]:
    """Every command of the program, by name."""
    context = click.Context(cli, info_name="rcptgen")
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: one for name, one in found.items() if one is not None and not one.hidden}


# --- roff --------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """`text` as roff prints it letter by letter."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{text}" if text.startswith(".") else text


_MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^]]+)\]\([^)]+\)")


def spoken(text: str) -> str:
    """A paragraph of Markdown, or of help, on one line: code and bold text in bold."""
    text = " ".join(text.split())
    parts = []
    at = 0
    for found in _MARKED.finditer(text):
        parts.append(escaped(text[at : found.start()]))
        code, bold, link = found.groups()
        parts.append(escaped(link) if link else f"\\fB{escaped(code or bold)}\\fR")
        at = found.end()
    line = "".join([*parts, escaped(text[at:])])
    return f"\\&{line}" if line.startswith((".", "'")) else line


def page(name: str, section: int, summary: str) -> list[str]:
    """The first lines of a page."""
    return [
        '.\\" Made by script/make_docs.py: do not edit.',
        f'.TH {escaped(name.upper())} {section} "" "rcptgen {__version__}"',
        ".SH NAME",
        f"{escaped(name)} \\- {spoken(summary)}",
    ]


def written(lines: list[str]) -> str:
    """The page as a file."""
    return "\n".join(lines) + "\n"


# --- Commands ----------------------------------------------------------------------------------


def told(command: click.Command) -> list[str]:
    """The paragraphs of a command's help, the first of them its summary."""
    return [one for one in inspect.cleandoc(command.help or "").split("\n\n") if one.strip("\b\n ")]


def summary(command: click.Command) -> str:
    """The first sentence of a command's help, as it stands in a list of commands."""
    first = " ".join(told(command)[0].split())
    first = re.split(r"\.(?: |$)", first, maxsplit=1)[0].rstrip(".")
    return first[:1].lower() + first[1:]


def metavar(option: click.Option) -> str:
    """What stands for an option's value; nothing for a flag."""
    if option.is_flag or option.count:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "[" + "|".join(str(one) for one in option.type.choices) + "]"
    return option.type.name.upper()


def options(command: click.Command) -> Iterator[str]:
    """The options of a command, in their order."""
    for one in command.params:
        if isinstance(one, click.Option) and not one.hidden:
            names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in [*one.opts, *one.secondary_opts])
            value = f" \\fI{escaped(metavar(one))}\\fR" if metavar(one) else ""
            default = ""
            shown = isinstance(one.default, str | int | float) and not one.is_flag
            if shown and "[default" not in (one.help or ""):
                default = f" The default is {one.default}."
            yield from (".TP", names + value, spoken((one.help or "") + default))
    yield from (".TP", "\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "Show a short help and exit.")


def arguments(command: click.Command) -> str:
    """The arguments of a command, as its usage line has them."""
    found = []
    for one in command.params:
        if isinstance(one, click.Argument):
            text = one.metavar or (one.name or "").upper() + ("..." if one.nargs == -1 else "")
            found.append(f"\\fI{escaped(text)}\\fR")
    if isinstance(command, click.Group):
        found += ["[\\fICOMMAND\\fR]", "[\\fIARGS\\fR]..."]
    return " ".join(found)


def parts_of(group: click.Group) -> Iterator[str]:
    """The commands below a command, with their arguments and options."""
    for name, command in group.commands.items():
        yield from (".SS " + f"{escaped(name)} {arguments(command)}".rstrip(), *map(spoken, told(command)))
        yield from options(command)


def command_page(name: str, command: click.Command) -> str:
    """rcptgen-NAME(1)."""
    lines = page(f"rcptgen-{name}", 1, summary(command))
    usage = f"\\fBrcptgen\\fR [\\fIoptions\\fR] \\fB{escaped(name)}\\fR [\\fIoptions\\fR] {arguments(command)}"
    lines += [".SH SYNOPSIS", usage.rstrip(), ".SH DESCRIPTION"]
    for at, one in enumerate(told(command)):
        lines += [*([".PP"] if at else []), *paragraph(one)]
    lines += [".SH OPTIONS", *options(command)]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *parts_of(command)]
    lines += [".SH EXIT STATUS", spoken("See **rcptgen**(1).")]
    others = [f"\\fBrcptgen\\-{escaped(one)}\\fR(1)" for one in near(name)]
    lines += [".SH SEE ALSO", ", ".join(["\\fBrcptgen\\fR(1)", *others, "\\fBrcptgen.toml\\fR(5)"])]
    return written(lines)


def near(name: str) -> list[str]:
    """The other commands that a command's help names in backquotes."""
    text = commands()[name].help or ""
    return [one for one in commands() if one != name and re.search(rf"`(?:rcptgen )?{re.escape(one)}\b", text)]


def paragraph(text: str) -> list[str]:
    """A paragraph of help; after click's \\b its lines stay as they are."""
    if not text.startswith("\b"):
        return [spoken(text)]
    return [".nf", *(spoken_line(one) for one in text.lstrip("\b\n").split("\n")), ".fi"]


def spoken_line(text: str) -> str:
    """A line of an example, its blanks kept."""
    line = escaped(text)
    return f"\\&{line}" if line.startswith((".", "'", " ")) else line


def main_page() -> str:
    """rcptgen(1)."""
    first, *more = told(cli)
    lines = page("rcptgen", 1, summary(cli))
    lines += [".SH SYNOPSIS", "\\fBrcptgen\\fR [\\fIoptions\\fR] \\fIcommand\\fR [\\fIargument\\fR ...]"]
    lines += [".SH DESCRIPTION", spoken(first)]
    for one in more:
        lines += [".PP", *paragraph(one)]
    lines += [".SH OPTIONS", *options(cli), ".SH COMMANDS"]
    for name, command in commands().items():
        lines += [".TP", f"\\fBrcptgen\\-{escaped(name)}\\fR(1)", spoken(summary(command)) + "."]
    lines.append(".SH EXIT STATUS")
    for status, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", README.read_text(), re.MULTILINE):
        lines += [".TP", f"\\fB{status}\\fR", spoken(meaning) + "."]
    lines.append(".SH FILES")
    for file, what in FILES.items():
        lines += [".TP", f"\\fI{escaped(file)}\\fR", spoken(what) + "."]
    lines += [".SH ENVIRONMENT", ".TP", "\\fBNO_COLOR\\fR", "When it is set, nothing is coloured."]
    lines += [".SH SEE ALSO", "\\fBrcptgen.toml\\fR(5), \\fBqmail\\-send\\fR(8), \\fBdot\\-qmail\\fR(5)"]
    return written(lines)


# --- The configuration -------------------------------------------------------------------------


def configuration_page() -> str:
    """rcptgen.toml(5), from docs/configuration.md: headings, keys, paragraphs."""
    lines = page("rcptgen.toml", 5, "configuration of rcptgen")
    lines.append(".SH DESCRIPTION")
    _, _, text = CONFIGURATION.read_text().partition("\n\n")
    follows, between = "", ".PP"
    for block in text.strip().split("\n\n"):
        if block.startswith("### "):
            lines += [".TP", spoken(block[4:])]
            follows, between = "", ".IP"
        elif block.startswith("## "):
            lines.append(f".SH {escaped(block[3:].strip())}")
            follows, between = "", ".PP"
        else:
            lines += [*([follows] if follows else []), spoken(block)]
            follows = between
    lines += [".SH SEE ALSO", "\\fBrcptgen\\fR(1)"]
    return written(lines)


# --- All of it ---------------------------------------------------------------------------------


def completion(shell: str) -> str:
    """What the shell loads: click's own, which asks the program when a word is completed."""
    found = get_completion_class(shell)
    assert found is not None
    return found(cli, {}, "rcptgen", "_RCPTGEN_COMPLETE").source().strip("\n") + "\n"


def everything() -> dict[str, str]:
    """Every file below share/ with its text."""
    made = {f"man/man1/rcptgen-{name}.1": command_page(name, one) for name, one in commands().items()}
    made["man/man1/rcptgen.1"] = main_page()
    made["man/man5/rcptgen.toml.5"] = configuration_page()
    made |= {path: completion(shell) for shell, path in SHELLS.items()}
    return made


def stale(made: dict[str, str], *, any_click: bool = False) -> list[str]:
    """The files below share/ that are not as they would be written, or should not be there.

    With `any_click` the text of completion scripts may be another click's.
    """
    have = {str(path.relative_to(SHARE)): path.read_text() for path in SHARE.rglob("*") if path.is_file()}
    same = {path for path in SHELLS.values() if any_click and path in have}
    return sorted(name for name in made.keys() | have.keys() if made.get(name) != have.get(name) and name not in same)


def main() -> int:
    """The program."""
    if sys.argv[1:] not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}")
        return 2
    made = everything()
    names = stale(made, any_click=bool(sys.argv[1:]))
    if sys.argv[1:]:
        for name in names:
            sys.stdout.write(f"share/{name}\n")
        if names:
            sys.stderr.write("not as they would be made now: run script/make_docs.py\n")
        return int(bool(names))
    for name in names:
        path = SHARE / name
        if name in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[name])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
