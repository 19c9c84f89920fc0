"""Outcomes of a run that has stopped: completed, failed, cancelled, or waiting for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NoReturn, TypeAlias, TypeVar

from agentkit.errors import Actor, RunError, RunFailed
from agentkit.messages import Attachment, Source
from agentkit.transcript.steps import ApprovalAsked, ModelReplied, Transcript
from agentkit.transcript.usage import RunUsage, usage

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What every outcome knows.

    Attributes:
        run_id: the run.
        transcript: all its steps.
    """

    run_id: str
    transcript: Transcript

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the last reply refers to, in its order: a mark such as ``[1]`` in its text is the first of them."""
        return () if (reply := self._last_reply) is None else reply.sources

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Images and recordings that the model has made with its last reply."""
        return () if (reply := self._last_reply) is None else reply.attachments

    @property
    def _last_reply(self) -> ModelReplied | None:
        replies = (one.step for one in reversed(self.transcript))
        return next((step for step in replies if isinstance(step, ModelReplied)), None)

    @property
    def usage(self) -> RunUsage:
        """What the run has used."""
        return usage(self.transcript)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(_Ended, Generic[Output]):
    """The run has produced its output."""

    output: Output

    def unwrap(self) -> Output:
        """The output."""
        return self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_Ended):
    """The run has no output, and ``error`` says who must act.

    Attributes:
        error: why.
        resumable: the failure was not the run's own and is not recorded: the same journal can be carried on.
    """

    error: RunError
    resumable: bool = False

    def unwrap(self) -> NoReturn:
        """Raises:
        RunFailed: always.
        """
        raise RunFailed(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(_Ended):
    """The run was cancelled; what it had recorded is kept."""

    def unwrap(self) -> NoReturn:
        """Raises:
        RunFailed: always.
        """
        raise RunFailed(RunError(code="cancelled", message="the run was cancelled", actor=Actor.NOBODY))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(_Ended):
    """The run waits for people's answers; carry its journal on when they are there.

    Attributes:
        on: the open questions.
    """

    on: tuple[ApprovalAsked, ...]

    def unwrap(self) -> NoReturn:
        """Raises:
        RunFailed: always.
        """
        message = f"the run waits for {len(self.on)} approval(s)"
        raise RunFailed(RunError(code="waiting", message=message, actor=Actor.USER))


Outcome: TypeAlias = Completed[Output] | Failed | Cancelled | Waiting
