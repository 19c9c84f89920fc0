"""Models by name, ``provider:name``.

``offline:NAME`` needs nothing; ``openai:NAME``, ``openrouter:NAME`` are providers of their own; and a
:class:`NamedEndpoint` gives a server of yours a name, with which its models are called: ``local:llama3.2:3b``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from agentkit.errors import ModelAuthError, UsageError
from agentkit.messages import ModelRequest
from agentkit.models.endpoints import (
    OFFLINE,
    PROVIDERS,
    NamedEndpoint,
    Provider,
    Target,
    check_of,
    make,
    needs_key,
)
from agentkit.ports import Model

__all__ = [
    "NO_ENDPOINTS",
    "NamedEndpoint",
    "access_of",
    "check_settings",
    "open_model",
    "opened",
    "split_name",
]

NO_ENDPOINTS: Mapping[str, NamedEndpoint] = {}


def open_model(
    name: str,
    *,
    environ: Mapping[str, str] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS,
) -> Model:
    """The model called ``provider:name``. Nothing is sent yet; what is returned may be an async context manager.

    The key and the address of a provider are taken from its variables (``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``, and
    so on) where they are not given. A key from the environment goes to the address from the environment (or to the
    provider's own) and to no other: for another ``base_url``, give its ``api_key`` too, if it wants one.

    Args:
        name: for example ``openai:gpt-5.5``, ``offline:planner``, or ``local:llama3.2:3b`` with an endpoint ``local``.
        environ: where keys and addresses are looked up; the process's environment by default.
        base_url: the address of a compatible server, in place of the provider's or the endpoint's.
        api_key: its key.
        endpoints: servers of your own, by name.

    Raises:
        UsageError: the name has no known provider, the model's library is not installed, or an endpoint is wrong.
        ModelAuthError: a key is needed, and there is none.
    """
    provider, model = split_name(name, endpoints)
    if provider == OFFLINE:
        if base_url is not None or api_key is not None:
            raise UsageError("an offline model takes neither base_url nor api_key")
        from agentkit.models.offline import OfflineModel

        return OfflineModel(model)
    environ = os.environ if environ is None else environ
    if provider in endpoints:
        endpoint = endpoints[provider].checked(provider)
        key = api_key if api_key is not None or base_url is not None else _key_of(endpoint, provider, environ)
    else:
        endpoint, key = _of_provider(PROVIDERS[provider], environ, base_url, api_key)
    if base_url is not None:
        endpoint = replace(endpoint, base_url=base_url)
    return make(Target(provider=provider, model=model, endpoint=endpoint, api_key=key))


def access_of(
    provider: str,
    endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS,
    environ: Mapping[str, str] | None = None,
) -> tuple[NamedEndpoint, str | None]:
    """Where a provider, or an endpoint of this name, is reached, and its key.

    Raises:
        UsageError: an endpoint is wrong.
        ModelAuthError: a key is needed, and there is none.
    """
    environ = os.environ if environ is None else environ
    if provider in endpoints:
        endpoint = endpoints[provider].checked(provider)
        return endpoint, _key_of(endpoint, provider, environ)
    return _of_provider(PROVIDERS[provider], environ, None, None)


def split_name(name: str, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS) -> tuple[str, str]:
    """Provider and model of ``provider:name``; opens nothing and looks nothing up.

    Raises:
        UsageError: the name has no known provider, or no model.
    """
    provider, colon, model = name.partition(":")
    known = {OFFLINE, *PROVIDERS, *endpoints}
    if provider not in known or not colon:
        names = ", ".join(f"{each}:NAME" for each in sorted(known))
        raise UsageError(f"unknown model {name!r}; a model is one of {names}")
    if not model:
        raise UsageError(f"{name!r} lacks the model's name after the colon")
    return provider, model


def check_settings(
    name: str, request: ModelRequest, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS
) -> None:
    """Check that the model called ``provider:name`` takes the settings of ``request``, as far as is known of it.

    Nothing is opened, and the environment is not read: of ``openai:NAME``, whose address may stand there, it is known
    when the model is opened.

    Raises:
        UnsupportedSetting: it does not take one.
    """
    provider, _, model = name.partition(":")
    own = PROVIDERS.get(provider)
    if provider in endpoints:
        check_of(endpoints[provider], provider, model, request)
    elif own is not None and own.kind != "openai":
        check_of(NamedEndpoint(kind=own.kind), provider, model, request)


@asynccontextmanager
async def opened(
    model: str | Model, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS
) -> AsyncGenerator[Model, None]:
    """``model``, ready for use. What is opened here, from a name, is closed again; a given object is left as it is.

    Raises:
        UsageError, ModelAuthError: as :func:`open_model`.
    """
    if not isinstance(model, str):
        yield model
        return
    own = open_model(model, endpoints=endpoints)
    if isinstance(own, AbstractAsyncContextManager):
        async with own:
            yield own
    else:
        yield own


def _of_provider(
    provider: Provider, environ: Mapping[str, str], base_url: str | None, api_key: str | None
) -> tuple[NamedEndpoint, str | None]:
    configured = environ.get(provider.url_variable, "").strip() or provider.url
    address = base_url or configured
    key = api_key
    if key is None and address in {configured, provider.url}:
        key = next(filter(None, (environ.get(name, "").strip() for name in provider.key_variables)), None)
    if key is None and needs_key(provider.kind, address):
        variables = " or ".join(provider.key_variables)
        raise ModelAuthError(
            f"{provider.label} needs a key: set {variables}, or {provider.url_variable} for a server that needs none"
        )
    return NamedEndpoint(kind=provider.kind, base_url=address), key


def _key_of(endpoint: NamedEndpoint, name: str, environ: Mapping[str, str]) -> str | None:
    if endpoint.api_key_env is None:
        return None
    key = environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise ModelAuthError(f"the endpoint {name} needs a key: set {endpoint.api_key_env}")
    return key
