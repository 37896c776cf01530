"""Asking a running watch: the socket, its clients, and the command."""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import selectors
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import rounds
from runs import called

from rcptgen.cli import Globals
from rcptgen.cli.handover import left_to_watch
from rcptgen.config import Config, Guard
from rcptgen.errors import Busy, ConfigurationError, RcptgenError
from rcptgen.request import Output, Request
from rcptgen.watch import trigger
from rcptgen.watch.ask import NotRunning, ask, running
from rcptgen.watch.trigger import MOST_BYTES, MOST_CLIENTS, Asked, Job, Server, socket_path

OUTPUT = Output("validrcptto", b"/var/qmail/control/validrcptto.cdb")


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "run" / "trigger.sock")


@pytest.fixture
def server(path: bytes) -> Iterator[Server]:
    with Server(path) as made:
        yield made


def connect(path: bytes, *, blocking: bool = True) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(blocking)
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        made.connect(trigger.address(path, directory))
    except BaseException:
        made.close()
        raise
    finally:
        os.close(directory)
    made.settimeout(5)
    return made


def asked(server: Server, count: int = 1, seconds: float = 5.0) -> list[Asked]:
    """What is asked until it is `count` requests, as a loop would hear of it."""
    found: list[Asked] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        if select.select([server], [], [], 0.01)[0]:
            found += server.requests()
    return found


@contextmanager
def serving(server: Server, work: Callable[[Asked], tuple[int, str]]) -> Iterator[list[Asked]]:
    """A loop that answers each request with what `work` says."""
    heard: list[Asked] = []
    end = threading.Event()

    def loop() -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            while not end.is_set():
                for _ in selector.select(0.01):
                    for one in server.requests():
                        heard.append(one)
                        server.answer(one.token, *work(one))

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield heard
    finally:
        end.set()
        thread.join()


def line(**members: object) -> bytes:
    return json.dumps({"version": 1, **members}).encode() + b"\n"


# -- the socket -------------------------------------------------------------------------------


def test_the_socket_is_for_root_alone_and_goes_with_the_server(path: bytes) -> None:
    before = os.umask(0)
    try:
        server = Server(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert running(path)
    server.close()
    server.close()
    assert not os.path.exists(path)
    assert not running(path)


def test_a_second_watch_is_told_of_the_first(server: Server, path: bytes) -> None:
    with pytest.raises(Busy, match="another watch is running"):
        Server(path)
    assert running(path)


def test_a_socket_that_a_killed_watch_left_is_replaced(path: bytes) -> None:
    code = (
        "import os, signal, sys; from rcptgen.watch.trigger import Server\n"
        "kept = Server(os.fsencode(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, os.fsdecode(path)], check=False)
    assert done.returncode == -9
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert not running(path)
    with Server(path):
        assert running(path)


def test_a_long_path_is_reached_through_its_directory(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / ("d" * 120) / "trigger.sock")
    with Server(path) as server:
        ask(path, [b"example.org"])
        assert [one.domains for one in asked(server)] == [(b"example.org",)]


def test_what_is_no_socket_is_left_alone(path: bytes) -> None:
    os.mkdir(os.path.dirname(path))
    Path(os.fsdecode(path)).write_text("precious")
    with pytest.raises(ConfigurationError, match="no socket; remove it"):
        Server(path)
    assert Path(os.fsdecode(path)).read_text() == "precious"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_directory_that_others_write_to_is_refused(path: bytes, mode: int) -> None:
    directory = os.path.dirname(path)
    os.mkdir(directory)
    os.chmod(directory, mode)
    if mode & stat.S_ISVTX:
        with Server(path):  # nobody but root can exchange it there
            assert running(path)
    else:
        with pytest.raises(ConfigurationError, match="others could replace it"):
            Server(path)


@pytest.mark.needs("root")
def test_a_directory_of_somebody_else_is_refused(path: bytes) -> None:
    os.mkdir(os.path.dirname(path))
    os.chown(os.path.dirname(path), 12345, 12345)
    with pytest.raises(ConfigurationError, match="others could replace it"):
        Server(path)


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        Server(os.fsencode(tmp_path / "no" / "such" / "trigger.sock"))


@pytest.mark.needs("root")
def test_another_user_is_not_heard_even_where_the_mode_lets_him(server: Server, path: bytes) -> None:
    os.chmod(path, 0o666)
    os.chmod(os.path.dirname(path), 0o755)
    code = (
        "import os, sys, socket; os.setgid(12345); os.setuid(12345); made = socket.socket(socket.AF_UNIX)\n"
        "os.chdir(sys.argv[1]); made.connect('trigger.sock'); made.sendall(sys.argv[2].encode())\n"
        "print(made.recv(10))"
    )
    arguments = [sys.executable, "-c", code, os.fsdecode(os.path.dirname(path)), line(wait=True).decode()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        heard = []
        while process.poll() is None:
            heard += asked(server, seconds=0.05)
        assert process.stdout is not None
        # Turned away before it asked, or while it did.
        assert process.stdout.read() in (b"b''\n", b"")
    assert heard == []


@pytest.mark.needs("root")
def test_a_socket_of_somebody_else_is_not_asked(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "trigger.sock")
    code = (
        "import os, sys, socket; os.chdir(sys.argv[1]); os.chmod('.', 0o777); os.setgid(12345); os.setuid(12345)\n"
        "made = socket.socket(socket.AF_UNIX); made.bind('trigger.sock'); made.listen(); print(flush=True)\n"
        "sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not running(path)
        with pytest.raises(NotRunning, match="not root"):
            ask(path)
        process.communicate(b"")


# -- clients ----------------------------------------------------------------------------------


def test_what_is_asked_arrives_byte_by_byte_too(server: Server, path: bytes) -> None:
    found = []
    with closing(connect(path)) as client:
        for one in line(domains=["ZXhhbXBsZS5vcmc="], wait=True):
            client.send(bytes([one]))
            found += server.requests()
        found += [] if found else asked(server)
    assert [one.domains for one in found] == [(b"example.org",)]


def test_domains_are_bytes(server: Server, path: bytes) -> None:
    ask(path, [b"m\xfcnchen.example", b"x\n\0"])
    assert [one.domains for one in asked(server)] == [(b"m\xfcnchen.example", b"x\n\0")]


def test_the_answer_goes_to_whom_it_is_for(server: Server, path: bytes) -> None:
    with closing(connect(path)) as one, closing(connect(path)) as two:
        one.sendall(line(domains=["b25l"], wait=True))
        two.sendall(line(domains=["dHdv"], wait=True))
        tokens = {found.domains[0]: found.token for found in asked(server, 2)}
        server.answer(tokens[b"two"], 0, "two is live")
        server.answer(tokens[b"one"], 3, "held")
        assert json.loads(two.recv(4096)) == {"version": 1, "status": 0, "text": "two is live", "other": ""}
        assert json.loads(one.recv(4096))["status"] == 3
        assert one.recv(1) == b""


def test_one_who_does_not_wait_gets_no_answer_but_is_heard(server: Server, path: bytes) -> None:
    begun = time.monotonic()
    assert ask(path, [b"example.org"]).status == 0
    assert time.monotonic() - begun < 5
    (found,) = asked(server)
    assert (found.domains, found.wait) == ((b"example.org",), False)
    server.answer(found.token, 0, "nobody listens")


def test_one_who_goes_away_is_forgotten(server: Server, path: bytes) -> None:
    client = connect(path)
    client.sendall(line(wait=True))
    (found,) = asked(server)
    client.close()
    assert select.select([server], [], [], 5)[0]
    assert server.requests() == []
    assert server._clients == {}
    server.answer(found.token, 0, "too late")
    assert select.select([server], [], [], 0)[0] == []


@pytest.mark.parametrize(
    "sent",
    [
        b"x" * (MOST_BYTES + 1),
        line() + b"more",
        b"",
        b'{"version": 1',
    ],
)
def test_what_is_no_single_line_is_dropped(server: Server, path: bytes, sent: bytes) -> None:
    with closing(connect(path)) as client:
        thread = threading.Thread(target=_send, args=(client, sent))
        thread.start()
        assert asked(server, seconds=0.3) == []
        thread.join()
        assert server._clients == {}


def _send(client: socket.socket, data: bytes, *, end: bool = True) -> None:
    try:
        client.sendall(data)
        if end:
            client.shutdown(socket.SHUT_WR)
    except OSError:
        # It was dropped meanwhile.
        pass


@pytest.mark.parametrize(
    "sent", [b"\n", b"[]\n", b"{}x\n", b'{"domains": 3}\n', b'{"domains": ["!"]}\n', b"[" * 60000 + b"\n", b"\xff\n"]
)
def test_what_is_no_request_is_told_so(server: Server, path: bytes, sent: bytes) -> None:
    with closing(connect(path)) as client:
        client.sendall(sent)
        assert asked(server, seconds=0.1) == []
        assert json.loads(client.recv(4096))["other"] == "version"


@given(st.lists(st.binary(max_size=200) | st.just(line(wait=True)) | st.just(b"\n"), max_size=4))
@settings(max_examples=rounds(60), deadline=None)
def test_nothing_that_a_client_sends_disturbs_the_others(pieces: list[bytes]) -> None:
    with Server(b"fuzzed.sock") as server, closing(connect(b"./fuzzed.sock")) as other:
        with closing(connect(b"./fuzzed.sock")) as client:
            for piece in pieces:
                _send(client, piece, end=False)
                server.requests()
        other.sendall(line(domains=["b25l"], wait=True))
        found = [one for one in asked(server, 50, 0.02) if one.domains]
        assert [one.domains for one in found] == [(b"one",)]
        server.answer(found[0].token, 0, "live")
        assert json.loads(other.recv(4096))["text"] == "live"


def test_another_version_is_told_so(server: Server, path: bytes) -> None:
    with closing(connect(path)) as client:
        client.sendall(json.dumps({"version": 2, "new": 1}).encode() + b"\n")
        assert asked(server, seconds=0.1) == []
        assert json.loads(client.recv(4096)) == {
            "version": 1,
            "status": 75,
            "text": "the watch has another version",
            "other": "version",
        }


def test_a_long_answer_is_cut(server: Server, path: bytes) -> None:
    with serving(server, lambda one: (75, "ü" * 1_000_000)):
        reply = ask(path, wait=5)
    assert (reply.status, reply.text) == (75, "ü" * trigger.MOST_SAID)


def test_the_number_of_clients_is_bounded(server: Server, path: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_CLIENTS):
            client = stack.enter_context(closing(connect(path)))
            client.sendall(line(wait=True))
            assert len(asked(server)) == 1
        late = stack.enter_context(closing(connect(path)))
        assert asked(server, seconds=0.1) == []
        reply = json.loads(late.recv(4096))
        assert (reply["status"], reply["text"]) == (75, "too many are waiting already")
        assert len(server._clients) == MOST_CLIENTS


def test_who_never_asks_makes_room(server: Server, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "TIME_TO_ASK", 0.0)
    with ExitStack() as stack:
        for _ in range(MOST_CLIENTS):
            stack.enter_context(closing(connect(path)))
            server.requests()
        late = stack.enter_context(closing(connect(path)))
        late.sendall(line(domains=["b25l"]))
        assert [one.domains for one in asked(server)] == [(b"one",)]


def test_running_out_of_descriptors_does_not_spin(server: Server, path: bytes) -> None:
    with closing(connect(path)) as client:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        filler = [os.open(os.devnull, os.O_RDONLY) for _ in range(used + 2 - len(os.listdir("/proc/self/fd")))]
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, limits[1]))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                while True:
                    filler.append(os.open(os.devnull, os.O_RDONLY))
            assert server.requests() == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in filler:
                os.close(descriptor)
        assert select.select([server], [], [], 0)[0] == []
        assert client.recv(1) == b""
    ask(path)
    assert len(asked(server)) == 1


def test_a_descriptor_that_another_thread_takes_ends_no_watch(
    server: Server, path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def taken(name: object, *arguments: Any, **options: Any) -> int:
        if name == os.devnull:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    for _ in range(2):
        with closing(connect(path)) as client, monkeypatch.context() as patch:
            patch.setattr(os, "open", taken)
            server._turn_away()
            assert client.recv(1) == b""
    server._turn_away()
    ask(path)
    assert len(asked(server)) == 1


def test_a_request_that_names_too_much_asks_for_everything(server: Server, path: bytes) -> None:
    ask(path, [b"%d.example" % number for number in range(11000)])
    assert [one.domains for one in asked(server)] == [()]


# -- the client -------------------------------------------------------------------------------


def test_nobody_listens(path: bytes) -> None:
    with pytest.raises(NotRunning, match="no watch is running"):
        ask(path)


def test_a_watch_that_ends_is_noticed_by_those_who_wait(server: Server, path: bytes) -> None:
    def end() -> None:
        asked(server)
        server.close()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(NotRunning, match="ended before it answered"):
        ask(path, wait=10)
    thread.join()


@pytest.mark.parametrize("said", [b"220 mail.example ESMTP\n", b"", b"x" * (1 << 17), b'{"status": "live"}\n'])
def test_what_is_no_watch_is_told_apart(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind("other.sock")
        other.listen()

        def answer() -> None:
            with other.accept()[0] as client:
                client.recv(1 << 16)
                _send(client, said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotRunning, match=r"no watch of this version|ended before it answered"):
            ask(os.fsencode(tmp_path / "other.sock"), wait=10)
        thread.join()


def test_waiting_ends_in_time(server: Server, path: bytes) -> None:
    begun = time.monotonic()
    with pytest.raises(Busy, match=r"not live within 0.2 s"):
        ask(path, wait=0.2)
    assert time.monotonic() - begun < 10


def test_a_watch_that_takes_no_connections_holds_nobody_up(server: Server, path: bytes) -> None:
    with ExitStack() as stack:
        begun = time.monotonic()
        with pytest.raises(BlockingIOError):
            for _ in range(1000):
                stack.enter_context(closing(connect(path, blocking=False)))
        with pytest.raises(Busy, match="does not take requests"):
            ask(path)
        assert time.monotonic() - begun < 10


def test_a_watch_with_another_job_says_so(path: bytes) -> None:
    mine = Job.of(Config(), [OUTPUT], b"/state")
    cases = {
        "": mine,
        "output": Job.of(Config(), [Output("validrcptto", b"/elsewhere")], b"/state"),
        "configuration": Job.of(Config(guard=Guard(domain_loss=0.1)), [OUTPUT], b"/state"),
    }
    with Server(path, mine) as server, serving(server, lambda one: (0, "live")) as heard:
        answers = {other: ask(path, wait=5, job=job) for other, job in cases.items()}
        assert {other: reply.other for other, reply in answers.items()} == {other: other for other in cases}
        assert answers[""].text == "live"
        assert len(heard) == 1


# -- where it listens -------------------------------------------------------------------------


def test_where_the_socket_is() -> None:
    assert socket_path(b"/", b"/state", Config()) == b"/run/rcptgen/trigger.sock"
    assert socket_path(b"/tree", b"/state", Config()) == b"/state/trigger.sock"
    assert socket_path(b"/tree", None, Config()) is None


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, path: bytes) -> Path:
    file = tmp_path / "rcptgen.toml"
    file.write_text(f'[watch]\nsocket = "{os.fsdecode(path)}"\n')
    return file


def test_trigger_without_a_watch(config: Path) -> None:
    for options in ([], ["--wait"], ["--wait=1", "example.org"]):
        done = called("--config", config, "trigger", *options)
        assert done.status == 75
        assert done.err.startswith("rcptgen: no watch is running (")
    done = called("--root", config.parent, "trigger")
    assert (done.status, "--state" in done.err) == (75, True)


def test_trigger_hands_over_and_ends(config: Path, server: Server) -> None:
    done = called("--config", config, "trigger", "Example.ORG", "b.example")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert [one.domains for one in asked(server)] == [(b"example.org", b"b.example")]


@pytest.mark.parametrize("options", [["--wait"], ["--wait=5"]])
def test_trigger_waits_until_it_is_live(config: Path, server: Server, options: list[str]) -> None:
    with serving(server, lambda one: (0, "live since just now")) as heard:
        done = called("--config", config, "-v", "trigger", *options, "example.org")
    assert (done.status, done.err) == (0, "rcptgen: live since just now\n")
    assert [(one.domains, one.wait) for one in heard] == [((b"example.org",), True)]


def test_trigger_ends_as_the_watch_says(config: Path, server: Server) -> None:
    with serving(server, lambda one: (3, "held\x1b[31m")):
        done = called("--config", config, "trigger", "--wait", "--", "example.org")
    assert (done.status, done.err) == (3, "rcptgen: held\\x1b[31m\n")


def test_trigger_gives_up_in_time(config: Path, server: Server) -> None:
    done = called("--config", config, "trigger", "--wait=0.1")
    assert (done.status, done.err) == (75, "rcptgen: not live within 0.1 s; the watch goes on with it\n")


def test_trigger_has_no_negative_patience(config: Path) -> None:
    assert called("--config", config, "trigger", "--wait=-1").status == 2
    assert called("--config", config, "trigger", "--wait=soon").status == 2


# -- compile beside a watch -------------------------------------------------------------------


def handed(config: Path, *, verbose: bool = False, root: bytes = b"/", **asks: object) -> int | None:
    """What becomes of a compile with these options where a watch would answer 0."""
    given = Globals(root=root, config_path=os.fsencode(config), verbose=verbose)
    read = given.config()
    how = {name: bool(asks.pop(name, False)) for name in ("as_object", "own_targets")}
    request = Request(outputs=(OUTPUT,), state=given.state(), **asks)  # type: ignore[arg-type]
    return left_to_watch(given, read, request, **how)


@pytest.fixture
def watch(config: Path, path: bytes) -> Iterator[list[Asked]]:
    given = Globals(config_path=os.fsencode(config))
    job = Job.of(given.config(), [OUTPUT], given.state())
    with Server(path, job) as server, serving(server, lambda one: (0, "live")) as heard:
        yield heard


def test_a_plain_compile_is_left_to_the_watch(config: Path, watch: list[Asked]) -> None:
    assert handed(config) == 0
    assert handed(config, wait=5.0) == 0
    assert [(one.domains, one.wait) for one in watch] == [((), True)] * 2


@pytest.mark.parametrize(
    "option",
    [
        {"verbose": True},
        {"root": b"/tree"},
        {"own_targets": True},
        {"as_object": True},
        {"dry_run": True},
        {"force": True, "reason": "forced"},
        {"full": True},
        {"approve": frozenset()},
    ],
    ids=str,
)
def test_who_asks_for_more_compiles_by_itself(config: Path, watch: list[Asked], option: dict[str, object]) -> None:
    assert handed(config, **option) is None  # type: ignore[arg-type]
    assert watch == []


def test_a_hook_of_the_watch_does_not_wait_for_it(
    config: Path, watch: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCPTGEN_HOOK", "publish")
    assert handed(config) is None
    assert watch == []


def test_without_a_watch_it_compiles_by_itself(config: Path) -> None:
    assert handed(config) is None


def test_a_watch_with_an_older_configuration_is_named(
    config: Path, watch: list[Asked], capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text() + "[guard]\ndomain_loss = 0.1\n")
    assert handed(config) is None
    assert "systemctl reload rcptgen-watch" in capsys.readouterr().err
    assert watch == []


def test_a_watch_of_another_version_is_named(
    config: Path, watch: list[Asked], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trigger, "VERSION", 2)
    assert handed(config) is None
    assert "another version: systemctl restart rcptgen-watch" in capsys.readouterr().err


def test_a_watch_that_writes_other_files_is_passed_over(
    config: Path, path: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job.of(Config(), [Output("validrcptto", b"/elsewhere")], None)
    with Server(path, job) as server, serving(server, lambda one: (0, "live")):
        assert handed(config) is None
    assert capsys.readouterr().err == ""


def test_a_watch_that_does_not_answer_is_left_to_it(
    config: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rcptgen.cli.handover.PATIENCE", 0.1)
    with pytest.raises(RcptgenError) as caught:
        handed(config)
    assert caught.value.status == 75


@pytest.mark.needs("root")
def test_compile_from_cron_beside_a_watch_is_silent(config: Path, watch: list[Asked]) -> None:
    done = called("--config", config, "compile")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert len(watch) == 1
