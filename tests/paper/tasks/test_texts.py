"""The texts of the tasks, and files as texts."""

import math
import pickle
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.texts import letters_of, one_line, read, seeded, spell
from hypothesis import assume, given
from hypothesis import strategies as st

from diffstruct.errors import ConfigurationError, DataError
from diffstruct.paper import tasks
from diffstruct.paper.tasks import SEQUENCE, Phase, Task

seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(SEQUENCE + 1, 1500)


@given(p=st.floats(0, 0.95), length=lengths, seed=seeds)
def test_easy_texts_follow_the_grammar(p: float, length: int, seed: int) -> None:
    task = tasks.easy(p, length)
    text = task.text(seeded(seed))
    assert text.dtype == torch.int64
    assert len(text) == length
    # Whole groups, and then the beginning of one.
    assert re.fullmatch(r"(\((ab)+\))*(\((ab)*a?)?", spell(task, text))


@given(letters=st.integers(2, 9), length=lengths, seed=seeds)
def test_hard_texts_follow_the_grammar(letters: int, length: int, seed: int) -> None:
    task = tasks.hard(letters, length)
    text = task.text(seeded(seed))
    assert text.dtype == torch.int64
    assert len(text) == length
    spelled = spell(task, text)
    assert re.fullmatch(rf"(\([ab]{{{letters}}}\))*(\([ab]{{0,{letters}}})?", spelled)
    for before, after in pairwise(re.findall(r"\((\w+)\)", spelled)):
        assert sum(x != y for x, y in zip(before[::-1], after, strict=True)) == 1


def test_the_first_group_of_a_hard_text_is_random() -> None:
    task = tasks.hard(length=SEQUENCE + 1)
    first = torch.stack([letters_of(task.text(seeded(seed)), 6)[0] for seed in range(1000)]) == 3
    share = first.double().mean(0)  # of b, at each letter
    assert float((share - 0.5).abs().max()) < 5 * 0.5 / math.sqrt(1000)
    assert len({tuple(group) for group in first.tolist()}) == 2**6


@pytest.mark.parametrize("task", [tasks.easy(), tasks.hard()], ids=lambda task: task.name)
def test_a_text_comes_from_its_generator_alone(task: Task) -> None:
    torch.manual_seed(1)
    text = task.text(seeded(5))
    torch.manual_seed(2)
    assert torch.equal(text, task.text(seeded(5)))
    assert not torch.equal(text, task.text(seeded(6)))
    assert len(text) == task.length == tasks.LENGTH
    assert sorted(set(text.tolist())) == list(range(len(task.alphabet)))
    assert task.alphabet == "".join(sorted("ab()"))


def test_tasks_travel_to_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("ab" * 50, encoding="utf-8")
    for task in (tasks.easy(length=100), tasks.hard(length=100), tasks.text_file(path)):
        copy = pickle.loads(pickle.dumps(task))
        assert torch.equal(copy.text(seeded()), task.text(seeded()))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=SEQUENCE + 1, max_size=200))
def test_a_file_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    assume(len(set(content)) > 1)
    assume("\r" not in content)
    assume(not content.startswith("\ufeff"))
    path = tmp_path_factory.getbasetemp() / "text.txt"
    path.write_bytes(content.encode())
    task = tasks.text_file(path)
    assert task.alphabet == "".join(sorted(set(content)))
    assert task.name == "text.txt"
    assert task.length == len(content)
    assert spell(task, task.text(seeded())) == content


def test_byte_order_mark_and_line_ends_are_no_symbols(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"one\r\ntwo\r" * 10)
    task = tasks.text_file(str(path))
    assert spell(task, task.text(seeded())) == "one\ntwo\n" * 10


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, math.nan, math.inf])
def test_impossible_p(p: float) -> None:
    for make in (tasks.easy, lambda p: tasks.transition(9, p), lambda p: tasks.hard_easy(9, p)):
        with pytest.raises(ConfigurationError, match="p must be a probability") as caught:
            make(p)
        assert repr(p) in one_line(caught)


@pytest.mark.parametrize("letters", [-1, 0, 1])
def test_too_few_letters(letters: int) -> None:
    with pytest.raises(ConfigurationError, match="letters must be at least 2") as caught:
        tasks.hard(letters)
    assert f"got {letters}" in one_line(caught)


def test_texts_too_short_to_read() -> None:
    with pytest.raises(ConfigurationError, match="length must be at least 41 characters, got 40"):
        tasks.easy(length=40)
    with pytest.raises(ConfigurationError, match="length must be at least 41 characters, got 40"):
        tasks.hard(length=40)
    with pytest.raises(ConfigurationError, match="length must be at least 64 characters, got 63"):
        tasks.hard(letters=30, length=63)
    assert len(tasks.hard(letters=30, length=64).text(seeded())) == 64


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "at least 41 characters, .*has 0"),
        (b"ab" * 20, "at least 41 characters, .*has 40"),
        ("é".encode() * 30 + b"a", "at least 41 characters, .*has 31"),  # 61 bytes
        (b"\n" * 100, r"two distinct symbols, .*only '\\n'"),
        (b"caf\xe9 " * 20, "expected UTF-8, .*byte 3"),
        ("naïve ".encode("utf-16") * 20, "expected UTF-8"),
    ],
    ids=["empty", "short", "short in characters", "one symbol", "latin-1", "utf-16"],
)
def test_files_that_hold_no_text_to_learn(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "odd\nname.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        tasks.text_file(path)
    assert r"odd\nname.txt" in one_line(caught)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (
        tmp_path / "missing.txt",
        tmp_path,
        tmp_path / "null\0.txt",
        tmp_path / ("x" * 999),
    ):
        with pytest.raises(DataError, match="expected a readable text file") as caught:
            tasks.text_file(path)
        assert repr(str(path)) in one_line(caught)


def test_the_shortest_file_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"ab" * 20 + b"a")
    (window,) = read(1, Phase(0, tasks.text_file(path)))
    assert window.inputs.tolist() == [0, 1] * 20
    assert window.targets.tolist() == [1, 0] * 20
