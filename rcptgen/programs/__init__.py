"""Models of the programs that dot-qmail files run."""

from __future__ import annotations

from rcptgen.config import Config
from rcptgen.programs.dotforward import DotForward
from rcptgen.programs.ezmlm import MANAGER
from rcptgen.programs.ezmlm_dispatch import Dispatch
from rcptgen.programs.ezmlm_posting import POSTING
from rcptgen.programs.fastforward import FastForward
from rcptgen.programs.filters import FILTERS
from rcptgen.programs.plugins import plugin_models
from rcptgen.programs.qmailtools import BounceSaying, CondRedirect, Except, Forward, Preline, QReceipt
from rcptgen.programs.responders import Autorespond, Mailman, Safecat
from rcptgen.programs.vdelivermail import VDeliverMail
from rcptgen.programs.vmailmgr import VDeliver
from rcptgen.qmail.model import ProgramModel


def builtin_models(
    config: Config | None = None, *, root: bytes = b"/", look_at_mailboxes: bool = True
) -> dict[bytes, ProgramModel]:
    """The models for a host below `root` configured so, by the last part of the program's path.

    Those that come with rcptgen, and in front of them those of others that `[plugins]`
    names; raises ConfigurationError where one of them is not there.  With `look_at_mailboxes`
    False a Maildir counts as one that can be delivered to: deferred or delivered, it is accepted.
    """
    config = config or Config()
    models: list[ProgramModel] = [
        BounceSaying(),
        Except(),
        CondRedirect(),
        Forward(),
        Preline(),
        QReceipt(),
        FastForward(),
        DotForward(),
        Autorespond(),
        Mailman(),
        Safecat(),
        *FILTERS,
        *MANAGER,
        *POSTING,
        Dispatch(lambda: found),
        VDeliver(config.qmail.directory.encode()),
        VDeliverMail(config, root, look_at_mailboxes=look_at_mailboxes),
    ]
    found = {name: model for model in models for name in model.names}
    found.update(plugin_models(config.plugins.programs))
    return found
