"""Attachments: images and documents in the input of a run, and the size of a picture.

::

    {"question": "What is this?", "picture": {"$attachment": {"media_type": "image/png", "data": "iVBORw0…"}}}

An object whose only key is ``$attachment`` stands for an :class:`~agentkit.messages.Attachment`, wherever in the
input it is: with ``data`` in base64 or with an ``https`` ``url``, and a ``name`` where it has one. It is stored once,
with the input; the model is shown the input with a mark in its place, and the attachments beside it.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from agentkit.errors import UsageError
from agentkit.messages import ATTACHMENT_KEY, MAX_ATTACHMENT_BYTES, Attachment, JsonObject, JsonValue

KEY, MAX_BYTES = ATTACHMENT_KEY, MAX_ATTACHMENT_BYTES
MAX_TOTAL_BYTES = 20 * 1024 * 1024
"""Of all attachments of an input together."""

Input: TypeAlias = "None | bool | int | float | str | Attachment | Sequence[Input] | Mapping[str, Input]"
"""What a run may be given: JSON, with attachments in it."""

_FIELDS = {"media_type", "data", "url", "name"}


def read_attachment(path: Path | str, *, media_type: str | None = None) -> Attachment:
    """The file at ``path``, to be handed to an agent. Blocks.

    Args:
        path: of an image or a document.
        media_type: what it is, where the name's ending does not say so.

    Raises:
        UsageError: it is too large, or what it is cannot be told from its name.
        OSError: it cannot be read.
    """
    path = Path(path)
    import mimetypes  # it reads the tables of the system

    media_type = media_type or mimetypes.guess_type(path.name)[0]
    if media_type is None:
        raise UsageError(f"what {path.name} is cannot be told from its name: give its media_type")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)  # no more of it, however large it is
    return checked(Attachment(media_type=media_type, data=data, name=path.name))


def checked(attachment: Attachment) -> Attachment:
    """``attachment``, where it can be one.

    Raises:
        UsageError: a field cannot be right; the message names it, and never holds what is in it.
    """
    problem = attachment.problem
    if problem is not None:
        raise UsageError(f"an attachment {problem}")
    return attachment


# --- JSON --------------------------------------------------------------------------------------------------------


def to_json(attachment: Attachment) -> JsonObject:
    """``attachment`` as it stands in an input."""
    return attachment.to_json()


def from_json(value: Mapping[str, Any]) -> Attachment:
    """The attachment that ``{"$attachment": …}`` stands for.

    Raises:
        UsageError: it does not say what it should; the message names the field.
    """
    told = value.get(KEY)
    if len(value) != 1 or not isinstance(told, Mapping):
        raise UsageError(f"{KEY} stands alone in its object, and is an object itself")
    fields = cast("Mapping[str, Any]", told)
    if unknown := sorted(set(fields) - _FIELDS):
        raise UsageError(f"{KEY} has the unknown field {', '.join(unknown)[:100]}")
    if not all(isinstance(field, str) for field in fields.values()):
        raise UsageError(f"the fields of {KEY} are texts")
    data = fields.get("data")
    return checked(
        Attachment(
            media_type=fields.get("media_type", ""),
            data=None if data is None else _decoded(data),
            url=fields.get("url"),
            name=fields.get("name", ""),
        )
    )


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"the data of {KEY} is not base64") from None


def checked_input(given: Input) -> JsonValue:
    """``given`` with every attachment in its JSON form.

    Raises:
        UsageError: an attachment or a text is not as it must be, or all of them together are larger than
            :data:`MAX_TOTAL_BYTES`.
    """
    if isinstance(given, str):
        return _whole(given)
    sizes: list[int] = []
    try:
        plain: JsonValue = _plain(given, sizes)
    except RecursionError:
        raise UsageError("the input is nested too deeply") from None
    if sum(sizes) > MAX_TOTAL_BYTES:
        raise UsageError(f"the attachments hold {sum(sizes)} bytes; at most {MAX_TOTAL_BYTES} are taken")
    return plain


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"a text holds half of a surrogate pair (character {error.start}), which is no text"
        raise UsageError(message) from None
    return text


def _plain(value: Any, sizes: list[int]) -> Any:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, Attachment):
        sizes.append(len(checked(value).data or b""))
        return to_json(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if KEY in fields:
            sizes.append(len(from_json(fields).data or b""))
        return {_plain(name, sizes): _plain(field, sizes) for name, field in fields.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, sizes) for item in cast("Sequence[Any]", value)]
    return value


def split_input(given: JsonValue) -> tuple[JsonValue, tuple[Attachment, ...]]:
    """What the model is to read, and what it is to look at.

    Each attachment is replaced by a mark with its number and name. A list of texts and attachments becomes one text.
    What only looks like an attachment is left as it is: what was stored before there were any reads as it did.
    """
    if isinstance(given, str):
        return given, ()
    found: list[Attachment] = []
    shown: JsonValue = _marked(given, found)
    if found and isinstance(shown, list):
        texts = [item for item in shown if isinstance(item, str)]
        if len(texts) == len(shown):
            return "\n".join(texts), tuple(found)
    return shown, tuple(found)


def _marked(value: Any, found: list[Attachment]) -> Any:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if KEY in fields:
            try:
                found.append(from_json(fields))
            except UsageError:
                return fields
            name = found[-1].name or found[-1].media_type
            return f"[attachment {len(found)}: {name}]"
        return {name: _marked(field, found) for name, field in fields.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, found) for item in cast("Sequence[Any]", value)]
    return value


_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that begin a frame
_VP8X = 30  # bytes until the size is told
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a segment


def pixels_of(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, JPEG, GIF or WebP; ``None`` for anything else, and for what is cut short."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            found = struct.unpack_from(">II", data, 16)
        elif data.startswith((b"GIF87a", b"GIF89a")):
            found = struct.unpack_from("<HH", data, 6)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            found = _of_webp(data)
        elif data.startswith(b"\xff\xd8"):
            found = _of_jpeg(data)
        else:
            return None
    except struct.error:  # it ends before it says so
        return None
    width, height = found
    return (width, height) if width > 0 and height > 0 else None


def _of_webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X" if len(data) >= _VP8X:
            return (
                int.from_bytes(data[24:27], "little") + 1,
                int.from_bytes(data[27:30], "little") + 1,
            )
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return 0, 0


def _of_jpeg(data: bytes) -> tuple[int, int]:
    place = 2
    while place < len(data):
        if data[place] != 0xFF:
            return 0, 0
        (marker,) = struct.unpack_from(">B", data, place + 1)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _JPEG_ALONE:
            place += 2
        else:
            place += 2 + max(2, struct.unpack_from(">H", data, place + 2)[0])
    return 0, 0
