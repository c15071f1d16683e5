"""Xlsx files as other programs write them, and as nobody should."""

import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import pytest
import python_calamine
import xlsxwriter

from jaxmg.data import readers, spreadsheets
from jaxmg.errors import DataError

HOSTILE = pathlib.Path(__file__).parents[1] / "hostile.py"
SHEET = "xl/worksheets/sheet1.xml"
VALUES = [float(i) for i in range(2, 53)]
VALUES[2::3] = [0.5] * 17
NAMES = [xlsxwriter.utility.xl_col_to_name(i) for i in range(60)]


def book(fill=lambda book, sheet: None, *, first=None, rows=2):
  """The bytes of a file with rows of VALUES, and what `fill` writes after them."""
  file = io.BytesIO()
  with xlsxwriter.Workbook(file, {"in_memory": True}) as new:
    if first is not None:
      first(new)
    sheet = new.add_worksheet()
    for number in range(rows):
      sheet.write_row(number, 0, VALUES)
    fill(new, sheet)
  return file.getvalue()


def edited(content, **changes):
  """The file with other parts: `changes` are by the last word of a part's name."""
  file = io.BytesIO()
  with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", 8) as new:
    for part in old.namelist():
      change = changes.get(pathlib.PurePath(part).stem, lambda xml: xml)
      new.writestr(part, change(old.read(part)))
  return file.getvalue()


def sheet(rows, *, before=""):
  """A file whose sheet has this text."""
  namespace = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
  xml = f'<worksheet xmlns="{namespace}">{before}<sheetData>{rows}</sheetData></worksheet>'
  return edited(book(), sheet1=lambda _: xml.encode())


def row(number, values=VALUES, *, attributes="", column=0):
  cells = zip(NAMES[column:], values, strict=False)
  cells = [f'<c r="{name}{number}"{attributes}><v>{value}</v></c>' for name, value in cells]
  return f'<row r="{number}">{"".join(cells)}</row>'


def styled(kind):
  return lambda book, sheet: sheet.write_number(1, 3, 5.25, book.add_format({"num_format": kind}))


def blank(book, sheet):
  bold = book.add_format({"bold": True})
  for place in ((0, 55), (1, 60), (4, 2), (9, 0)):
    sheet.write_blank(*place, None, bold)


def chart(book):
  bars = book.add_chart({"type": "bar"})
  bars.add_series({"values": "=Sheet1!$A$1:$C$1"})
  book.add_chartsheet().set_chart(bars)


def other_tags(pattern, replacement):
  return edited(book(), sheet1=lambda xml: re.sub(pattern, replacement, xml))


def entities(xml):
  """A billion digits from a document type of ten lines."""
  lines = [f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9)]
  dtd = f'<!DOCTYPE a [<!ENTITY e0 "1">{"".join(lines)}]>'
  return xml.replace(b"?>", b"?>" + dtd.encode(), 1)


def read(tmp_path, content):
  (tmp_path / "a.xlsx").write_bytes(content)
  return readers.read(tmp_path / "a.xlsx").keypoints


@pytest.mark.parametrize(
  "content",
  [
    pytest.param(book(), id="as XlsxWriter writes it"),
    pytest.param(book(styled("0.00")), id="with decimals shown"),
    pytest.param(book(lambda _, s: s.write_formula(1, 3, "=1+1", None, 5.25)), id="a formula"),
    pytest.param(sheet(row(1) + row(2), before='<dimension ref="A1:B1"/>'), id="a small size"),
    pytest.param(
      sheet(row(1) + row(2), before='<dimension ref="A1:XFD1048576"/>'), id="a large size"
    ),
    pytest.param(sheet(row(1) + row(2).replace(".0<", "<")), id="whole numbers"),
    pytest.param(sheet(row(1, attributes=' t="n"') + row(2, attributes=' s="0"')), id="attributes"),
    pytest.param(sheet(row(1) + row(2, ["2E0", "30e-1", *VALUES[2:]])), id="powers of ten"),
    pytest.param(other_tags(rb' r="[A-Z]*[0-9]+"', b""), id="cells without places"),
    pytest.param(other_tags(rb"<(/?)(\w)", rb"<\1x:\2"), id="prefixes"),
    pytest.param(other_tags(b'"', b"'"), id="single quotes"),
    pytest.param(other_tags(rb'<c r="(\w+)"', rb'<c cm="0"\n r = "\1" '), id="other spaces"),
    pytest.param(book(first=chart), id="after a chart"),
    pytest.param(book(blank), id="empty cells that are formatted"),
    pytest.param(sheet(row(1) + row(2) + '<row r="3"><c r="A3" s="0"/></row>'), id="empty rows"),
    pytest.param(book(lambda b, s: (s.hide(), b.add_worksheet().activate())), id="hidden"),
    pytest.param(book(lambda b, _: b.add_worksheet().write(0, 0, "x")), id="before another"),
  ],
)
def test_a_table_is_read_however_it_is_written(tmp_path, content):
  rows = read(tmp_path, content).reshape(2, 51)
  np.testing.assert_array_equal(rows[0], VALUES)
  np.testing.assert_array_equal(np.delete(rows[1], 3), np.delete(VALUES, 3))
  assert rows[1, 3] in (5, 5.25)


NO_NUMBER = "row 2: expected 51 numbers, got other things"
NO_FILE = "expected a whole xlsx file"


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (book(lambda _, s: s.merge_range("D2:E2", 7, _.add_format({"bold": True}))), NO_NUMBER),
    (book(lambda _, s: s.write_boolean(1, 3, True)), NO_NUMBER),
    (book(lambda _, s: s.write_string(1, 3, "5")), NO_NUMBER),
    (book(styled("yyyy-mm-dd")), NO_NUMBER),
    (book(styled("hh:mm")), NO_NUMBER),
    (book(lambda _, s: s.write_formula(1, 3, "=1/0", None, "#DIV/0!")), NO_NUMBER),
    (sheet(row(1) + row(2).replace("<v>5.0</v>", "<f>2+3</f>")), NO_NUMBER),
    (sheet(row(1) + row(2).replace('<c r="D2"><v>5.0</v></c>', "")), NO_NUMBER),
    (sheet(row(1) + row(2, ["1O", *VALUES[1:]])), NO_NUMBER),
    (sheet(row(1) + row(2, ["nan", *VALUES[1:]])), "row 2: number 0: expected a finite number"),
    (sheet(row(1) + row(2, ["9" * 400, *VALUES[1:]])), "row 2: number 0: expected a finite number"),
    (sheet(row(1) + row(2, [*VALUES, 1, 2, 0.5])), "row 2: expected 51 numbers, got 54"),
    (sheet(row(1) + row(2, VALUES[:-1])), "row 2: expected 51 numbers, got 50"),
    (sheet(row(1) + row(3)), "row 2: expected 51 numbers, got 0"),
    (sheet(row(1) + '<row r="2"/>' + row(3)), "row 2: expected 51 numbers, got 0"),
    (sheet(row(2) + row(3)), "row 2: expected 0 numbers, got 51"),
    (sheet(row(2, column=1)), "row 2: expected 0 numbers, got other things"),
    (sheet(row(1, column=1)), "row 1: expected 52 numbers, got other things"),
    (
      sheet(row(1).replace("</row>", '<c r="AZ1"><f>1+1</f></c></row>')),
      "expected 52 columns of numbers, got 51",
    ),
    (sheet('<row r="1"/><row r="2"/>'), "expected at least one frame, got none"),
    (sheet("<row><c/></row>"), "expected at least one frame, got none"),
    (sheet("<row><c><f>1+1</f></c></row>"), "expected 1 columns of numbers, got 0"),
    (book(rows=0), "expected at least one frame, got none"),
    (sheet(row(1)[:-20]), NO_FILE),
    (sheet(row(1), before='<dimension ref="a table"/>'), NO_FILE),
    (edited(book(), sheet1=lambda xml: xml.decode().encode("utf-16")), "expected UTF-8"),
    (edited(book(), workbook=lambda xml: re.sub(rb"<sheet .*?/>", b"", xml)), "has no worksheet"),
    (edited(book(), workbook=lambda xml: xml.replace(b"<sheets>", b"<sheet>")), "mismatched tag"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), "encrypted, or an .xls file"),
    (b"", NO_FILE),
  ],
)
def test_what_is_no_table_of_numbers_is_one_line(tmp_path, content, message):
  with pytest.raises(DataError, match=re.escape(message)) as caught:
    read(tmp_path, content)
  assert "\n" not in str(caught.value)


def test_another_kind_of_workbook_is_one_line(tmp_path):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as ods:
    ods.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
  with pytest.raises(DataError, match=NO_FILE):
    read(tmp_path, file.getvalue())


def test_part_of_a_file_is_one_line(tmp_path):
  content = book()
  for length in np.linspace(0, len(content) - 1, 40, dtype=int):
    with pytest.raises(DataError, match=NO_FILE) as caught:
      read(tmp_path, content[:length])
    assert "\n" not in str(caught.value)


def test_changed_bytes_are_read_or_one_line(tmp_path):
  rng = np.random.default_rng(0)
  content, outcomes = book(), set()
  for _ in range(100):
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] = rng.integers(256)
    try:
      outcomes.add(len(read(tmp_path, bytes(damaged))))
    except DataError as error:
      outcomes.add("refused" if "\n" not in str(error) else str(error))
  assert outcomes == {2, "refused"}


def test_a_panic_of_the_library_is_one_line(tmp_path, monkeypatch):
  class PanicException(BaseException):
    pass

  def panic(path):
    raise PanicException("index out of bounds")

  monkeypatch.setattr(python_calamine, "CalamineWorkbook", type("", (), {"from_path": panic}))
  with pytest.raises(DataError, match=r"python_calamine failed: index out of bounds"):
    read(tmp_path, book())


def bomb(*, declared=None):
  """32 MB of spaces in some 30 kB, of which the file admits to so many bytes."""
  content = edited(book(), sheet1=lambda xml: xml.replace(b"<sheetData>", b"<sheetData>" + SPACES))
  if declared is not None:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
      size = file.getinfo(SHEET).file_size.to_bytes(4, "little")
    content = content.replace(size, declared.to_bytes(4, "little"))
  return content


SPACES = b" " * (32 << 20)
A1 = '<row r="1"><c r="A1"><v>1</v></c></row>'


def corpus():
  """What attacks the reader, and what it must say."""
  far = '<row r="%s"><c r="%s"><v>1</v></c></row>'
  text = book(lambda _, s: s.write_string(1, 3, "a"))
  return {
    "bomb": (bomb(), "and 200 per packed one, got"),
    "bomb that lies": (bomb(declared=9000), "Bad CRC-32"),
    "last cell": (sheet(far % (1048576, "XFD1048576")), "at most 4096 columns, got 16384"),
    "two corners": (sheet(A1 + far % (1048576, "ZZ1048576")), "got 2 cells in 1048576 rows of 702"),
    "far row": (sheet(A1 + far % (500000, "A500000")), "row 2: expected 1 numbers, got 0"),
    "last row": (sheet(A1 + far % (1048576, "A1048576")), "got 2 cells in 1048576 rows of 1"),
    "hidden place": (
      sheet(A1 + '<row r="2"><c s="0" r="ZZ999999"><v>1</v></c></row>'),
      "got 2 cells in 999999 rows",
    ),
    "two places": (
      sheet(A1 + '<row r="2"><c r="A2" r="ZZ999999"><v>1</v></c></row>'),
      "duplicate attribute",
    ),
    "prefix and none": (
      sheet("<row>" + "<c/>" * 3000 + "</row>" + "<row/>" * 3000 + '<x:c r="A1"/>'),
      "got 3001 cells in 3001 rows",
    ),
    "steps": (
      sheet("<row>" + "<c/>" * 3000 + "</row>" + "<row/>" * 3000 + "<row><c/></row>"),
      "got 3001 cells in 3002 rows of 3000",
    ),
    "place of many digits": (sheet('<row><c r="A99999999999"/></row>'), "a place like A1"),
    "entities in the sheet": (
      edited(sheet(row(1, ["&e9;", *VALUES[1:]])), sheet1=lambda xml: entities(b"<?xml?>" + xml)),
      "row 1: expected 51 numbers",
    ),
    "entities in the workbook": (edited(book(), workbook=entities), "a document type"),
    "entities in the texts": (
      edited(text, sharedStrings=lambda xml: entities(xml).replace(b"<t>a", b"<t>&e9;")),
      NO_NUMBER,
    ),
    "entities in the styles": (
      edited(book(styled("0.00")), styles=lambda xml: entities(xml).replace(b"0.00", b"&e9;")),
      "",
    ),
    "promise of texts": (
      edited(
        text, sharedStrings=lambda xml: re.sub(b'(uniqueCount)="1"', rb'\1="99999999999999"', xml)
      ),
      NO_NUMBER,
    ),
  }


def test_hostile_files_are_refused_in_time_and_memory(tmp_path):
  files, folder = corpus(), tmp_path / "files"
  folder.mkdir()
  for name, (content, _) in files.items():
    (folder / f"{name}.xlsx").write_bytes(content)
  argv = [sys.executable, HOSTILE, "jaxmg.data.readers", "read", folder]
  done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stderr
  outcomes = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(outcomes) == len(files)
  for name, outcome, seconds, grown in outcomes:
    assert outcome.startswith(f"DataError: {folder / name}: "), (name, outcome)
    assert files[name.removesuffix(".xlsx")][1] in outcome, (name, outcome)
    assert outcome.isprintable(), name
    assert seconds < 1, (name, seconds)
    assert grown < 150 << 20, (name, grown)


def test_a_long_sheet_is_read_in_parts(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  values = rng.uniform(1, 700, (40, 51)).round(3)
  values[:, 2::3] = 0.5
  rows = [row(number, line.tolist()) for number, line in enumerate(values, 1)]
  whole = read(tmp_path, sheet("".join(rows)))
  np.testing.assert_array_equal(whole.reshape(40, 51), np.float32(values))
  monkeypatch.setattr(spreadsheets, "_PIECE_BYTES", 3000)
  monkeypatch.setattr(spreadsheets, "_SHEET_BYTES", 7000)
  parts = []
  original = spreadsheets._rows
  monkeypatch.setattr(spreadsheets, "_rows", lambda *args: parts.append(1) or original(*args))
  np.testing.assert_array_equal(read(tmp_path, sheet("".join(rows))), whole)
  assert len(parts) > 5
  for changed, message in (
    (rows[:20] + rows[21:], "row 21: expected 51 numbers, got 0"),
    ([*rows[:30], row(31, VALUES[:-1]), *rows[31:]], "row 31: expected 51 numbers, got 50"),
    ([*rows, *rows[10:]], "expected each cell once"),
  ):
    with pytest.raises(DataError, match=message):
      read(tmp_path, sheet("".join(changed)))
  # Where cells do not say where they are, the sheet stays in one piece.
  unnamed = re.sub(r' r="[A-Z]*[0-9]*"', "", "".join(rows))
  np.testing.assert_array_equal(read(tmp_path, sheet(unnamed)), whole)


def test_a_reader_that_is_killed_leaves_no_sheet_behind(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
  (tmp_path / "tmp").mkdir()
  (tmp_path / "x.xlsx").write_bytes(book(rows=50))
  rows = spreadsheets.rows(tmp_path / "x.xlsx")
  assert next(rows) == VALUES  # and is in the middle of it
  left = [path for path in (tmp_path / "tmp").rglob("*") if not path.is_dir()]
  assert all(path.is_symlink() for path in left)
  assert len(list(rows)) == 49
  assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("what", ["row", "cell"])
def test_what_is_there_twice_is_refused(tmp_path, what):
  one = row(2)
  cell = re.search(r"<c .*?</c>", one)[0]
  twice = one + one if what == "row" else one.replace(cell, cell + cell)
  (tmp_path / "x.xlsx").write_bytes(sheet(row(1) + twice))
  with pytest.raises(
    DataError, match=r"x\.xlsx: .*expected each cell once, got some of them twice"
  ):
    readers.read(tmp_path / "x.xlsx")
