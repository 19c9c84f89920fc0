"""Server-sent events: bytes of a stream, cut into the data of its events."""

from __future__ import annotations

from collections.abc import Iterator

from agentkit.errors import ModelBadResponse
from agentkit.models.provider_errors.bodies import as_error_line

_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})


class EventReader:
    """Cuts a stream of bytes into the data of its events (WHATWG HTML, section 9.2.6, "server-sent events").

    Stricter than the standard in one point: a line that is no field of an event is an error and not ignored, since
    it is how a proxy's error page looks. A JSON object on a line of its own, as some servers report an error in the
    middle of a stream, counts as an event.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of every event that ``chunk`` completes.

        Raises:
            ModelBadResponse: this is no event stream.
        """
        if b"\n" not in chunk:  # looked at once: a long line must not cost quadratic time
            self._rest += chunk
            return
        *lines, rest = (bytes(self._rest) + chunk).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            yield from self._line(line.removesuffix(b"\r"))

    def close(self) -> Iterator[bytes]:
        """What the end of the stream completes: servers forget the empty line after the last event."""
        yield from self._line(bytes(self._rest).removesuffix(b"\r"))
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[bytes]:
        if not self._started:
            self._started, line = True, line.removeprefix(b"\xef\xbb\xbf")
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            if self._data and self._data[-1].endswith(b"}") and value.startswith((b"{", b"[DONE]")):
                yield from self._line(
                    b""
                )  # no JSON goes on so: the server leaves out the empty line between events
            self._data.append(value)
        elif line.startswith(b"{"):
            yield line
        elif not line:
            if self._data:
                data, self._data = b"\n".join(self._data), []
                if data and not data.isspace():  # some gateways keep a connection alive so
                    yield data
        elif name == b"error":  # llama-box
            yield as_error_line(value.strip())
        elif name and name not in _FIELDS:  # an empty name is a comment
            raise ModelBadResponse("the stream holds what is no server-sent event")
