"""A minute of torture with a lease in a folder: see tests/torture. By hand, for as long as wanted:
`python -m tests.torture --instances 3 --minutes 60 --store file`.
"""

from __future__ import annotations

from tests.torture.short import survives


def test_a_minute_of_torture_with_a_lease_in_a_folder() -> None:
    """Never two commands at once, and nothing left behind, whatever strikes. By hand the seed is another each time."""
    survives("file", 1)
