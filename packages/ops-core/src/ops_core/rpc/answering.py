"""Around every method: bounded and known requests, and errors told as the table says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from grpc import aio
from pydantic import ValidationError

from agentkit.calls import place_of
from agentkit.errors import Actor
from ops_core.closing import Closing
from ops_core.errors import InvalidRequest, OpsError, ServerUnavailable
from ops_core.problems import Problem, is_ours, problem_of, problem_of_fields, status_of, title_of
from ops_core.protocol.failures import DETAILS, details_of, message_of
from ops_core.protocol.values import refuse_unknown

log = logging.getLogger("ops_core.rpc")

Context = aio.ServicerContext[Any, Any]

_INTERNAL = Problem(
    title=title_of(500),
    status=500,
    detail="The server has made a mistake; its log says more.",
    code="internal",
    actor=Actor.DEVELOPER,
)
_TOO_LARGE = Problem(
    title=title_of(413),
    status=413,
    detail="The message is larger than this server accepts.",
    code="body_too_large",
    actor=Actor.USER,
)


class Answering:
    """Checks requests and tells errors.

    Args:
        max_bytes: a larger request is refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def __call__(
        self,
        request: Message,
        context: Context,
        *,
        max_bytes: int | None = None,
        missing: type[OpsError] | None = None,
    ) -> AsyncGenerator[None]:
        """In this context ``request`` is answered; an error that leaves it ends the call.

        Args:
            request: what was asked.
            context: of the call.
            max_bytes: where the method has a bound of its own.
            missing: this error says that what was asked for is not there, where elsewhere it is a wrong field.
        """
        try:
            if request.ByteSize() > (max_bytes or self._max_bytes):
                await _end(context, grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_LARGE)
            refuse_unknown(request)
            yield
        except aio.AbortError:
            raise
        except aio.InternalError:  # there is nobody to write to any more
            raise asyncio.CancelledError from None
        except ValidationError as error:
            await _end(context, _status(InvalidRequest()), problem_of_fields(error.errors()))
        except Closing:
            stopping = ServerUnavailable()
            await _end(context, _status(stopping), problem_of(stopping))
        except OpsError as error:
            if is_ours(error):
                log.error("%s: %s", error.code, error)
            absent = missing is not None and isinstance(error, missing)
            status = grpc.StatusCode.NOT_FOUND if absent else _status(error)
            await _end(context, status, problem_of(error))
        except Exception as error:  # noqa: BLE001  (its text may hold anything; gRPC would tell it to the caller)
            log.error("unexpected %s at %s", type(error).__name__, place_of(error))
            await _end(context, grpc.StatusCode.INTERNAL, _INTERNAL)


def _status(error: OpsError) -> grpc.StatusCode:
    return grpc.StatusCode[status_of(error).grpc]


async def _end(context: Context, status: grpc.StatusCode, problem: Problem) -> NoReturn:
    number: int = status.value[0]
    await context.abort(status, message_of(problem), ((DETAILS, details_of(problem, number)),))
    raise AssertionError
