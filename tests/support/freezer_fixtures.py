"""Fixtures for tests that meet one whole freezer: api, node, freezer. A test module that wants them says

    pytest_plugins = ["tests.support.freezer_fixtures"]

One of each per module, because starting them takes a second; a test that ends its freezer makes its own.
"""

from collections.abc import Iterator

import pytest

from tests.support.apiserver import ApiServer
from tests.support.freezer_process import FreezerProcess
from tests.support.kubepods import Node

__all__ = ["api", "freezer", "node"]


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node("") as made:
        yield made


@pytest.fixture(scope="module")
def freezer(api: ApiServer, node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreezerProcess]:
    with FreezerProcess(api, node, tmp_path_factory.mktemp("freezer")) as running:
        yield running.start()
