"""A person logs in at an MCP server, by the command line; what is granted is kept, and workers go on with it."""

import asyncio
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import httpx2
import pytest

from ops_core.assembly import runnable
from ops_core.cli.commands import mcp
from ops_core.cli.exit_codes import Exit
from ops_core.config.loader import read_catalog
from ops_core.errors import ConfigError, InvalidRequest


def module_of_agentkit(name):
    found = spec_from_file_location(name, Path(__file__).parents[2] / f"agentkit/tests/{name}.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[name] = module  # dataclasses look for it
    found.loader.exec_module(module)
    return module


oauth_peers = module_of_agentkit("oauth_mcp").oauth_peers


@pytest.fixture
async def peers():
    async with oauth_peers() as peers:
        yield peers


@pytest.fixture
def here(peers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OPSPAWN_APP", "OPSPAWN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "opspawn.toml").write_text(
        f"""
[mcp]
tokens = "granted"

[mcp.servers.peer]
url = "{peers.url}"

[mcp.servers.peer.oauth]
issuer = "{peers.issuer}"
scope = "tools"

[agents.adder]
mcp = ["peer"]

[agents.plain]
"""
    )
    return tmp_path


async def shown(capsys) -> str:
    """The address that a person is sent to."""
    told = ""
    async with asyncio.timeout(10):
        while (found := re.search(r"http://\S+authorize\?\S+", told)) is None:
            await asyncio.sleep(0.01)
            told += capsys.readouterr().out
    return found[0]


async def test_somebody_logs_in_and_workers_go_on_with_it(here, peers, capsys, caplog):
    async def agents():
        return (await runnable(read_catalog(here / "opspawn.toml"))).names

    assert await agents() == ("plain",)
    assert "nobody is logged in there (`opspawn mcp login peer`)" in caplog.text
    logging_in = asyncio.create_task(mcp._login("peer", browser=False))
    where = await shown(capsys)
    assert httpx2.URL(where).params["scope"] == "tools"
    async with httpx2.AsyncClient(follow_redirects=True) as browser:
        back = httpx2.URL(where).params["redirect_uri"]
        for nobody_asked in (f"{back}?code=evil", f"{back}?code=evil&state=evil", f"{back}?error=x&state=y"):
            assert (await browser.get(nobody_asked)).status_code == 400
        assert (await browser.get(f"{back}/other")).status_code == 404
        page = await browser.get(where)
        assert page.text == "You are logged in. This page can be closed."
        assert "code-1" not in page.text
    assert await logging_in is Exit.OK
    assert "logged in at peer" in capsys.readouterr().out
    assert [file.name for file in (here / "granted").glob("*.json")] == ["peer.json"]

    assert await mcp._approve("peer", (), yes=True) is Exit.OK
    assert await agents() == ("adder", "plain")
    lock = (here / "opspawn.mcp.lock").read_text()
    assert not [
        secret
        for secret in peers.living | peers.fresh
        if secret in lock + caplog.text + capsys.readouterr().out
    ]

    assert await mcp._logout("peer") is Exit.OK
    assert await mcp._logout("peer") is Exit.OK
    assert "nobody was logged in at peer" in capsys.readouterr().out
    assert await agents() == ("plain",)


async def test_a_login_that_is_refused_ends_with_the_reason(here, capsys):
    logging_in = asyncio.create_task(mcp._login("peer", browser=False))
    params = httpx2.URL(await shown(capsys)).params
    async with httpx2.AsyncClient() as browser:
        told = {"error": "access_denied\x1b[31m", "state": params["state"]}
        await browser.get(params["redirect_uri"], params=told)
    assert await logging_in is Exit.FAILED
    assert "has refused the login: access_denied\\u001b[31m" in " ".join(capsys.readouterr().out.split())


async def test_nobody_logs_in_where_nobody_has_to(here):
    (here / "opspawn.toml").write_text('[mcp.servers.peer]\ncommand = "x"\n')
    for do in (mcp._login("peer", browser=False), mcp._logout("peer")):
        with pytest.raises(InvalidRequest, match="nobody logs in at peer"):
            await do


@pytest.mark.parametrize(
    "oauth, problem",
    [
        ('grant = "password"', "mcp.servers.peer.oauth.grant: "),
        ('secret = "x"', "mcp.servers.peer.oauth.secret: "),
        ('grant = "client_credentials"', "MCP server 'peer': oauth.client_id: "),
        ('client_id = "a"\nclient_secret = "${S}"', "MCP server 'peer': oauth.issuer: "),
    ],
)
def test_a_wrong_declaration_names_its_field(oauth, problem, here):
    (here / "opspawn.toml").write_text(
        f'[mcp.servers.peer]\nurl = "https://x"\n[mcp.servers.peer.oauth]\n{oauth}\n'
    )
    with pytest.raises(ConfigError) as caught:
        read_catalog(here / "opspawn.toml")
    assert problem in str(caught.value)
