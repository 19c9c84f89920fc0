"""How large a picture is, read from its first bytes. Pure; nothing is decoded."""

from __future__ import annotations

import struct

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
