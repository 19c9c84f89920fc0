"""Hostile code in the pool and in the jail, looked at from outside."""

import asyncio
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from agentkit.errors import ToolError
from agentkit.sandbox import (
    BadResult,
    CpuExceeded,
    DiskExceeded,
    FunctionRaised,
    Grants,
    Limits,
    MemoryExceeded,
    NoResult,
    OutputTooLarge,
    ResultTooLarge,
    ToolCrashed,
    ToolTimeout,
    TooManyProcesses,
)
from agentkit.sandbox.terms import MIB

from .sandbox_support import (  # type: ignore[import-not-found]
    BACKENDS,
    HERE,
    NAME,
    left_behind,
    memory_of_this_process,
    opened,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only"),
    pytest.mark.asyncio(loop_scope="module"),
]

CANARY = "canary-" + secrets.token_hex(8)
SMALL = Limits(
    seconds=1.0,
    cpu_seconds=5,
    memory_bytes=64 * MIB,
    processes=24,
    descriptors=64,
    output_bytes=64 << 10,
    result_bytes=64 << 10,
    disk_bytes=8 * MIB,
)
MARKED = Grants(secrets=("SBX_NAME",))
"""A name by which processes are found that an attack has made."""
ROOM = 128 * MIB
"""What the worker's own memory may grow by while somebody floods it."""


@dataclass
class Outside:
    """What must stay untouched, and who must hear nothing."""

    folder: Path
    heard: list[str] = field(default_factory=list)
    sockets: dict[str, socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o777)
        self.secret = self.folder / "secret.txt"
        self.secret.write_text(CANARY)
        self.secret.chmod(0o666)
        self.before = self.state()
        self.unix = str(self.folder / "socket")
        self.abstract = "\0" + self.unix
        for name, family, kind, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, self.unix),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, self.abstract),
            ("letters", socket.AF_UNIX, socket.SOCK_DGRAM, self.unix + "d"),
            ("abstract letters", socket.AF_UNIX, socket.SOCK_DGRAM, self.abstract + "d"),
        ):
            sock = self.sockets[name] = socket.socket(family, kind)
            sock.bind(address)
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.listen()

    def state(self):
        about = self.secret.stat()
        return self.secret.read_text(), about.st_mode, about.st_mtime_ns, sorted(os.listxattr(self.secret))

    def port(self, name):
        return self.sockets[name].getsockname()[1]

    def listen(self):
        """Who was heard: names of the sockets that somebody reached."""
        for name, sock in self.sockets.items():
            with_a_try = sock.accept if sock.type == socket.SOCK_STREAM else lambda sock=sock: sock.recv(10)
            try:
                with_a_try()
            except BlockingIOError:
                continue
            self.heard.append(name)
        return self.heard

    def close(self):
        for sock in self.sockets.values():
            sock.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    os.environ["SBX_CANARY"] = CANARY
    found = Outside(tmp_path_factory.mktemp("outside") / "folder")
    leaked = os.open(found.secret, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    yield found
    os.close(leaked)
    found.close()
    del os.environ["SBX_CANARY"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def box(request, outside):
    async with opened(request.param, limits=SMALL, secrets={"SBX_NAME": NAME}) as box:
        yield box


async def outcome_of(box, name, arguments, **more):
    """What became of a call: its value, or the error; with what must be true after every one."""
    before = memory_of_this_process()
    began = time.monotonic()
    try:
        outcome = (await box.call(f"sandboxed.attacks:{name}", arguments, grants=MARKED, **more)).value
    except ToolError as error:
        outcome = error
    assert time.monotonic() - began < 5 + more.get("limits", SMALL).seconds
    assert not left_behind()
    assert memory_of_this_process() - before < ROOM
    assert (await box.call("sandboxed.honest:add", {"a": 2, "b": 3})).value == 5
    return outcome


POOL, JAIL = "pool", "jail"
ANY = (POOL, JAIL)


# --- it does not end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        "loop",
        "loop_deaf",
        "loop_in_c",
        "stop_itself",
        "sleep_with_closed_outputs",
        "finalizer_that_does_not_end",
    ],
)
async def test_what_does_not_end_is_killed(box, attack):
    began = time.monotonic()
    outcome = await outcome_of(box, attack, {}, limits=Limits(seconds=0.3))
    if attack == "finalizer_that_does_not_end":
        assert outcome == "returned" or isinstance(outcome, ToolTimeout)
    else:
        assert isinstance(outcome, ToolTimeout)
    assert time.monotonic() - began < 2.0


async def test_threads_that_do_not_end_end_with_the_call(box):
    assert await outcome_of(box, "threads_that_do_not_end", {}) == "returned"


async def test_a_deadline_holds_where_it_is_sooner_than_the_limit(box):
    outcome = await outcome_of(box, "loop", {}, deadline=time.monotonic() + 0.3)
    assert isinstance(outcome, ToolTimeout)


async def test_processor_time_is_limited(box):
    outcome = await outcome_of(box, "loop", {}, limits=Limits(seconds=4, cpu_seconds=0.2))
    assert isinstance(outcome, CpuExceeded)


@pytest.mark.parametrize("attack", ["loop", "loop_deaf", "loop_in_c", "stop_itself"])
async def test_a_call_that_is_cancelled_is_gone(box, attack):
    calling = asyncio.create_task(
        box.call(f"sandboxed.attacks:{attack}", limits=Limits(seconds=20), grants=MARKED)
    )
    while not left_behind():
        assert not calling.done()
        await asyncio.sleep(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert not left_behind()


# --- it wants more than there is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack, expected",
    [
        ("fill_memory", MemoryExceeded),
        ("fill_shared_memory", (MemoryExceeded, ToolCrashed, FunctionRaised)),
        ("fill_files_in_memory", (FunctionRaised, MemoryExceeded, DiskExceeded)),
        ("one_huge_number", (MemoryExceeded, ToolTimeout, CpuExceeded)),
        ("fall_down_the_stack", (ToolCrashed, MemoryExceeded, FunctionRaised, ToolTimeout)),
        ("thread_bomb", (FunctionRaised, TooManyProcesses, MemoryExceeded)),
        ("flood_output", OutputTooLarge),
        ("flood_errors", OutputTooLarge),
        ("flood_result", (ResultTooLarge, MemoryExceeded)),
        ("flood_result_behind_the_back", ResultTooLarge),
        ("fill_disk", DiskExceeded),
        ("fill_one_file", DiskExceeded),
        ("fill_inodes", DiskExceeded),
    ],
)
async def test_what_is_too_much_is_refused(box, attack, expected):
    assert isinstance(await outcome_of(box, attack, {}), expected)


async def test_segments_of_memory_are_not_to_be_had(box):
    assert await outcome_of(box, "fill_segments", {}) == "refused"


async def test_a_fork_bomb_does_not_go_off(box):
    outcome = await outcome_of(box, "fork_bomb", {})
    assert isinstance(
        outcome, FunctionRaised if box.name == POOL else (ToolTimeout, TooManyProcesses, MemoryExceeded)
    )


async def test_descriptors_are_limited(box):
    assert await outcome_of(box, "flood_descriptors", {}) < SMALL.descriptors


async def test_what_a_function_reports_is_limited(box):
    """A megabyte of it is read, and no more: whoever goes on waits for nobody, or is told that nobody listens."""
    outcome = await outcome_of(box, "flood_reports", {})
    assert outcome in {"closed", "told"} or isinstance(outcome, ToolTimeout)


# --- it looks around ----------------------------------------------------------------------------------------------


async def test_files_that_were_not_granted_are_not_read(box, outside):
    paths = [
        str(outside.secret),
        "/etc/shadow",
        "/etc/hostname",
        "/proc/version",
        "/sys/kernel/notes",
        "/dev/kmsg",
    ]
    paths += [
        str(Path.home() / ".ssh/id_rsa"),
        str(HERE / "conftest.py").replace("conftest.py", "wire_server.txt"),
    ]
    assert [
        text for text in await outcome_of(box, "read_files", {"paths": paths}) if "Linux" not in text
    ] == []
    found = await outcome_of(box, "read_through_links", {"path": str(outside.secret)})
    assert found == []


async def test_other_processes_and_their_environment_are_not_read(box, outside):
    found = await outcome_of(box, "read_of_processes", {"pid": os.getpid()})
    assert CANARY not in str(found)
    assert CANARY not in str(await outcome_of(box, "read_environment", {}))
    assert CANARY not in str(await outcome_of(box, "read_descriptors", {}))
    assert await outcome_of(box, "read_memory_for", {"text": CANARY[::-1]}) == 0


async def test_files_that_were_not_granted_are_not_changed(box, outside):
    assert await outcome_of(box, "change_files", {"path": str(outside.secret)}) == []
    assert outside.state() == outside.before
    folders = [
        str(outside.folder),
        str(HERE),
        "/usr",
        "/etc",
        "/",
        "/root",
        sys.prefix,
        "/var/tmp",
        "/dev/shm",
        "/dev",
    ]
    written = await outcome_of(box, "write_somewhere", {"folders": folders})
    assert not [folder for folder in [*folders, "/tmp"] if Path(folder, "sbx-intruder").exists()]
    own = (
        ("/tmp/",) if box.name == POOL else ("/tmp/", "/dev/shm/")
    )  # the call's own, whatever is there outside
    assert [path for path in written if not path.strip("'").startswith(own)] == []


# --- it wants to talk to somebody ---------------------------------------------------------------------------------


async def test_nobody_outside_is_reached(box, outside):
    assert await outcome_of(box, "connect_tcp", {"port": outside.port("tcp")}) == []
    assert await outcome_of(box, "connect_by_hand", {"port": outside.port("tcp")}) == []
    assert await outcome_of(box, "send_udp", {"port": outside.port("udp")}) == []
    assert await outcome_of(box, "connect_unix", {"path": outside.unix}) == []
    assert await outcome_of(box, "send_through_a_pair", {"path": outside.unix + "d"}) == []
    assert await outcome_of(box, "resolve_names", {}) == []
    assert outside.listen() == []


async def test_strange_sockets_are_not_to_be_had(box):
    assert await outcome_of(box, "strange_sockets", {}) == []
    assert await outcome_of(box, "ask_a_ring", {}) == []


# --- it wants to get at others ------------------------------------------------------------------------------------


async def test_others_are_not_killed(box):
    outcome = await outcome_of(box, "kill_others", {"pid": os.getpid()})
    assert outcome == "alive" or isinstance(outcome, ToolCrashed)


@pytest.mark.parametrize("attack", ["trace_others", "limit_others"])
async def test_others_are_not_touched(box, attack):
    assert await outcome_of(box, attack, {"pid": os.getpid()}) == []


async def test_namespaces_and_limits_stay_as_they_are(box):
    assert await outcome_of(box, "escape_namespaces", {}) == []
    assert await outcome_of(box, "raise_limits", {}) == []
    assert await outcome_of(box, "outlive_the_parent", {}) == "refused"


async def test_settings_of_the_kernel_are_not_written_whoever_the_worker_is(box, tmp_path):
    """With granted paths it has the id of the worker, which is the owner of these files where that is root."""
    call = "sandboxed.attacks:open_settings_of_the_kernel"
    for grants in (MARKED, Grants(write=(tmp_path,)), Grants(read=(tmp_path,))):
        assert (await box.call(call, grants=grants)).value == []


async def test_timers_are_limited(box):
    assert await outcome_of(box, "arm_timers", {}) <= 1024


async def test_programs_run_in_the_jail_only(box):
    found = await outcome_of(box, "run_programs", {})
    assert bool(found) == (box.name == JAIL)


async def test_nothing_is_left_running(box, outside):
    file = outside.folder / "daemon"
    outcome = await outcome_of(box, "leave_a_daemon", {"file": str(file)})
    assert isinstance(outcome, FunctionRaised) if box.name == POOL else outcome == "left"
    assert not file.exists()
    began = time.monotonic()
    outcome = await outcome_of(box, "leave_a_child_with_the_output", {})
    assert isinstance(outcome, FunctionRaised) if box.name == POOL else outcome == "returned"
    assert time.monotonic() - began < 1.0  # it is not waited for


# --- it leaves something bad behind -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack, expected",
    [
        ("return_not_a_number", BadResult),
        ("return_infinity_as_text", BadResult),
        ("return_depth", (BadResult, ResultTooLarge)),
        ("return_an_object", BadResult),
        ("return_a_pickle", BadResult),
        ("return_garbage", BadResult),
        ("return_surrogates", BadResult),
        ("return_a_wrong_envelope", BadResult),
        ("return_two", BadResult),
        ("return_nothing", NoResult),
        ("exit_badly", NoResult),
        ("leave_by_exception", FunctionRaised),
        ("interrupt", FunctionRaised),
        ("raise_unspeakable", FunctionRaised),
        ("crash", ToolCrashed),
        ("abort", ToolCrashed),
    ],
)
async def test_a_bad_end_is_an_error_of_the_call(box, attack, expected):
    outcome = await outcome_of(box, attack, {})
    assert isinstance(outcome, expected)
    assert not Path("/tmp/sbx-intruder").exists()


async def test_what_a_result_says_of_itself_is_not_believed(box):
    outcome = await outcome_of(box, "return_evil", {})
    assert outcome in ({}, {"a": 1}) or isinstance(outcome, BadResult)
    assert not Path("/tmp/sbx-intruder").exists()


# --- it wants to meet itself again --------------------------------------------------------------------------------


async def test_nothing_is_carried_over_to_the_next_call(box):
    for _ in range(3):
        assert await outcome_of(box, "remember", {"word": "me"}) == []
