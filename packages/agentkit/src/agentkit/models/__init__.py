"""Models by name: ``offline:NAME`` needs nothing, ``openai:NAME`` speaks to OpenAI and every compatible server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from agentkit.errors import ModelAuthError, UsageError
from agentkit.ports import Model

__all__ = ["open_model", "opened", "split_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is to be opened."""

    name: str
    environ: Mapping[str, str]
    base_url: str | None
    api_key: str | None


def open_model(
    name: str,
    *,
    environ: Mapping[str, str] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
) -> Model:
    """The model called ``provider:name``. Nothing is sent yet; what is returned may be an async context manager.

    For ``openai:``, the key and the address are taken from ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL`` where they are
    not given. A key from the environment goes to the address from the environment (or to OpenAI's own) and to no
    other: for another ``base_url``, give its ``api_key`` too, if it wants one.

    Args:
        name: for example ``openai:gpt-5`` or ``offline:calculator``.
        environ: where keys and addresses are looked up; the process's environment by default.
        base_url: the address of a compatible server.
        api_key: its key.

    Raises:
        UsageError: the name has no known provider, or the model's library is not installed.
        ModelAuthError: OpenAI's own service needs a key, and there is none.
    """
    provider, model = split_name(name)
    environ = os.environ if environ is None else environ
    return _OPENERS[provider](_Wanted(name=model, environ=environ, base_url=base_url, api_key=api_key))


def split_name(name: str) -> tuple[str, str]:
    """Provider and model of ``provider:name``; opens nothing and looks nothing up.

    Raises:
        UsageError: the name has no known provider, or no model.
    """
    provider, colon, model = name.partition(":")
    if provider not in _OPENERS or not colon:
        known = ", ".join(f"{known}:NAME" for known in sorted(_OPENERS))
        raise UsageError(f"unknown model {name!r}; a model is one of {known}")
    if not model:
        raise UsageError(f"{name!r} lacks the model's name after the colon")
    return provider, model


@asynccontextmanager
async def opened(model: str | Model) -> AsyncGenerator[Model, None]:
    """``model``, ready for use. What is opened here, from a name, is closed again; a given object is left as it is.

    Raises:
        UsageError, ModelAuthError: as :func:`open_model`.
    """
    if not isinstance(model, str):
        yield model
        return
    own = open_model(model)
    if isinstance(own, AbstractAsyncContextManager):
        async with own:
            yield own
    else:
        yield own


def _offline(wanted: _Wanted) -> Model:
    if wanted.base_url is not None or wanted.api_key is not None:
        raise UsageError("an offline model takes neither base_url nor api_key")
    from agentkit.models.offline import OfflineModel

    return OfflineModel(wanted.name)


def _openai(wanted: _Wanted) -> Model:
    from agentkit.models.openai import OPENAI_URL, OpenAIModel, is_openai

    configured = wanted.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL
    base_url = wanted.base_url or configured
    key = wanted.api_key
    if key is None and base_url in {configured, OPENAI_URL}:
        key = wanted.environ.get("OPENAI_API_KEY", "").strip() or None
    if key is None and is_openai(base_url):
        raise ModelAuthError(
            "OpenAI needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs none"
        )
    return OpenAIModel(wanted.name, api_key=key, base_url=base_url)


_OPENERS: Mapping[str, Callable[[_Wanted], Model]] = {"offline": _offline, "openai": _openai}
