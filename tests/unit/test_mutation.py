"""The list of planted faults fits the code, and the page shows that all were noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mutation.faults import FAULTS, Fault
from tests.mutation.run import PAGE, ROOT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fits_the_code_and_names_tests_that_exist(fault: Fault) -> None:
    assert (ROOT / fault.path).read_text().count(fault.right) == 1
    assert fault.right != fault.wrong
    for test in fault.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in Path(ROOT, path).read_text()


def test_the_page_lists_every_fault_as_noticed() -> None:
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) \| `", PAGE.read_text(), re.MULTILINE)
    assert rows == [(fault.name, fault.path, "yes") for fault in FAULTS]
    assert len(FAULTS) >= 10
