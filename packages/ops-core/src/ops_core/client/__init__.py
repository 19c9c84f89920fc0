"""Clients: the same verbs over HTTP and on an engine in this process, with the same errors."""

from ops_core.client.local import LocalClient
from ops_core.client.over_http import OpsClient
from ops_core.client.protocol import Client

__all__ = ["Client", "LocalClient", "OpsClient"]
