"""rcptgen: the list of valid recipients of a qmail host, compiled.

with rcptgen.Host.open("/") as host:
    host.decide("joe@example.org").verdict
    host.rules("example.org").match("joe").kind
    host.domains()
outputs = (rcptgen.Output("validrcptto", b"/var/qmail/control/validrcptto.cdb"),)
rcptgen.compile("/", rcptgen.Config(), rcptgen.Request(outputs)).status
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcptgen.compiler import compile_host as compile  # noqa: A004 - a caller reads it as rcptgen.compile
    from rcptgen.config import Config
    from rcptgen.errors import RcptgenError
    from rcptgen.host import Domain, DomainKind, DomainRules, Host
    from rcptgen.request import Output, Request, Result
    from rcptgen.rules.outcome import Kind, Outcome, Verdict

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Domain",
    "DomainKind",
    "DomainRules",
    "Host",
    "Kind",
    "Outcome",
    "Output",
    "RcptgenError",
    "Request",
    "Result",
    "Verdict",
    "__version__",
    "compile",
]

_WHERE = {
    "Config": "rcptgen.config",
    "Domain": "rcptgen.host",
    "DomainKind": "rcptgen.host",
    "DomainRules": "rcptgen.host",
    "Host": "rcptgen.host",
    "Kind": "rcptgen.rules.outcome",
    "Outcome": "rcptgen.rules.outcome",
    "Output": "rcptgen.request",
    "RcptgenError": "rcptgen.errors",
    "Request": "rcptgen.request",
    "Result": "rcptgen.request",
    "Verdict": "rcptgen.rules.outcome",
}


def __getattr__(name: str) -> Any:
    # Only when they are asked for: the worker process and `--version` need none of them.
    if name == "compile":
        return importlib.import_module("rcptgen.compiler").compile_host
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'rcptgen' has no attribute {name!r}")
