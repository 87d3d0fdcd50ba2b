"""One run of Transform for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.conformance.synthetic_ranking import Transformed, transform_synthetic


@pytest.fixture(scope="session")
def transformed(tmp_path_factory: pytest.TempPathFactory) -> Transformed:
    return transform_synthetic(tmp_path_factory.mktemp("transformed"))
