from collections.abc import AsyncIterator

import pytest

from tests.doubles.strict_bridge import StrictBridge


@pytest.fixture
async def bridge() -> AsyncIterator[StrictBridge]:
    async with StrictBridge.open() as bridge:
        yield bridge
