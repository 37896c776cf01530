"""Memory that a look at everything has needed goes back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Whether freed memory was given back (malloc_trim(3), which only glibc has).

    A look at everything frees as much as it needs, in pieces between what stays; without
    this the next one would take as much again.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
