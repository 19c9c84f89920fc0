"""Canonical form of a request: it can be stored and compared across releases.

Only what reaches the model is in it, and nothing that has its default value: a field that a later release adds does not
make old recordings differ. Ids of tool calls are counted, since providers and releases make them up in different ways.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeAlias, cast

from agentkit.messages import AssistantMessage, ModelRequest, ToolSpec

Json: TypeAlias = Any
_SPOKEN_OF_A_TOOL = ("name", "description", "parameters")
_SPOKEN_OF_A_REPLY = ("parts",)
_IDS = ("id", "call_id")
_LONGEST_DATA = 256
_SHOWN = 60


def canonical(request: ModelRequest) -> dict[str, Json]:
    """``request`` as plain JSON."""
    ids: dict[str, str] = {}
    body = _plain(request, ids)
    plain: dict[str, Json] = json.loads(
        json.dumps(body, default=repr)
    )  # numbers and keys as a file gives them back
    return plain


def _plain(value: Any, ids: dict[str, str]) -> Json:
    if isinstance(value, ToolSpec):
        return {name: _plain(getattr(value, name), ids) for name in _SPOKEN_OF_A_TOOL}
    if is_dataclass(value) and not isinstance(value, type):
        return dict(_said(value, ids))
    if isinstance(value, bytes):
        return _digest(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(each, ids) for key, each in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each, ids) for each in cast("Sequence[object]", value)]
    return value


def _said(value: Any, ids: dict[str, str]) -> Iterator[tuple[str, Json]]:
    if not isinstance(value, ModelRequest):
        yield "is", re.sub(r"(?<!^)(?=[A-Z])", "_", type(value).__name__).lower()
    for field in fields(value):
        if isinstance(value, AssistantMessage) and field.name not in _SPOKEN_OF_A_REPLY:
            continue  # which model wrote it, and how it ended
        found = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is not MISSING and type(found) is type(default) and found == default:
            continue
        if field.name in _IDS and isinstance(found, str):
            yield field.name, ids.setdefault(found, f"#{len(ids) + 1}")
        elif field.name == "data" and isinstance(
            found, Mapping
        ):  # which endpoint wrote it says nothing to a model
            told = {key: each for key, each in cast("Mapping[str, Any]", found).items() if key != "issuer"}
            yield field.name, _plain(told, ids)
        elif field.name == "data" and isinstance(found, str) and len(found) > _LONGEST_DATA:
            yield field.name, _digest(found.encode())
        else:
            yield field.name, _plain(found, ids)


def _digest(data: bytes) -> str:
    """A picture or a document is compared, not kept."""
    digest = base64.b32encode(hashlib.sha256(data).digest()[:20]).decode().lower()
    return f"{len(data)} bytes, sha256 {digest}"


# --- how two of them differ --------------------------------------------------------------------------------------


def differences(recorded: Json, asked: Json, where: str = "") -> list[str]:
    """Each place where ``asked`` is not what was recorded, with both sides, in words."""
    if recorded == asked:
        return []
    kind = type(recorded).__name__
    if kind == type(asked).__name__ and kind in _INSIDE:
        return _INSIDE[kind](recorded, asked, where)
    return [f"{where}: recorded {_short(recorded)}, asked {_short(asked)}"]


def _in_objects(recorded: dict[str, Json], asked: dict[str, Json], where: str) -> list[str]:
    found: list[str] = []
    for name in [*recorded, *(name for name in asked if name not in recorded)]:
        place = f"{where}.{name}" if where else name
        if name not in asked:
            found.append(f"{place}: recorded {_short(recorded[name])}, not asked")
        elif name not in recorded:
            found.append(f"{place}: not recorded, asked {_short(asked[name])}")
        else:
            found += differences(recorded[name], asked[name], place)
    return found


def _in_lists(recorded: list[Json], asked: list[Json], where: str) -> list[str]:
    found = [
        difference
        for index, (one, other) in enumerate(zip(recorded, asked, strict=False))
        for difference in differences(one, other, f"{where}[{index}]")
    ]
    common = min(len(recorded), len(asked))
    if len(recorded) > common:
        found.append(
            f"{where}: {len(recorded)} recorded, {len(asked)} asked; missing {_short(recorded[common])}"
        )
    elif len(asked) > common:
        found.append(f"{where}: {len(recorded)} recorded, {len(asked)} asked; new {_short(asked[common])}")
    return found


def _in_texts(recorded: str, asked: str, where: str) -> list[str]:
    pairs = enumerate(zip(recorded, asked, strict=False))
    at = next((index for index, (one, other) in pairs if one != other), min(len(recorded), len(asked)))
    begin = max(0, at - 20)
    if at < _SHOWN // 2:
        return [f"{where}: recorded {_short(recorded)}, asked {_short(asked)}"]
    one, other = _short(recorded[begin:]), _short(asked[begin:])
    return [f"{where}, character {at}: recorded {one}, asked {other}"]


_INSIDE: Mapping[str, Callable[[Any, Any, str], list[str]]] = {
    "dict": _in_objects,
    "list": _in_lists,
    "str": _in_texts,
}


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
