from __future__ import annotations

from pathlib import Path

import pytest

from asyncdmtl import documents
from asyncdmtl.documents import MOST_LEVELS, parse_document, read_document


def test_documents_are_toml_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"w": {"a": ["p"]}}', encoding="utf-8")
    (tmp_path / "a.toml").write_text('[w]\na = ["p"]\n', encoding="utf-8")
    assert read_document(tmp_path / "a.json") == read_document(tmp_path / "a.toml") == {"w": {"a": ["p"]}}
    with pytest.raises(OSError, match="No such file"):
        read_document(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("text", "as_json", "complaint"),
    [
        ("{", True, "Expecting property name"),
        ("a = ", False, "Invalid value"),
        ('{"w0": ["p0"], "w1": [], "w0": ["p1"]}', True, "the key 'w0' is there twice"),
        ("a = 1\na = 2", False, "Cannot overwrite"),
        ("[" * 200_000, True, "nested more than 32 levels deep"),
        ("a = " + "[" * 200_000, False, "nested more than 32 levels deep"),
        ("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1), True, "nested more than 32 levels deep"),
        (".".join("a" * 40) + " = 1", False, "nested more than 32 levels deep"),
        ("x = {" + ".".join("a" * 200_000) + " = 1}", False, "nested more than 32 levels deep"),
        (" . ".join(["'x='"] * 200_000) + " = 1", False, "nested more than 32 levels deep"),
        (
            'x = {y = """\n\'""", ' + ".".join("a" * 200_000) + " = 1}",
            False,
            "nested more than 32 levels deep",
        ),
        (f'{{"a": {"9" * 5000}}}', True, "integer string conversion"),
        (f"a = {'9' * 5000}", False, "integer string conversion"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(text: str, as_json: bool, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_document(text, as_json=as_json)


def test_a_document_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 1 << 20)
    (tmp_path / "a.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ValueError, match="more than 1 MiB"):
        read_document(tmp_path / "a.toml")


@pytest.mark.parametrize("value", ["[" + "0.5, " * 300 + "]", '"' + "a." * 300 + '"', '1 # "' + "a." * 300])
def test_many_dots_are_no_long_key(value: str) -> None:
    assert set(parse_document(f"x = {value}")) == {"x"}
