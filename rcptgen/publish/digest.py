"""The digest that binds the state to what was published."""

from __future__ import annotations

import hashlib
import os

_CHUNK = 1 << 20


def digest(descriptor: int) -> str:
    """SHA-256 of the whole file, in hex; the descriptor's offset does not move."""
    state = hashlib.sha256()
    at = 0
    while chunk := os.pread(descriptor, _CHUNK, at):
        state.update(chunk)
        at += len(chunk)
    return state.hexdigest()
