import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.data.rows import (
    Conversation,
    PairRow,
    PromptRow,
    check_rows,
    read_conversations,
    read_pairs,
    read_prompts,
    read_texts,
)
from services.data.settings import DataSource
from services.errors import DataError

USER = {"role": "user", "content": "Say hi"}
HI = {"role": "assistant", "content": "hi"}
NO = {"role": "assistant", "content": "no"}


def _write(path: Path, *rows: Any) -> DataSource:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataSource(path=str(path))


def _message(call: Any, source: DataSource) -> str:
    with pytest.raises(DataError) as caught:
        call(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_texts_skip_blank_lines_and_keep_order(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.jsonl", {"text": "one"}, "", {"text": "zwei ü", "id": 3})
    assert read_texts(source) == ["one", "zwei ü"]
    assert read_texts(source.model_copy(update={"limit": 1})) == ["one"]


def test_field_picks_the_column(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.jsonl", {"text": "one", "body": "two"})
    assert read_texts(source.model_copy(update={"field": "body"})) == ["two"]


def test_prompts_plain_and_conversational(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "p.jsonl",
        {"prompt": "Say hi", "answer": "hi", "weight": 2, "tags": ["a"], "none": None},
        {"prompt": [USER]},
        {"messages": [USER], "metadata": {"skill": "greet", "level": 1.5}},
        {"messages": [USER, HI]},
    )
    assert read_prompts(source) == [
        PromptRow([USER], {"answer": "hi", "weight": "2"}),
        PromptRow([USER], {}),
        PromptRow([USER], {"skill": "greet", "level": "1.5"}),
        PromptRow([USER], {}),
    ]


def test_conversations_in_each_form(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "s.jsonl",
        {"messages": [USER, HI], "source": "x"},
        {"prompt": "Say hi", "completion": "hi"},
        {"prompt": "Say hi", "response": "hi"},
        {"prompt": [USER], "completion": [HI]},
    )
    rows = read_conversations(source)
    assert rows[0] == Conversation([USER, HI], {"source": "x"})
    assert rows[1:] == [Conversation([USER, HI], {})] * 3


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Say hi", "chosen": "hi", "rejected": "no"},
        {"prompt": [USER], "chosen": "hi", "rejected": "no"},
        {"messages": [USER], "chosen": "hi", "rejected": "no"},
        {"prompt": [USER], "chosen": [HI], "rejected": [NO]},
        {"prompt": "Say hi", "chosen": [USER, HI], "rejected": [USER, NO]},
        {"chosen": [USER, HI], "rejected": [USER, NO]},
    ],
)
def test_pairs_in_each_form(tmp_path: Path, row: dict[str, Any]) -> None:
    source = _write(tmp_path / "d.jsonl", row | {"score": 0.5})
    assert read_pairs(source) == [PairRow([USER], "hi", "no", {"score": "0.5"})]


def test_ultrafeedback_columns_beside_the_prompt(tmp_path: Path) -> None:
    row = {"prompt": "Say hi", "messages": [USER, HI], "chosen": [USER, HI], "rejected": [USER, NO]}
    pairs = read_pairs(_write(tmp_path / "d.jsonl", row))
    assert (pairs[0].messages, pairs[0].chosen, pairs[0].rejected) == ([USER], "hi", "no")


def test_a_pair_may_hold_an_empty_answer(tmp_path: Path) -> None:
    source = _write(tmp_path / "d.jsonl", {"prompt": "Say hi", "chosen": "hi", "rejected": ""})
    assert read_pairs(source)[0].rejected == ""


def test_parquet_and_folders_in_name_order(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", {"text": "first"})
    pq.write_table(pa.table({"text": ["second", "third"]}), tmp_path / "b.parquet")
    (tmp_path / "notes.txt").write_text("not data")
    assert read_texts(DataSource(path=str(tmp_path))) == ["first", "second", "third"]


def test_parquet_messages_and_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "b.parquet"
    pq.write_table(pa.table({"prompt": [[USER], []]}), file)
    text = _message(read_prompts, DataSource(path=str(file)))
    assert text == f"{file}, row 2: 'prompt' must be a list of messages with role and content"


def test_broken_parquet(tmp_path: Path) -> None:
    file = tmp_path / "b.parquet"
    file.write_bytes(b"nothing of the kind")
    assert "not readable Parquet" in _message(read_texts, DataSource(path=str(file)))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"text": "a"', "not JSON (Expecting ',' delimiter at column 13)"),
        ("[1]", "a JSON object is needed, this is a list"),
        ({"id": 1, "body": "x"}, "no column 'text' or 'content'; the columns are: id, body"),
        ({"text": 3}, "'text' must be a string, this is int"),
        ({"text": "  "}, "'text' is empty"),
        ('{"text": "\\ud800"}', "'text' holds half a surrogate pair"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, row: Any, expected: str) -> None:
    source = _write(tmp_path / "a.jsonl", {"text": "fine"}, row)
    text = _message(read_texts, source)
    assert text.startswith(f"{tmp_path / 'a.jsonl'}, line 2: ")
    assert expected in text


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xff"}\n')
    text = _message(read_texts, DataSource(path=str(tmp_path / "a.jsonl")))
    assert "line 1: not UTF-8" in text


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "human", "content": "x"}]}, "'messages[0].role' must be one of"),
        ({"messages": [USER, {"role": "assistant"}]}, "'messages[1].content' must be a string"),
        ({"messages": []}, "'messages' must be a list of messages"),
        ({"messages": [USER]}, "no assistant message"),
        ({"prompt": "x"}, "no column 'completion' or 'response'"),
    ],
)
def test_bad_conversations(tmp_path: Path, row: Any, expected: str) -> None:
    assert expected in _message(read_conversations, _write(tmp_path / "s.jsonl", row))


def test_bad_pairs(tmp_path: Path) -> None:
    other = {"role": "user", "content": "Say bye"}
    row = {"chosen": [USER, HI], "rejected": [other, NO]}
    text = _message(read_pairs, _write(tmp_path / "d.jsonl", row))
    assert "differ in their last message only" in text
    text = _message(read_pairs, _write(tmp_path / "e.jsonl", {"prompt": "x", "chosen": "y"}))
    assert "no column 'rejected'; the columns are: prompt, chosen" in text


def test_prompt_with_nothing_to_answer(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": "Be good"}]}
    text = _message(read_prompts, _write(tmp_path / "p.jsonl", row))
    assert "does not end with a message to answer" in text


def test_missing_and_empty_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    assert _message(read_texts, DataSource(path=str(empty))) == f"{empty}: empty, no row in it"
    assert "no such file" in _message(read_texts, DataSource(path="./none.jsonl"))
    assert "neither .jsonl nor .parquet" in _message(read_texts, DataSource(path=__file__))
    (tmp_path / "folder").mkdir()
    assert "in this folder" in _message(read_texts, DataSource(path=str(tmp_path / "folder")))


def test_a_list_of_answers_is_kept_as_one_text(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "p.jsonl",
        {"prompt": "2+2?", "answer": ["four", 4]},
        {"prompt": "2+2?", "metadata": {"answers": ["4"]}, "tags": ["maths"]},
        {"prompt": "2+2?", "answers": [{"text": "4"}], "answer": []},
    )
    assert [row.metadata for row in read_prompts(source)] == [
        {"answers": '["four", "4"]'},
        {"answers": '["4"]'},
        {},
    ]


def test_check_rows_counts_and_refuses(tmp_path: Path) -> None:
    source = _write(tmp_path / "p.jsonl", {"prompt": "x"}, {"prompt": "y"})
    assert check_rows(source, "prompts") == 2
    with pytest.raises(DataError, match=r"p\.jsonl, line 1: no column 'chosen'"):
        check_rows(source, "pairs")
    assert check_rows(DataSource(path="owner/name"), "texts") == 0
