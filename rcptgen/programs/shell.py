"""What a line of /bin/sh does, told without running it.

The line is walked path by path: where nobody can know which way it takes, both are
followed, and the statuses they end with are put together.  A path that hangs on
nothing unknown is exact for dash, busybox and bash; where those differ it counts as
unknown.  qmail-local.c (mailprogram) runs `/bin/sh -c line`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rcptgen.programs.shellast import (
    AndOr,
    Case,
    Command,
    Group,
    If,
    List,
    Literal,
    Loop,
    Pipeline,
    Redirected,
    Redirection,
    Simple,
    Subshell,
    Word,
)
from rcptgen.programs.shellbuiltins import OUTSIDE, SPECIAL, USAGE
from rcptgen.programs.shellcommands import MAX_NESTED, Commands
from rcptgen.programs.shellparse import parse, plain_command
from rcptgen.programs.shellscan import NAME, ShellSyntaxError, Unsupported
from rcptgen.programs.shellstate import (
    COMPLEX,
    CONSTRUCT,
    NOTHING,
    End,
    Environment,
    Path,
    TooComplex,
    VagueStatus,
    Work,
    effect,
    look,
    merge,
    waited,
)
from rcptgen.programs.shellwords import UNTOUCHABLE, Expander, ShellEnds, Unknowable, constant
from rcptgen.programs.telling import tell_effect, tell_line
from rcptgen.qmail.model import ANY_STATUS, UNKNOWN, Effect, Free, Presence, ProgramModel, Situation, Text
from rcptgen.rules.outcome import Kind

MAX_WORK = 5_000

_ALWAYS_SET = (b"PATH", b"SENDER", b"NEWSENDER", b"RPLINE", b"UFLINE", b"DTLINE")
_SUCCESSES = (frozenset({0}), frozenset({99}))
_SAFE_TARGETS = frozenset({b"/dev/null", b"/dev/stdin", b"/dev/stdout", b"/dev/stderr"})
_SAFE_COPIES = frozenset({b"0", b"1", b"2"})
_EXPORTED = re.compile(rb"(" + NAME + rb")(=?)(.*)", re.DOTALL)


def run_line(line: bytes, situation: Situation, models: Mapping[bytes, ProgramModel]) -> Effect:
    """The effect of `/bin/sh -c line` with the variables of `situation`.

    Programs are taken from `models` by the last part of their path.  Variables that
    qmail-local always sets and that `situation` leaves out hold an unknown text.  An
    unquoted variable that nobody knows is taken to hold one word without blanks.
    """
    if situation.leads is None:
        return _run(line, situation, models)
    tell_line(line, situation.leads, models)
    found = _run(line, situation, models)
    if found.approximate or found.widened or len(found.statuses) > 1:
        situation.leads.elsewhere(found.reason)
    tell_effect(b"the line", found, situation.leads)
    return found


def _run(line: bytes, situation: Situation, models: Mapping[bytes, ProgramModel]) -> Effect:
    variables: dict[bytes, Text] = dict.fromkeys(_ALWAYS_SET, UNKNOWN)
    variables.update(situation.variables)
    words = plain_command(line)
    if words is not None and (model := models.get(words[0].rpartition(b"/")[2])) is not None:
        found = _only(words, model, situation, variables, models)
        if found is not None:
            return found
    environment = Environment(variables, frozenset(variables))
    shell = _Shell(replace(situation, variables=variables), models, Work(MAX_WORK), depth=0)
    try:
        return effect(shell.script(line.partition(b"\0")[0], Path(environment)))
    except TooComplex:
        return Effect(ANY_STATUS, Kind.PROGRAM, COMPLEX, approximate=True)


def _only(
    words: tuple[bytes, ...],
    model: ProgramModel,
    situation: Situation,
    variables: dict[bytes, Text],
    models: Mapping[bytes, ProgramModel],
) -> Effect | None:
    """The effect of a line that is one program, without the walk; None where only that can tell."""
    if situation.presence(words[0]) is not Presence.FOUND:
        return None

    def shell() -> tuple[_Shell, Path]:
        path = Path(Environment(variables, frozenset(variables)))
        return _Shell(replace(situation, variables=variables), models, Work(MAX_WORK), depth=0), path

    def run(line: bytes) -> Effect:
        own, path = shell()
        return own.line(line, path)

    def execute(given: Sequence[Text]) -> Effect:
        own, path = shell()
        return own.runner(path)(given)

    own = Situation(variables, situation.presence, situation.look, run, situation.leads)
    found = model.run(words, own, execute)
    if own.leads is not None:
        tell_effect(words[0], found, own.leads)
    return ended(found)


def ended(found: Effect) -> Effect:
    """What the shell makes of one program and nothing else (Path.after, waited and effect)."""
    if found.statuses in _SUCCESSES and not found.approximate:
        return found
    statuses = frozenset(map(waited, found.statuses))
    kind = found.kind if statuses & {0, 99} else Kind.PROGRAM
    return replace(found, statuses=statuses, kind=kind, approximate=found.approximate or len(statuses) != 1)


class _Shell(Commands):
    """One shell process and its subshells (see shellstate.Shell)."""

    __slots__ = ()

    def script(self, text: bytes, path: Path) -> list[Path]:
        """Another shell runs `text`; the paths end with the statuses of its process."""
        if self.depth > MAX_NESTED:
            raise TooComplex
        self.work.spend(len(text) // 16)
        environment = Environment(
            path.environment.handed_on(),
            path.environment.exported,
            moved=path.environment.moved,
            arguments=path.environment.arguments,
        )
        start = replace(path, environment=environment, status=0, vague=False, reason=NOTHING)
        try:
            tree = parse(text)
        except ShellSyntaxError:
            return [start.exits(2, "shell syntax error")]
        except Unsupported:
            return start.lost(CONSTRUCT)
        child = self.child()
        return child.sequence([start], tree) if tree else [start]

    # Lists and compound commands

    def sequence(self, paths: list[Path], tree: List) -> list[Path]:
        for item in tree.items:
            paths = self.each(paths, item)
        return paths

    def each(self, paths: Sequence[Path], item: AndOr) -> list[Path]:
        """The paths behind `item`; those whose shell has ended stay as they are."""
        self.work.spend(1 + len(paths) // 8)
        after: list[Path] = []
        for path in paths:
            if not path.running:
                after.append(path)
            elif item.background:
                after.append(path.ends(0, "exit 0"))
                after += self.stray_kill(self.and_or(path, item), path)
            else:
                after += self.and_or(path, item)
        return merge(after)

    def stray_kill(self, paths: Iterable[Path], path: Path) -> list[Path]:
        """What a process beside the shell may do to it."""
        killed = [one for one in paths if one.end is End.KILLED]
        return [replace(path, status=one.status, end=End.KILLED, vague=True, forked=True) for one in killed]

    def and_or(self, path: Path, item: AndOr) -> list[Path]:
        paths = self.pipeline(path, item.first)
        for operator, pipeline in item.rest:
            self.work.spend(1 + len(paths) // 8)
            after: list[Path] = []
            for one in paths:
                if one.running and (one.status == 0) == (operator == b"&&"):
                    after += self.pipeline(one, pipeline)
                else:
                    after.append(one)
            paths = merge(after)
        return paths

    def pipeline(self, path: Path, tree: Pipeline) -> list[Path]:
        if len(tree.commands) == 1:
            paths = self.evaluate(path, tree.commands[0])
        else:
            paths = []
            for stage in tree.commands[:-1]:
                paths += self.stray_kill(self.subshell(path, stage), path)
            paths += self.subshell(path, tree.commands[-1])
        if not tree.negated:
            return paths
        # A vague status that is no success is none of the successes.
        return [replace(one, status=int(one.status == 0)) if one.running else one for one in paths]

    def subshell(self, path: Path, tree: Command | List) -> list[Path]:
        """The paths behind a process of its own: only its status is left of it, unless it kills the shell."""
        ended = self.sequence([path], tree) if isinstance(tree, List) else self.evaluate(path, tree)
        return merge(
            one if one.end is End.KILLED else replace(path.as_child(one), status=waited(one.status)) for one in ended
        )

    def evaluate(self, path: Path, tree: Command) -> list[Path]:
        match tree:
            case Simple():
                return self.simple(path, tree)
            case Group(body):
                return self.sequence([path], body)
            case Subshell(body):
                return self.subshell(path, body)
            case If():
                return self.conditional(path, tree)
            case Case():
                return self.case(path, tree)
            case Loop():
                return path.lost(CONSTRUCT)
            case Redirected(command, redirections):
                return merge(self.evaluate(path, command) + self.failed(path, redirections, special=False))

    def conditional(self, path: Path, tree: If) -> list[Path]:
        done: list[Path] = []
        open_paths = [path]
        for condition, body in tree.branches:
            decided = merge(one for start in open_paths for one in self.sequence([start], condition))
            done += [one for one in decided if not one.running]
            done += self.sequence([one for one in decided if one.running and one.status == 0], body)
            open_paths = [one for one in decided if one.running and one.status != 0]
        if tree.otherwise:
            done += self.sequence(open_paths, tree.otherwise)
        else:
            done += [one.ends(0, "exit 0") for one in open_paths]
        return merge(done)

    def case(self, path: Path, tree: Case) -> list[Path]:
        expander = Expander(path.environment, last_status(path), self.work)
        done: list[Path] = []
        try:
            subject = expander.text(tree.subject)
            for patterns, body in tree.arms:
                fits: bool | None = False
                for word in patterns:
                    self.work.spend(1 + len(word))
                    one = self.fits(subject, word, expander)
                    fits = True if one or fits else (None if one is None or fits is None else False)
                path = replace(path, environment=expander.environment)
                if fits is None:
                    path = path.splits([path.status], look(subject), vague=path.vague)[0]
                if fits is not False:
                    done += self.sequence([path], body) if body else [path.ends(0, "exit 0")]
                if fits:
                    return merge(done)
        except ShellEnds:
            return done + path.splits((2, 127), USAGE, end=End.EXITED)
        except Unknowable:
            return done + path.lost(CONSTRUCT)
        return merge([*done, path.ends(0, "exit 0")])

    def fits(self, subject: Text, word: Word, expander: Expander) -> bool | None:
        """Whether one pattern of `case` fits."""
        pattern = expander.pattern(word)
        if pattern == (None,):
            return True
        if pattern is not None and isinstance(subject, bytes):
            return expander.matches(pattern, subject)
        text = None if pattern is None else constant(pattern)
        if isinstance(subject, Free) and text is not None:
            subject.compared.add(text)
            return False
        if isinstance(subject, VagueStatus) and text in (b"0", b"99"):
            return False
        if not isinstance(subject, bytes):
            look(subject)
        return None

    # Simple commands

    def simple(self, path: Path, tree: Simple) -> list[Path]:
        self.work.spend(1 + tree.size // 16)
        expander = Expander(path.environment, last_status(path), self.work)
        try:
            if tree.words and tree.words[0] == (Literal(b"export", quoted=False),):
                paths = self.export(path, tree, expander)
                return merge(paths + self.failed(path, tree.redirections, special=True))
            words = [field for word in tree.words for field in expander.fields(word)]
            given = [(one.name, expander.text(one.value)) for one in tree.assignments]
        except ShellEnds:
            return path.splits((2, 127), USAGE, end=End.EXITED)
        except Unknowable:
            return path.lost(CONSTRUCT)
        if any(name in UNTOUCHABLE for name, _ in given):
            return path.lost(CONSTRUCT)
        special = bool(words) and words[0] in SPECIAL
        failed = self.failed(path, tree.redirections, special=special)
        path = replace(path, environment=expander.environment)
        if not words:
            environment = path.environment
            for name, text in given:
                environment = environment.set(name, text)
            path = replace(path, environment=environment)
            return merge(failed + (path.unknown(CONSTRUCT) if expander.substituted else [path.ends(0, "exit 0")]))
        if isinstance(words[0], bytes) and words[0].rpartition(b"/")[2] in (b"test", b"["):
            for free in expander.bare:
                free.compared.add(b"")
        changed = path.environment
        for name, text in given:
            changed = changed.set(name, text, export=True)
        paths = self.command(words, replace(path, environment=changed))
        if given:
            paths = [self.restored(one, path.environment, dict(given), special=special) for one in paths]
        return merge(failed + paths)

    def restored(self, path: Path, before: Environment, given: dict[bytes, Text], *, special: bool) -> Path:
        """Takes back the assignments before a command; before a special built-in dash keeps them and bash does not."""
        environment = path.environment
        for name in given:
            environment = environment.set(name, UNKNOWN if special else before.texts.get(name))
            if name in before.exported:
                environment = environment.export(name)
        return replace(path, environment=environment)

    def failed(self, path: Path, redirections: Iterable[Redirection], *, special: bool) -> list[Path]:
        """The paths on which a redirection fails; the command is then not run at all."""
        for one in redirections:
            target = b"".join(part.text for part in one.target if isinstance(part, Literal))
            known = all(isinstance(part, Literal) for part in one.target)
            if not known or target not in (_SAFE_COPIES if one.operator.endswith(b"&") else _SAFE_TARGETS):
                failed = path.splits((1, 2), OUTSIDE)
                return failed + [replace(each, end=End.EXITED) for each in failed] if special else failed
        return []

    def export(self, path: Path, tree: Simple, expander: Expander) -> list[Path]:
        """`export`, whose arguments are assignments in bash and words in dash."""
        if tree.assignments or not self._plain_export(tree.words[1:]):
            return path.lost(CONSTRUCT)
        for word in tree.words[1:]:
            first = word[0]
            found = _EXPORTED.fullmatch(first.text) if isinstance(first, Literal) and not first.quoted else None
            if found and found[2] and found[1] not in UNTOUCHABLE:
                text = expander.text((Literal(found[3], quoted=False), *word[1:]))
                expander.environment = expander.environment.set(found[1], text, export=True)
            elif found and not found[2]:
                expander.environment = expander.environment.export(found[1])
            else:
                return path.lost(CONSTRUCT)
        return [replace(path.ends(0, "exit 0"), environment=expander.environment)]

    @staticmethod
    def _plain_export(words: Iterable[Word]) -> bool:
        """Whether all shells read the arguments alike: names, or texts that are not split."""
        for word in words:
            first = word[0]
            if not isinstance(first, Literal) or first.quoted:
                return False
            if b"=" not in first.text and len(word) > 1:
                return False
            if any(not part.quoted for part in word[1:]):
                return False
        return True


def last_status(path: Path) -> Text:
    """What `$?` stands for."""
    if path.vague and path.status not in (0, 99):
        return VagueStatus(path.status)
    return b"%d" % path.status
