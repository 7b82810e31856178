"""The public interface is the one that was recorded: what users have written goes on working."""

from difflib import unified_diff

import griffe
import pytest
from helpers.api import SNAPSHOT, described, of_object


def test_the_public_interface_is_as_recorded():
    recorded, now = SNAPSHOT.read_text(encoding="utf-8"), described()
    difference = "\n".join(
        unified_diff(recorded.splitlines(), now.splitlines(), "recorded", "now", lineterm="")
    )
    assert not difference, f"if this is meant, renew the record: make api\n{difference}"


SOURCE = """
from dataclasses import dataclass

@dataclass
class Record:
    size: int
    names: tuple[str, ...] = ()
    _hidden: int = 0

    @property
    def half(self) -> int: ...

class Learns(Record):
    limit = 3

    def __init__(self, size: int, /, *others: float, rate: float = 0.1, **options: object) -> None:
        self.rate: float = rate

    @classmethod
    def of(cls, one: int, *, two: str) -> "Learns": ...

    def _mine(self) -> None: ...
"""


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "Record",
            [
                "class Record",
                "    def __init__(",
                "        size: int,",
                "        names: tuple[str, ...] = (),",
                "        _hidden: int = 0,",
                "    ) -> None",
                "    property half: int",
                "    attribute names: tuple[str, ...] = ()",
                "    attribute size: int",
            ],
        ),
        (
            "Learns",
            [
                "class Learns(Record)",
                "    def __init__(",
                "        size: int,",
                "        /,",
                "        *others: float,",
                "        rate: float = 0.1,",
                "        **options: object,",
                "    ) -> None",
                "    property half: int",
                "    attribute limit = 3",
                "    attribute names: tuple[str, ...] = ()",
                "    classmethod def of(",
                "        one: int,",
                "        *,",
                "        two: str,",
                "    ) -> Learns",
                "    attribute rate: float",
                "    attribute size: int",
            ],
        ),
    ],
)
def test_what_is_recorded_of_a_class_are_its_parameters_and_its_public_members(tmp_path, name, lines):
    (tmp_path / "module.py").write_text(SOURCE)
    module = griffe.load("module", search_paths=[tmp_path])
    assert [*of_object(name, module[name])] == lines
