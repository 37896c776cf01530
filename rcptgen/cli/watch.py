"""`rcptgen watch`: the service that keeps the published files true."""

from __future__ import annotations

import gc
from contextlib import ExitStack

import click

from rcptgen.cli import Globals
from rcptgen.cli.compile_ import requested
from rcptgen.config import Config
from rcptgen.errors import ConfigurationError
from rcptgen.keeper import Keeper
from rcptgen.metrics import Service as Measured
from rcptgen.metrics import require, write
from rcptgen.reader import SELDOM
from rcptgen.request import Request, Result

WAIT = 60.0
"""Seconds that a look waits for another run: an approve, a rollback, a compile with options of its own."""


@click.command("watch")
@click.option(
    "-t",
    "--target",
    "targets",
    metavar="TARGET=PATH",
    multiple=True,
    help="Write this instead of the configured outputs.",
)
@click.pass_obj
def command(given: Globals, targets: tuple[str, ...]) -> int:
    """Keep the list true: compile, wait for changes, compile what has changed.

    Ends with 0 when it is told to (SIGTERM), else as `compile` does.  SIGHUP: read everything anew.
    """
    given.asking = False
    given.need_root()
    gc.set_threshold(*SELDOM)
    # Imported here: a help text does not need inotify.
    from rcptgen.watch.log import setup
    from rcptgen.watch.notify import Notify
    from rcptgen.watch.pace import Pace
    from rcptgen.watch.service import Numbers, Service, Times
    from rcptgen.watch.trigger import Job, Server, socket_path

    log = setup(quiet=given.quiet, verbose=given.verbose)
    server: Server | None = None

    def configure() -> tuple[Config, Request]:
        config = given.config()
        require(config)
        outputs = requested(given, config, targets, dry_run=False)
        request = Request(outputs=outputs, state=given.state(), wait=WAIT)
        if server is not None:
            server.job = Job.of(config, outputs, request.state)
        return config, request

    def told(result: Result | None, status: int, numbers: Numbers) -> None:
        measured = Measured(numbers.watches, numbers.swept_directories, numbers.events)
        if given.root == b"/" and (trouble := write(keeper.config, result, status=status, service=measured)):
            log.warning("%s", trouble)

    with ExitStack() as stack:
        config, request = configure()
        path = socket_path(given.root, given.state(), config)
        if path is not None:
            server = stack.enter_context(Server(path, Job.of(config, request.outputs, request.state)))
        manager = Notify()
        stack.callback(manager.close)
        wanted = config.watch
        keeper = Keeper(given.root, configure)
        stack.callback(keeper.close)
        service = Service(
            root=given.root,
            compiler=keeper,
            manager=manager,
            requests=server,
            times=Times(wanted.sweep, wanted.full, wanted.sql_poll),
            pace=Pace(wanted.debounce, wanted.max_delay, wanted.rest),
            told=told,
        )
        keeper.working = service.working
        try:
            return service.run()
        except OSError as error:
            raise ConfigurationError(f"cannot watch: {error.strerror} (fs.inotify.max_user_instances?)") from error
