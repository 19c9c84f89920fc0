"""Errors of the library, named by who must act.

::

    AgentkitError
    ├── UsageError              the developer: the library was used wrongly
    ├── TranscriptError         the operator: stored steps cannot be read
    ├── JournalError            the operator: a step could not be recorded
    ├── MemoryUnavailable       the operator: the memory does not answer
    ├── MachineError            the operator: descriptors, memory, processes or disk space have run out
    ├── ModelError              the provider (or the owner of the account)
    │   ├── ModelBadRequest     the developer: the provider refuses this request
    │   │   ├── ContextTooLong  the developer: the conversation does not fit the model
    │   │   └── UnsupportedSetting  the developer: the model does not take a setting of the agent
    │   ├── ModelAuthError      the operator: the key is missing, wrong or without rights
    │   ├── ModelRateLimited    nobody: wait, then go on
    │   ├── ModelOverloaded     nobody: wait, then go on
    │   │   └── ModelResting    nobody: it was not asked, because its last calls have failed
    │   ├── ModelTimeout        nobody: the provider did not answer in time
    │   ├── ModelUnreachable    nobody: the connection failed
    │   ├── ModelBadResponse    the provider: what came back cannot be used
    │   ├── ModelMistaken       the model: what it wrote was refused; a run shows it, and asks again
    │   └── ContentRefused      the user: the provider will not answer this
    ├── ToolError               the model: it is shown the text and may try otherwise
    │   ├── UnknownTool
    │   ├── BadArguments
    │   ├── ToolTimeout
    │   ├── ToolDenied
    │   │   └── ToolHalted      a person has switched the tool off
    │   ├── ResultUnavailable   the call was carried out; only its result is missing
    │   ├── AddressRefused      a tool was to ask a server that it must not reach
    │   ├── McpUnavailable      the operator: an MCP server cannot be reached, or went away
    │   └── ToolQuarantined     the operator: a tool of an MCP server is to be approved first
    ├── LimitReached            the budget's owner
    │   └── PriceUnknown        the budget's owner: money is limited, and a model's price is unknown
    └── RunFailed               raised by ``Outcome.unwrap()`` for a run that did not complete

    RunReleased                 (a BaseException) nobody: the run was let go and may be resumed

An exception's text never holds a key, a prompt or a tool's arguments; a provider's own words are in it without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from agentkit.recorded_text import recordable


class Actor(StrEnum):
    """Who must act before the same thing can succeed."""

    DEVELOPER = "developer"
    OPERATOR = "operator"
    PROVIDER = "provider"
    BUDGET_OWNER = "budget_owner"
    USER = "user"
    MODEL = "model"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed, as a value that can be stored.

    Attributes:
        code: a stable word for programs, for example ``limit_reached``.
        message: one or two sentences for people.
        actor: who must act.
        transient: the same run may succeed if it is simply resumed later.
        retry_after: seconds to wait before that, where a provider said so.
    """

    code: str
    message: str
    actor: Actor = Actor.DEVELOPER
    transient: bool = False
    retry_after: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", recordable(self.message))


def remade(kind: type[Exception], args: tuple[Any, ...]) -> Exception:
    """An exception as it was pickled or copied; its attributes follow."""
    return kind.__new__(kind, *args)


class AgentkitError(Exception):
    """Root of everything this library raises on purpose."""

    code: str = "error"
    actor: Actor = Actor.DEVELOPER
    transient: bool = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n", maxsplit=1)[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy every error of the tree, whatever its constructor wants to be given."""
        return remade, (type(self), self.args), self.__dict__

    def as_run_error(self) -> RunError:
        """The same facts as a storable value."""
        try:
            message = str(self)
        except BaseException:  # noqa: BLE001  (of a class of others, or with an argument that cannot be written)
            message = f"{type(self).__name__[:200]}, whose text cannot be written"
        return RunError(
            code=self.code,
            message=message,
            actor=self.actor,
            transient=self.transient,
            retry_after=getattr(self, "retry_after", None),
        )


class UsageError(AgentkitError):
    """The library was used wrongly."""

    code = "usage"


class TranscriptError(AgentkitError):
    """Stored steps cannot be read."""

    code = "transcript_unreadable"
    actor = Actor.OPERATOR


class JournalError(AgentkitError):
    """A step could not be recorded."""

    code = "journal_failed"
    actor = Actor.OPERATOR
    transient = True


class MemoryUnavailable(AgentkitError):
    """The memory does not answer."""

    code = "memory_unavailable"
    actor = Actor.OPERATOR
    transient = True


class MachineError(AgentkitError):
    """The machine has run out of something that was needed, or a device of it has failed.

    It says nothing about the tool that met it, so it is no result of a call: the call is still owed.

    Attributes:
        errno: number of the error of the operating system; 0 where there is none.
        began: the call may have had an effect; ``False`` where it is certain that it did not begin.
    """

    code = "machine_error"
    actor = Actor.OPERATOR
    transient = True

    def __init__(self, message: str | None = None, *, errno: int = 0, began: bool = True) -> None:
        super().__init__(message)
        self.errno = errno
        self.began = began


class ModelError(AgentkitError):
    """The model gave no usable reply.

    Attributes:
        billed: input and output tokens that are billed for the call all the same; ``None`` where nobody knows. An
            adapter sets it where it knows more than the kind of the error says.
        billed_usd: what the provider says that these cost; ``None`` where it does not say.
        reason: the provider's own words, as far as they may be passed on: without keys, without what they quote of the
            request, and short. They are in the error's text as well.
    """

    code = "model_error"
    actor = Actor.PROVIDER
    billed: tuple[int, int] | None = None
    billed_usd: float | None = None
    reason: str = ""


class ModelBadRequest(ModelError):
    """The provider refuses this request."""

    code = "model_bad_request"
    actor = Actor.DEVELOPER
    billed = (0, 0)


class ContextTooLong(ModelBadRequest):
    """The conversation does not fit into the model's context."""

    code = "context_too_long"


class UnsupportedSetting(ModelBadRequest):
    """The model does not take a setting of the agent.

    Attributes:
        setting: its field in :class:`~agentkit.models.settings.ModelSettings`.
        most: the largest value that is taken, where the provider names one.
    """

    code = "unsupported_setting"

    def __init__(self, message: str | None = None, *, setting: str = "", most: int | None = None) -> None:
        super().__init__(message)
        self.setting = setting
        self.most = most


class ModelAuthError(ModelError):
    """The provider does not accept the key."""

    code = "model_auth"
    actor = Actor.OPERATOR
    billed = (0, 0)


class ModelRateLimited(ModelError):
    """The provider asks to slow down.

    Attributes:
        retry_after: seconds to wait, where the provider said so (RFC 9110, section 10.2.3).
    """

    code = "model_rate_limited"
    actor = Actor.NOBODY
    transient = True
    billed = (0, 0)

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelOverloaded(ModelError):
    """The provider cannot answer just now."""

    code = "model_overloaded"
    actor = Actor.NOBODY
    transient = True
    billed = (0, 0)

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelResting(ModelOverloaded):
    """The model was not asked: its last calls have failed, and it is given time."""

    code = "model_resting"


class ModelTimeout(ModelError):
    """The provider did not answer in time."""

    code = "model_timeout"
    actor = Actor.NOBODY
    transient = True


class ModelUnreachable(ModelError):
    """The connection to the provider failed."""

    code = "model_unreachable"
    actor = Actor.NOBODY
    transient = True


class ModelBadResponse(ModelError):
    """What the provider sent cannot be used: truncated, garbled or not of its protocol."""

    code = "model_bad_response"
    transient = True


class ModelMistaken(ModelError):
    """The model made a mistake in form, and the provider tells of it as an error.

    Attributes:
        reply: what the model wrote, as a :class:`~agentkit.messages.ModelReply`; a run takes it as the model's turn,
            so that the model is told what was wrong.
        shown: so many of its parts were shown while they were written.
    """

    code = "model_mistaken"
    actor = Actor.MODEL
    transient = True

    def __init__(self, message: str | None = None, reply: Any = None, shown: int = 0) -> None:
        super().__init__(message)
        self.reply = reply
        self.shown = shown


class ContentRefused(ModelError):
    """The provider will not answer this."""

    code = "content_refused"
    actor = Actor.USER


class ToolError(AgentkitError):
    """The call failed, and the tool does not say why.

    A tool raises it to tell the model that the call failed; the model sees the text.
    """

    code = "tool_error"
    actor = Actor.MODEL


class UnknownTool(ToolError):
    """There is no tool of this name."""

    code = "unknown_tool"


class BadArguments(ToolError):
    """The arguments do not fit the tool's schema."""

    code = "bad_arguments"


class ToolTimeout(ToolError):
    """The tool did not return in time."""

    code = "tool_timeout"


class ToolDenied(ToolError):
    """The policy, or a person, does not allow this call."""

    code = "tool_denied"


class ToolHalted(ToolDenied):
    """A person has switched this tool, or its server, off."""

    code = "tool_halted"


class ResultUnavailable(ToolError):
    """The call was carried out, and its result cannot be shown.

    Attributes:
        reason: why not.
    """

    code = "tool_result_unavailable"

    def __init__(self, message: str | None = None, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

    @classmethod
    def of(cls, tool: str, reason: str) -> Self:
        """The error for a tool, by its name."""
        return cls(f"{tool} was carried out; its result cannot be shown: {reason}", reason=reason)


class AddressRefused(ToolError):
    """A URL leads somewhere that must not be reached; nothing was connected to."""

    code = "address_refused"


class McpUnavailable(ToolError):
    """The MCP server cannot be reached, or went away."""

    code = "mcp_unavailable"
    actor = Actor.OPERATOR
    transient = True


class ToolQuarantined(ToolError):
    """Nobody has approved this tool of an MCP server as it is now."""

    code = "tool_quarantined"
    actor = Actor.OPERATOR


class LimitReached(AgentkitError):
    """The run has used up its budget."""

    code = "limit_reached"
    actor = Actor.BUDGET_OWNER


class PriceUnknown(LimitReached):
    """Money is limited, and nobody knows what the model costs."""

    code = "price_unknown"


class RunFailed(AgentkitError):
    """The run did not complete.

    Attributes:
        error: why, as stored.
    """

    code = "run_failed"

    def __init__(self, error: RunError) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.actor = error.actor


class RunInterrupted(BaseException):
    """The process or the journal stops the run at this very place; no code in between may make anything of it."""


class RunReleased(RunInterrupted):
    """The run was let go between two steps; whoever resumes its journal carries it on.

    Not an :class:`Exception`, so that a tool's ``except Exception`` cannot swallow it.
    """
