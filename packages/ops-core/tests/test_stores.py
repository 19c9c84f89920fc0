import pytest

from ops_core.stores import SqlStore
from ops_core.testing import StoreContract


class TestFileStore(StoreContract):
    @pytest.fixture
    def store(self, file_store: SqlStore) -> SqlStore:
        return file_store


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, memory_store: SqlStore) -> SqlStore:
        return memory_store
