from collections.abc import AsyncGenerator

import pytest

from ops_core.dispatchers import LocalDispatcher, open_dispatcher
from ops_core.errors import ConfigError
from ops_core.ports import Dispatcher
from ops_core.testing import DispatcherContract


class TestLocalDispatcher(DispatcherContract):
    @pytest.fixture
    async def dispatcher(self) -> AsyncGenerator[Dispatcher]:
        async with open_dispatcher("local://") as opened:
            yield opened


async def test_two_dispatchers_know_nothing_of_each_other():
    async with open_dispatcher("local://") as here, open_dispatcher("local://") as there:
        assert isinstance(here, LocalDispatcher)
        assert here is not there


@pytest.mark.parametrize(
    "url",
    [
        *("", "nonsense", "localhost", "redis://:secret@host", "http://[secret"),
        *("amqp://user:secret@", "amqp://user:secret@host:port", "amqp://user:secret@host:99999"),
        *(
            "amqp://u:secret@host/?queue=",
            "amqp://u:secret@host/?queue=9",
            "amqp://u:secret@host/?queue=a%20b",
        ),
        *("amqp://u:secret@host/?queue=a&queue=b", "amqp://u:secret@host/?heartbeat=0"),
    ],
)
async def test_what_is_not_supported_is_refused_without_being_quoted(url):
    with pytest.raises(ConfigError, match="dispatcher_url") as refused:
        async with open_dispatcher(url):
            pass
    assert "secret" not in str(refused.value)
    assert refused.value.field == "dispatcher_url"
