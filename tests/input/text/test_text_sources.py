"""Sources of texts: what they read, and what they say when they cannot."""

import json
import sys

import pytest

from praxis import text_input


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def write_array_record(path, records):
    module = pytest.importorskip("array_record.python.array_record_module")
    writer = module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def write_parquet(path, columns, **options):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def test_lines_of_several_files_in_order(tmp_path):
    write(tmp_path / "b.txt", "three\r\n\r\n\nfour")
    write(tmp_path / "a.txt", "one\n\n x\n")
    write(tmp_path / "empty.txt", "")
    source = text_input.TextFiles(paths=[tmp_path / "b.txt", tmp_path / "*.txt"])
    assert list(source) == ["three", "four", "one", " x", "three", "four"]
    assert source.describe(1) == f"TextFiles {str(tmp_path / 'b.txt')!r}, line 4"
    assert source.describe(3) == f"TextFiles {str(tmp_path / 'a.txt')!r}, line 3"


def test_lines_across_the_chunks_in_which_a_file_is_scanned(tmp_path, monkeypatch):
    monkeypatch.setattr("praxis.input.text.files._CHUNK_BYTES", 3)
    texts = ["ab", "c", "defghij", "klé"]
    write(tmp_path / "a.txt", "\n".join(texts))
    assert list(text_input.TextFiles(paths=tmp_path / "a.txt")) == texts


def test_documents(tmp_path):
    write(tmp_path / "x/a.txt", "one\r\ntwo\n")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "b.txt", "three")
    source = text_input.TextFiles(paths=str(tmp_path / "**/*.txt"), unit=text_input.Unit.DOCUMENT)
    assert list(source) == ["three", "one\r\ntwo\n"]
    assert source.describe(1) == f"TextFiles {str(tmp_path / 'x/a.txt')!r}"


def test_fields_of_json_lines(tmp_path):
    lines = [json.dumps({"text": "é\n", "meta": {"title": "t"}}), "", '{"text": "b"}']
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert list(text_input.JsonLines(paths=path)) == ["é\n", "b"]
    nested = text_input.JsonLines(paths=path, field="meta.title")
    assert nested[0] == "t"
    with pytest.raises(ValueError, match=r"a.jsonl', line 3: there is no field 'meta'"):
        _ = nested[1]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('{"body": 1}', ValueError, r"no field 'text'; it has \['body'\]. Set field to one"),
        ('{"text": 1}', TypeError, r"field 'text' is a int, expected a text"),
        ("[1, 2]", TypeError, r"\[1, 2\] is a list, expected an object with the field 'text'"),
        ("{text}", ValueError, r"line 1: this is not JSON: Expecting property name"),
    ],
    ids=["missing", "number", "list", "text"],
)
def test_wrong_json_names_file_line_and_field(tmp_path, line, error, message):
    path = write(tmp_path / "a.jsonl", line)
    with pytest.raises(error, match=r"JsonLines '.*a\.jsonl', line 1: ") as caught:
        _ = text_input.JsonLines(paths=path)[0]
    assert caught.match(message)


def test_array_records(tmp_path):
    first = write_array_record(tmp_path / "a.array_record", [b"one", "zwei é".encode()])
    second = write_array_record(tmp_path / "b.array_record", [b'{"text": "three"}'])
    assert list(text_input.ArrayRecords(paths=first)) == ["one", "zwei é"]
    source = text_input.ArrayRecords(paths=[second], field="text")
    assert list(source) == ["three"]
    both = text_input.ArrayRecords(paths=tmp_path / "*.array_record")
    assert both.describe(2) == f"ArrayRecords {str(second)!r}, record 0"


def test_parquet(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet", {"text": ["a", "b", None], "n": [1, 2, 3]}, row_group_size=2
    )
    source = text_input.Parquet(paths=path)
    assert len(source) == 3 and [source[0], source[1]] == ["a", "b"]
    with pytest.raises(TypeError, match=r"a.parquet', record 2: field 'text' is null"):
        _ = source[2]
    with pytest.raises(ValueError, match=r"no field 'body'; it has \['n', 'text'\]"):
        len(text_input.Parquet(paths=path, field="body"))
    with pytest.raises(TypeError, match=r"field 'n' is a int64, expected a string"):
        len(text_input.Parquet(paths=path, field="n"))


def test_parquet_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    path = write(tmp_path / "a.parquet", "")
    with pytest.raises(ImportError, match=r"Parquet needs the package pyarrow: .*'pax\[data\]'"):
        text_input.Parquet(paths=path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"TextFiles: '.*no.txt' is not there.*directory"):
        text_input.TextFiles(paths=[tmp_path / "no.txt"])
    with pytest.raises(FileNotFoundError, match=r"JsonLines: '.*\*.jsonl' is not there, and fits"):
        text_input.JsonLines(paths=tmp_path / "*.jsonl")
    with pytest.raises(FileNotFoundError, match=r"is a directory.*Name its files, e.g. '.*\*'"):
        text_input.TextFiles(paths=tmp_path)
    with pytest.raises(ValueError, match=r"TextFiles: paths is empty"):
        text_input.TextFiles()


def test_bytes_that_are_not_utf8(tmp_path):
    path = write(tmp_path / "a.txt", b"good\nb\xffd\n")
    source = text_input.TextFiles(paths=path)
    with pytest.raises(ValueError, match=r"a.txt', line 2: byte 1 of 3 is 0xff, expected UTF-8"):
        _ = source[1]
