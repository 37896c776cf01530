"""json: JSON Lines, one rule a line between a first line with the version and a last one that says the file is whole.

    {"name": "joe", "rule": "exact", "domain": "example.org", "action": "accept", "kind": "mailbox"}

As csv, with an escape for every byte: where a name is not UTF-8, `name_b64` has it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from rcptgen.rules.shown import as_json
from rcptgen.targets.files import Record
from rcptgen.targets.listing import Rules, joined, parted, plainly


class Json(Rules):
    """Rules as JSON Lines."""

    name = "json"
    newlines = True
    head = b'{"version": 1, "format": "rcptgen rules"}\n'
    foot = b'{"end": true}\n'

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """One object for each key."""
        action, _, kind = value.decode("ascii").partition(",")
        what = f'"action": "{action}", "kind": "{kind}"'.encode()
        lines = plainly(keys, rb'{"name": "\1", "rule": "exact", "domain": "\2", ' + what + b"}")
        if lines is not None:
            return lines
        found = []
        for key in keys:
            name, sort, domain = parted(key)
            members = {**as_json("name", name), "rule": sort, **as_json("domain", domain)}
            found.append(json.dumps({**members, "action": action, "kind": kind}) + "\n")
        return "".join(found).encode("ascii")

    def parse(self, line: bytes) -> Record | None:
        """The rule that an object states."""
        try:
            rule = json.loads(line)
            key = joined(_bytes(rule, "name"), rule["rule"], _bytes(rule, "domain"))
            return Record(key, f"{rule['action']},{rule['kind']}".encode(), rule["rule"] != "exact")
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a rule: {error}") from None


def _bytes(rule: dict[str, Any], member: str) -> bytes:
    exact = rule.get(f"{member}_b64")
    return base64.b64decode(exact, validate=True) if exact is not None else rule[member].encode()
