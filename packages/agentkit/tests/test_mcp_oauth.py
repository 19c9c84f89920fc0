"""Servers that want tokens: in whose name they are called, where tokens are kept, and who is asked for them."""

import asyncio
import json
import os
import stat
import time

import pytest

from agentkit import UsageError
from agentkit.errors import McpUnavailable
from agentkit.mcp import McpOAuth, McpPool, McpServer, TokenFolder
from agentkit.messages import ToolCall
from agentkit.testing.toolsets import context

from .oauth_mcp import Agrees, oauth_peers  # type: ignore[import-not-found]


@pytest.fixture
async def peers():
    async with oauth_peers() as peers:
        yield peers


@pytest.fixture
def tokens(tmp_path):
    return TokenFolder(tmp_path / "tokens")


def of_a_person(peers, **more):
    oauth = McpOAuth(hosts=("127.0.0.1",), **more)
    return McpServer(name="peer", url=peers.url, oauth=oauth, call_seconds=10)


def add(name="add", **arguments):
    return ToolCall(id="c", name=f"peer__{name}", arguments=arguments)


async def two_and_three(server, tokens, login=None):
    async with McpPool([server], tokens=tokens, login=login) as pool:
        return await pool.toolset("peer").call(add(a=2, b=3), context())


def kept(tokens):
    return json.loads((tokens.path / "peer.json").read_text())


def change(folder, **fields):
    file = folder.path / "peer.json"
    file.write_text(json.dumps({**kept(folder), **fields}))


# --- a person -----------------------------------------------------------------------------------------------------


async def test_whoever_has_logged_in_is_asked_once_and_workers_go_on_with_it(peers, tokens):
    server, person = of_a_person(peers), Agrees()
    assert McpPool([server], tokens=tokens).problem_of("peer") == "nobody is logged in there"
    assert await two_and_three(server, tokens, person) == {"result": 5}
    assert person.times == 1
    assert McpPool([server], tokens=tokens).problem_of("peer") is None
    assert await two_and_three(server, tokens) == {"result": 5}
    assert peers.asked == ["register", "authorization_code"]


async def test_tokens_are_kept_for_their_owner_alone(peers, tokens):
    await two_and_three(of_a_person(peers), tokens, Agrees())
    file = tokens.path / "peer.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o700
    assert not list(tokens.path.glob("*.new"))
    file.chmod(0o644)
    with pytest.raises(McpUnavailable, match="others may read it"):
        await two_and_three(of_a_person(peers), tokens)
    assert "others may read it" in str(McpPool([of_a_person(peers)], tokens=tokens).problem_of("peer"))


async def test_a_token_that_has_ended_while_nobody_ran_is_made_fresh(peers, tokens):
    """By the authorization server that gave it, which a new process knows of the file alone."""
    await two_and_three(of_a_person(peers), tokens, Agrees())
    change(tokens, ends=time.time() - 5)
    peers.sent.clear()
    assert await two_and_three(of_a_person(peers), tokens) == {"result": 5}
    assert peers.asked[-1] == "refresh_token"
    assert len(set(peers.sent)) == 1  # the old one was not even sent
    assert kept(tokens)["ends"] > time.time() + 3000


async def test_a_token_that_is_not_taken_any_more_is_made_fresh_once(peers, tokens):
    await two_and_three(of_a_person(peers), tokens, Agrees())
    async with McpPool([of_a_person(peers)], tokens=tokens) as pool:
        toolset = pool.toolset("peer")
        assert await toolset.call(add(a=2, b=3), context()) == {"result": 5}
        peers.living.clear()  # revoked, long before its end
        outputs = await asyncio.gather(*(toolset.call(add(a=n, b=1), context()) for n in range(10)))
        assert outputs == [{"result": n + 1} for n in range(10)]
    assert peers.asked.count("refresh_token") == 1


async def test_processes_take_turns_and_use_each_refresh_token_once(peers, tokens):
    """The second one would end the grant. Pools stand for processes: they share the file, and nothing else."""
    await two_and_three(of_a_person(peers), tokens, Agrees())
    change(tokens, ends=time.time() - 5)
    peers.living.clear()
    outputs = await asyncio.gather(*(two_and_three(of_a_person(peers), tokens) for _ in range(8)))
    assert outputs == [{"result": 5}] * 8
    assert peers.asked.count("refresh_token") == 1


async def test_what_was_granted_and_has_ended_is_told_and_a_new_login_is_heard_of(peers, tokens):
    server = of_a_person(peers)
    await two_and_three(server, tokens, Agrees())
    peers.living.clear()
    peers.fresh.clear()
    async with McpPool([server], tokens=tokens) as pool:
        with pytest.raises(McpUnavailable, match=r"what was granted has ended: somebody has to log in"):
            await pool.toolset("peer").call(add(a=2, b=3), context())
        assert peers.asked.count("register") == 1  # nothing was registered by somebody who cannot log in
        await two_and_three(server, tokens, Agrees())
        pool.connection("peer")._not_before = 0.0  # as if the pause were over
        assert await pool.toolset("peer").call(add(a=2, b=3), context()) == {"result": 5}


async def test_a_busy_authorization_server_ends_no_grant(peers, tokens):
    server = of_a_person(peers)
    await two_and_three(server, tokens, Agrees())
    change(tokens, ends=time.time() - 5)
    peers.busy = 503
    with pytest.raises(McpUnavailable, match="authorization server answers 503"):
        await two_and_three(server, tokens)
    peers.busy = 0
    assert await two_and_three(server, tokens) == {"result": 5}


async def test_tokens_of_one_address_are_not_sent_to_another(peers, tokens):
    await two_and_three(of_a_person(peers), tokens, Agrees())
    async with oauth_peers() as others:
        with pytest.raises(McpUnavailable, match="nobody is logged in"):
            await two_and_three(of_a_person(others), tokens)
        assert set(others.sent) <= {""}
        assert others.asked == []


async def test_what_was_kept_and_is_no_login_is_told(peers, tokens):
    server = of_a_person(peers)
    await two_and_three(server, tokens, Agrees())
    change(tokens, tokens={"access": "x"})
    with pytest.raises(McpUnavailable, match="cannot be read"):
        await two_and_three(server, tokens)
    (tokens.path / "peer.json").write_text("[]")
    with pytest.raises(McpUnavailable, match="log in again"):
        await two_and_three(server, tokens)
    assert tokens.forget("peer")
    assert not tokens.forget("peer")


async def test_a_long_call_keeps_no_other_from_being_made(peers, tokens):
    server = of_a_person(peers)
    await two_and_three(server, tokens, Agrees())
    async with McpPool([server], tokens=tokens) as pool:
        toolset = pool.toolset("peer")
        slow = asyncio.create_task(toolset.call(add("slow"), context()))
        await peers.begun.wait()
        assert await toolset.call(add(a=2, b=3), context()) == {"result": 5}
        peers.hold.set()
        assert await slow == {"result": "slow"}


async def test_a_secret_goes_to_no_authorization_server_but_the_one_that_is_declared(peers, tokens):
    server = of_a_person(peers, client_id="x", client_secret="hush-hush", issuer="http://127.0.0.1:1")
    with pytest.raises(McpUnavailable, match="another authorization server than"):
        await two_and_three(server, tokens, Agrees())
    assert peers.asked == []


async def test_a_token_that_the_server_repeats_is_told_to_nobody(peers, tokens):
    await two_and_three(of_a_person(peers), tokens, Agrees())
    async with McpPool([of_a_person(peers)], tokens=tokens) as pool:
        for _ in range(2):
            told = await pool.toolset("peer").call(add("repeat"), context())
            assert told == {"result": "Bearer [secret token]"}
            peers.living.clear()  # the next one is another


# --- the program itself -------------------------------------------------------------------------------------------


def of_a_program(peers, secret="hush-hush"):
    oauth = McpOAuth(
        grant="client_credentials", client_id="robot", client_secret="${ROBOT}", issuer=peers.issuer
    )
    server = McpServer(name="peer", url=peers.url, oauth=oauth, call_seconds=10)
    return McpPool([server], variables={"ROBOT": secret, "HOME": os.devnull})


async def test_a_program_asks_for_tokens_in_its_own_name(peers):
    async with of_a_program(peers) as pool:
        toolset = pool.toolset("peer")
        outputs = await asyncio.gather(*(toolset.call(add(a=n, b=1), context()) for n in range(10)))
        assert outputs == [{"result": n + 1} for n in range(10)]
        assert peers.asked == ["client_credentials"]
        peers.living.clear()
        assert await toolset.call(add(a=2, b=3), context()) == {"result": 5}
    assert peers.asked == ["client_credentials"] * 2


async def test_no_secret_is_told_when_it_is_refused(peers, caplog):
    """The authorization server repeats what it was sent."""
    caplog.set_level("DEBUG")
    async with of_a_program(peers, "wrong-secret") as pool:
        with pytest.raises(McpUnavailable, match=r"refuses: invalid_client$"):
            await pool.toolset("peer").specs()
    assert "invalid_client" in caplog.text
    assert "wrong-secret" not in caplog.text


# --- declarations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "declared, field",
    [
        ({"grant": "password"}, "grant"),
        ({"grant": "client_credentials", "client_id": "a", "client_secret": "b"}, "issuer"),
        ({"client_secret": "b"}, "client_id"),
        ({"client_id": "a", "client_secret": "b"}, "issuer"),
        ({"issuer": "auth.example.com"}, "issuer"),
        ({"client_auth": "header"}, "client_auth"),
        ({"client_metadata_url": "http://x.example.com/about.json"}, "client_metadata_url"),
        ({"client_metadata_url": "https://x.example.com"}, "client_metadata_url"),
        ({"redirect_port": 70000}, "redirect_port"),
    ],
)
def test_a_wrong_declaration_names_its_field(declared, field):
    with pytest.raises(UsageError, match=rf"oauth\.{field}: "):
        McpPool([McpServer(name="x", url="https://x", oauth=McpOAuth(**declared))])


def test_what_a_server_is_called_with_is_one_thing():
    with pytest.raises(UsageError, match="oauth: "):
        McpPool([McpServer(name="x", url="https://x", oauth=McpOAuth(), auth=object())])
    with pytest.raises(UsageError, match="command: "):
        McpPool([McpServer(name="x", command="x", oauth=McpOAuth())])
