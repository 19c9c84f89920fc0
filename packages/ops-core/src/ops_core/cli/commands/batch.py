"""``opspawn submit --file``: many tasks at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import SubmitOptions

if TYPE_CHECKING or phase.to_run:
    from pydantic import ValidationError

    from ops_core.cli.connect import connected
    from ops_core.cli.inputs import chosen_agent
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.text import one_line
    from ops_core.errors import InvalidRequest
    from ops_core.problem_details import problem_of_fields
    from ops_core.schemas import BatchItem, BatchResult
    from ops_core.strict_json import NotStrict, parse

_BESIDE_A_FILE = frozenset({"file", "agent", "idempotency_key", "url", "as_json"})


async def submit(options: SubmitOptions, file: str) -> Exit:
    """Hand in the tasks of ``file``; nothing is handed in where a line is no task."""
    _refuse_others(options)
    given = list(_lines(file))
    async with connected(options.url, with_agents=True) as client:
        default: str | None = options.agent
        if default is None and any("agent" not in told for _number, told in given):
            default = chosen_agent([agent.name for agent in await client.agents()], None)
        items = [_item(file, number, {"agent": default, **told}) for number, told in given]
        results = await client.submit_many(items, idempotency_key=options.idempotency_key)
    return _print_results([number for number, _print_results in given], results, as_json=options.as_json)


def _refuse_others(options: SubmitOptions) -> None:
    for field in fields(options):
        if field.name not in _BESIDE_A_FILE and getattr(options, field.name) != field.default:
            message = f"--file takes no {field.name.replace('_', '-')}: write it into the lines"
            raise InvalidRequest(message, field=field.name)


def _lines(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbers and the objects of the lines that are not empty."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"--file: {file}: {error.strerror}"
        raise InvalidRequest(message, field="file") from None
    except UnicodeDecodeError:
        message = f"--file: {file}: not UTF-8"
        raise InvalidRequest(message, field="file") from None
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.strip():
            yield number, _object(file, number, line)


def _object(file: str, number: int, line: str) -> dict[str, Any]:
    try:
        told: object = parse(line.encode(errors="surrogateescape"))
    except NotStrict as error:
        message = f"{file}, line {number} {error}" if not error.place else f"{file}, line {number}: {error}"
        raise InvalidRequest(message, field="file") from None
    if not isinstance(told, dict):
        message = f"{file}, line {number}: not a JSON object"
        raise InvalidRequest(message, field="file")
    return cast("dict[str, Any]", told)


def _item(file: str, number: int, told: dict[str, Any]) -> BatchItem:
    try:
        return BatchItem.model_validate(told)
    except ValidationError as error:
        message = f"{file}, line {number}: {problem_of_fields(error.errors()).detail}"
        raise InvalidRequest(message, field="file") from None


def _print_results(numbers: Sequence[int], results: Sequence[BatchResult], *, as_json: bool) -> Exit:
    screen, refused = Screen(), 0
    for number, result in zip(numbers, results, strict=True):
        if as_json:
            screen.json(result.model_dump(mode="json"))
        elif result.task_id is not None:
            screen.raw(result.task_id)
        if result.problem is not None:
            refused += 1
            if not as_json:
                print(f"line {number}: {one_line(result.problem.detail)}", file=sys.stderr)
    if screen.closed:
        return Exit.OUTPUT_CLOSED
    return Exit.REFUSED if refused else Exit.OK
