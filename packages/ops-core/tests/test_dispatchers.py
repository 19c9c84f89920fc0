import pytest

from ops_core.dispatchers import LocalDispatcher, open_dispatcher
from ops_core.errors import ConfigError
from ops_core.ports import Dispatcher
from ops_core.testing import DispatcherContract


class TestLocalDispatcher(DispatcherContract):
    @pytest.fixture
    def dispatcher(self) -> Dispatcher:
        return open_dispatcher("local://")


def test_two_dispatchers_know_nothing_of_each_other():
    assert open_dispatcher("local://") is not open_dispatcher("local://")
    assert isinstance(open_dispatcher("local://"), LocalDispatcher)


@pytest.mark.parametrize("url", ["", "amqp://user:secret@host", "nonsense", "localhost"])
def test_what_is_not_supported_is_refused_without_being_quoted(url):
    with pytest.raises(ConfigError, match="dispatcher_url") as refused:
        open_dispatcher(url)
    assert "secret" not in str(refused.value)
    assert refused.value.field == "dispatcher_url"
