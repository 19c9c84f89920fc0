"""Private RabbitMQ node for tests: no service, loopback only, and nothing is left behind.

Its programs are those of the package ``rabbitmq-server``; the service of that package is not used.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_SECONDS = 60.0
ANSWER_SECONDS = 20.0
NODE = "opspawn@localhost"

CONFIG = """
listeners.tcp.default = 127.0.0.1:{port}
log.console = false
log.file.level = warning
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 1MB
"""
TLS = """
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
"""
NAMES = """
{lookup, [file]}.
{host, {127,0,0,1}, ["localhost"]}.
"""
"""How the node finds its own host: by no service of the machine, which would take a helper process."""

ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
"""Bound to loopback; its schedulers do not spin, since the tests want the processor."""

EPMD = 'epmd -port "$0" -address 127.0.0.1 & cat; kill $!; wait'
"""What tells nodes their ports: ends with its standard input, that is, with whoever started it."""

LIMIT = "vm_memory_monitor:set_vm_memory_high_watermark({limit})"
CLOSE = 'rabbit_networking:close_all_connections(<<"by the test">>)'
CONNECTIONS = "length(rabbit_networking:connections())"


class RabbitServer:
    """A node with a folder, ports and an ``epmd`` of its own; a context manager.

    Its standard input is an Erlang shell: the node obeys there, and ends when whoever started it is gone.

    Args:
        certificates: a folder with ``ca.pem``, ``server.pem`` and ``server.key``; the node speaks TLS, too.
    """

    def __init__(self, certificates: Path | None = None) -> None:
        self._certificates = certificates
        self._folder = Path(tempfile.mkdtemp(prefix="opspawn-mq-"))
        self._port, self._dist_port, self._epmd_port, self.tls_port = _free_ports(4)
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._asked = count()

    @staticmethod
    def program() -> Path | None:
        """Where the node's program is; ``None`` where RabbitMQ is not installed."""
        found = shutil.which("rabbitmq-server")
        # what Debian has on the PATH starts the node as another user, in that user's folder
        candidates = [Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), *([Path(found)] if found else [])]
        return next((candidate for candidate in candidates if candidate.exists()), None)

    def __enter__(self) -> Self:
        tls = ""
        if self._certificates is not None:
            tls = TLS.format(port=self.tls_port, folder=self._certificates)
        (self._folder / "rabbitmq.conf").write_text(CONFIG.format(port=self._port) + tls)
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "names").write_text(NAMES)
        try:
            self._epmd = self._started("/bin/sh", "-c", EPMD, str(self._epmd_port))
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)
        if self._epmd is not None and self._epmd.stdin is not None:
            self._epmd.stdin.close()
            self._epmd.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, **query: str) -> str:
        """The URL of a dispatcher on it, with these fields in its query."""
        fields = "&".join(f"{name}={value}" for name, value in query.items())
        return f"amqp://guest:guest@127.0.0.1:{self._port}/" + (f"?{fields}" if fields else "")

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    # --- its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and wait until it answers."""
        program = self.program()
        assert program is not None, "rabbitmq-server is not installed"
        node = self._node = self._started(str(program))
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > until or node.poll() is not None:
                message = f"RabbitMQ does not start: {(self._folder / 'output').read_text()[-2000:]}"
                raise RuntimeError(message)
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it: ``SIGTERM`` in good order, ``SIGKILL`` as if the power went."""
        node = self._node
        if node is not None and node.poll() is None:
            node.send_signal(number)
            node.wait(START_SECONDS)
        if node is not None and node.stdin is not None:
            node.stdin.close()

    def empty(self) -> None:
        """Take its disk away while it does not run: every queue and message is gone."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    # --- what it is told ------------------------------------------------------------------------------------------

    def close_connections(self) -> int:
        """Cut every connection that is open; gives how many there were."""
        before = int(self.tell(CONNECTIONS))
        self.tell(CLOSE)
        return before

    def alarm(self, *, on: bool) -> None:
        """Too little memory, or enough again: during an alarm, nobody who publishes is heard."""
        self.tell(LIMIT.format(limit="0.0000001" if on else "{absolute, 2000000000}"))

    def tell(self, expression: str) -> str:
        """Let the node carry out an Erlang expression; gives its value as a text."""
        node = self._node
        assert node is not None
        assert node.stdin is not None
        mark = f"answer-{next(self._asked)}-"
        # the marks are put together there, since a shell on a terminal would repeat what it was told
        line = f'io:format("~s~s~0p~s~n", ["{mark[:-1]}", "-<", {expression}, ">-"]).\n'
        node.stdin.write(line.encode())
        node.stdin.flush()
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            _before, found, rest = (self._folder / "output").read_text(errors="replace").partition(mark + "<")
            answer, end, _after = rest.partition(">-\n")
            if found and end:
                return answer
            if time.monotonic() > until:
                message = f"RabbitMQ does not answer {expression}"
                raise TimeoutError(message)
            time.sleep(0.01)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _started(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(  # noqa: S603  (programs of the package)
                command, cwd=self._folder, env=self._environment(), stdin=subprocess.PIPE,
                stdout=output, stderr=output,
            )  # fmt: skip

    def _environment(self) -> dict[str, Any]:
        folder = self._folder
        return {
            "PATH": os.defpath,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_INETRC": str(folder / "names"),
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,  # not the machine's
            "RABBITMQ_ALLOW_INPUT": "true",  # and so the process that was started is the node itself
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        }

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(8))
        except OSError:
            return False


def _free_ports(wanted: int) -> list[int]:
    open_together = [socket.create_server(("127.0.0.1", 0)) for _ in range(wanted)]
    ports = [one.getsockname()[1] for one in open_together]
    for one in open_together:
        one.close()
    return ports
