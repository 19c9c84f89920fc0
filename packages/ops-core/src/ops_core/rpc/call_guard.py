"""Guard around every gRPC method: bounded and known requests, and errors according to the table of problems."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio
from pydantic import ValidationError

from agentkit.errors import Actor
from agentkit.run.tool_call import place_of
from ops_core.concurrency.shutdown import Closing
from ops_core.errors import InvalidRequest, OpsError, ServerUnavailable
from ops_core.problem_details import Problem, is_ours, problem_of, problem_of_fields, status_of, title_of
from ops_core.protocol.errors import DETAILS, details_of, message_of
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


_UNDECODABLE = Problem(
    title=title_of(400),
    status=400,
    detail="The message is not of its type: it cannot be decoded.",
    code="malformed_body",
    actor=Actor.USER,
)


class Decoding(aio.ServerInterceptor):
    """Ends a call whose message cannot be decoded as a wrong argument of the caller; gRPC itself calls it a fault of
    the server, and logs each.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, with a decoder that does not raise."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler  # type: ignore[no-any-return]
        kind = "unary_stream" if handler.response_streaming else "unary_unary"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made: grpc.RpcMethodHandler[Any, Any] = make(
            _decoded(getattr(handler, kind)),
            request_deserializer=_lenient(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return made


def _lenient(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _UNDECODABLE

    return decoded


def _decoded(method: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
    if inspect.isasyncgenfunction(method):

        async def streamed(request: Any, context: Context) -> AsyncGenerator[Any]:
            if request is _UNDECODABLE:
                await _end(context, grpc.StatusCode.INVALID_ARGUMENT, _UNDECODABLE)
            async for message in method(request, context):
                yield message

        return streamed

    async def answered(request: Any, context: Context) -> Any:
        if request is _UNDECODABLE:
            await _end(context, grpc.StatusCode.INVALID_ARGUMENT, _UNDECODABLE)
        return await method(request, context)

    return answered


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
