"""Lists whose consumer cuts an extension off: `joe` then stands for every `joe-...`, too."""

from __future__ import annotations

from rcptgen.targets.addresses import Lines
from rcptgen.targets.base import MOST_LISTED, Answer, Prefixes, Says, Widened, rule_text
from rcptgen.targets.formats import Get
from rcptgen.targets.lowering import Said

STEP = "the consumer cuts the extension off: a name stands for its extensions, too"


class Extended(Lines):
    """Base: `extension` is where the consumer cuts, at the first one; empty where it does not.

    Where that is the break character, `joe-*` is said by listing joe.
    """

    extension = b""
    lone = True

    def extend(self, extension: bytes) -> None:
        """Settles the character."""
        self.extension = extension
        if extension and extension == self.break_:
            self.says = Says(prefixes=Prefixes.FIRST, undecided=self.says.undecided)

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The name in front of the extension; @domain for the whole domain."""
        return prefix[:-1] + b"@" + domain

    def adapt(self, said: Said) -> None:
        """A prefix lets in the name in front of it, a name its extensions."""
        if not self.extension or (said.whole.accepted and not said.widened):
            return
        names = [names for _, names in said.accepted]
        prefixes, kept = said.prefixes, []
        for prefix, outcome in prefixes:
            if any(prefix[:-1] in some for some in names):
                continue
            kept.append((prefix, outcome))
            reason = "the name in front of the extensions has the same key"
            rule = rule_text(prefix, True, outcome, said.domain)
            said.losses += 1
            if len(said.widened) < MOST_LISTED:
                key = self.key(prefix, said.domain)
                said.widened.append(Widened(key, rule, reason, outcome.file, outcome.line))
            else:
                said.widened_more += 1
        said.prefixes = kept
        said_too = {prefix for prefix, outcome in prefixes if outcome.accepted}
        extended = (one for some in names for one in some if self.extension not in one)
        if any(one + self.extension not in said_too for one in extended):
            rule = b"*" + self.extension + b"*@" + said.domain
            # No loss of a rule, but of the look-up: an administrator may choose another delimiter.
            said.widened.append(Widened(b"", rule, STEP, b"", 0))

    def look(self, address: bytes, get: Get) -> Answer:
        """The address; without its extension; the domain."""
        address = address.lower()
        local, at, domain = address.rpartition(b"@")
        if get(address) is not None:
            return Answer(True, address)
        if at and self.extension and self.extension in local:
            key = local.partition(self.extension)[0] + b"@" + domain
            if get(key) is not None:
                return Answer(True, key, step=STEP)
        if at and get(b"@" + domain) is not None:
            return Answer(True, b"@" + domain)
        return self.unlisted(address)
