"""The errors that end a command, each with the exit status it stands for.

An error says what is wrong, where, and what to do next; the command line prints
it as one line.  Warnings are values that are collected, never exceptions.
"""

from __future__ import annotations

from typing import ClassVar


class RcptgenError(Exception):
    """Base of every error that a caller may want to catch; `status` is the exit status."""

    status: ClassVar[int] = 1


class UsageTrouble(RcptgenError):
    """The command cannot be answered as it was asked (a foreign file, an unusable address)."""

    status = 2


class PublishFailed(RcptgenError):
    """Nothing was published; the old files are untouched unless the message says otherwise."""


class Shortage(RcptgenError):
    """We ran out of something of our own (descriptors, memory, a worker): no verdict about the host."""


class Busy(RcptgenError):
    """Another run holds the lock."""

    status = 75


class SourceFailed(RcptgenError):
    """A source could not be read for now; what it says is unknown, not empty."""

    status = 75


class NeedsRoot(RcptgenError):
    """The host can only be read as root."""

    status = 77


class ConfigurationError(RcptgenError):
    """A person must decide: an unusable configuration of rcptgen or of the host."""

    status = 78
