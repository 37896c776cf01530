"""What the programs of ezmlm-idx have in common: a list to open, and an answer for every $DEFAULT."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rcptgen.programs.ezmlm_list import Ended, Line, List, Usage, check_sender, opened
from rcptgen.qmail.model import Effect, Effects, Free, Runner, Situation, Text, effect_of, unknown_effect
from rcptgen.rules.outcome import Kind

NO_DEFAULT = "a program of a list without DEFAULT"


def known_words(words: Sequence[Text]) -> list[bytes] | None:
    """The words, where all are known; marks the others as looked at."""
    for word in words:
        if isinstance(word, Free):
            word.opaque = True
    known = [word for word in words if isinstance(word, bytes)]
    return known if len(known) == len(words) else None


@dataclass(slots=True)
class Texts:
    """The effects of texts, gathered: exact ones, and those of all that begins so."""

    exact: dict[bytes, Effect] = field(default_factory=dict)
    prefixes: dict[bytes, Effect] = field(default_factory=dict)

    def below(self, head: bytes, other: Texts) -> None:
        """Puts what `other` says of the rest of the texts that begin with `head` in the place of all that is said."""
        for known in (self.exact, self.prefixes):
            for text in [text for text in known if text.startswith(head)]:
                del known[text]
        self.exact.update({head + text: effect for text, effect in other.exact.items()})
        self.prefixes.update({head + text: effect for text, effect in other.prefixes.items()})

    def command(self, name: bytes, effect: Effect) -> None:
        """A command alone and with a target, and no longer word."""
        self.exact[name] = effect
        self.prefixes[name + b"-"] = effect

    def effects(self) -> Effects:
        """The same as a model answers it, without rules that only repeat a shorter one."""
        kept: dict[bytes, Effect] = {}
        for text in sorted(self.prefixes):
            if not text or self._covering(kept, text) != self.prefixes[text]:
                kept[text] = self.prefixes[text]
        exact = {text: effect for text, effect in self.exact.items() if self._covering(kept, text) != effect}
        return Effects.of(exact, kept)

    @staticmethod
    def _covering(prefixes: Mapping[bytes, Effect], text: bytes) -> Effect:
        return next(prefixes[text[:end]] for end in range(len(text), -1, -1) if text[:end] in prefixes)


class OfList(ABC):
    """A program that is given the directory of a list."""

    names: tuple[bytes, ...]
    usage = Usage()

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """The effect of one command line of the program."""
        known = known_words(words)
        if known is None:
            return unknown_effect("options of a list program that are not known", Kind.LIST)
        try:
            line, opened_list = opened(known, self.usage, situation.look)
            return self.answer(known, line, opened_list, situation)
        except Ended as ended:
            return ended.effect

    @abstractmethod
    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """The effect once the list is open; raises Ended where it does not get further."""


class ByDefault(OfList):
    """A program that goes by $DEFAULT and refuses without."""

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """See OfList."""
        text = situation.variables.get(b"DEFAULT")
        if text is None:
            raise Ended(100, NO_DEFAULT)
        self.check(line, of, situation)
        says = self.says(line, of)
        key = (self.names[0], *words)
        return effect_of(text, key, says.one, lambda: says.texts().effects(), "the rest of a list's address")

    def check(self, line: Line, of: List, situation: Situation) -> None:
        """What the program looks at before $DEFAULT."""
        check_sender(situation)

    @abstractmethod
    def says(self, line: Line, of: List) -> Says:
        """What the program says of each text, with the list as it is."""


class Says(ABC):
    """What a program says of every text of $DEFAULT: one by one, and as a table."""

    @abstractmethod
    def one(self, text: bytes) -> Effect:
        """Of a known text."""

    @abstractmethod
    def texts(self) -> Texts:
        """Of all, by their lower case."""
