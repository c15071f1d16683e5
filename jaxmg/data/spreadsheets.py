"""The rows of an xlsx file's first worksheet, in time and memory that follow from its size.

python_calamine reads the cells, and it believes what a file says: it takes room for all cells
between the first and the last, however far they lie apart, for as many texts as are promised, and
for as much as a zip unpacks to. So the sheet is measured while it is unpacked, and reaches the
library in a new zip file, with its styles (which tell dates from numbers) and nothing else: in
parts, since the library takes 70 bytes for a cell.
"""

import dataclasses
import errno
import pathlib
import posixpath
import re
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from typing import IO
from xml.parsers import expat

_MAX_BYTES = 1 << 30  # of a sheet's XML: 50 minutes of 137 points
_MAX_PART_BYTES = 16 << 20  # of any other XML
_MAX_RATIO = 200  # of a part's size to its packed size; a table of zeros has 12
_MAX_COLUMNS = 4096
_SPARE_CELLS = 1 << 19  # of a table with holes, whose rows then tell what they lack
_PIECE_BYTES = 1 << 18
_SHEET_BYTES = 16 << 20  # of the XML that the library is given at a time

# Tags as Excel and the common libraries write them; others are left to a slower parser.
_TAG = re.compile(rb"<c ([^<>]*)>")
_CELL = re.compile(  # the inside of one that says where it is, and only once
  rb'(?:(?<=<)|^)r="([A-Z]{1,3})([1-9][0-9]{0,6})"(?: (?!r=)[a-z]+="[A-Za-z0-9]*")*/?(?=<|$)'
)
_NUMBER = re.compile(rb"[0-9]+")
_ROW = re.compile(rb'<row r="([1-9][0-9]{0,6})"')
_OTHER_TAG = re.compile(rb"<(?:c|row)[A-Za-z]")
_CONTENT = ("v", "is", "f")  # tags of what a cell holds
_PREFIXED = re.compile(rb":(?:c|row)[\s/>]")

_RELATIONS = "<Relationships>{}</Relationships>"
_RELATION = (
  '<Relationship Id="r{0}" Target="{1}" Type="http://schemas.openxmlformats.org/'
  'officeDocument/2006/relationships/{2}"/>'
)
# What stands around the rows of a sheet. Without merged cells at its head, the library looks for
# them in all of it.
_HEAD, _TAIL = b"<mergeCells></mergeCells>", b"</sheetData></worksheet>"


def rows(path: pathlib.Path) -> Iterator[list]:
  """Yields rows 1 to the last, each from column A to its last that is not empty.

  Numbers are floats, and whatever else a cell holds is no float; an empty one is "". Raises
  ValueError for a file that is none or asks for too much, or what else its damage leads to.
  """
  import python_calamine

  with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
    # The file has no name, so that a kill leaves none of it; but the library goes by the suffix.
    copy = pathlib.Path(folder) / "sheet.xlsx"
    copy.symlink_to(f"/dev/fd/{file.fileno()}")
    try:
      extent, sheets = _copy(path, file)
      file.flush()
      if not extent.cells:
        return
      height = width = 0
      with python_calamine.CalamineWorkbook.from_path(copy) as book:
        for number in range(sheets):
          for row in _rows(book.get_sheet_by_index(number), height):
            height, width = height + 1, max(width, len(row))
            yield row
    except OSError as error:
      if error.errno == errno.EINVAL:
        raise ValueError("it refers to a place outside itself") from error
      if error.filename is None:
        error.filename = folder  # which is full, say
      raise
    except BaseException as error:
      if type(error).__name__ == "PanicException":  # Rust's, which is no Exception
        raise ValueError(f"python_calamine failed: {error}") from error
      raise
  if (height, width) != (extent.rows, extent.columns):  # cells that are formatted, and empty?
    with zipfile.ZipFile(path) as source, _open(source, _find(source)[1], _MAX_BYTES) as xml:
      filled = _parse(xml, counted=_CONTENT)
    if width < filled.columns:
      raise ValueError(f"the sheet: expected {filled.columns} columns of numbers, got {width}")
    for _ in range(filled.rows - height):
      yield []


def _rows(sheet, height: int) -> Iterator[list]:
  """The rows of a sheet after the first `height`, which came before."""
  if sheet.start is None:
    return
  if sheet.start[0] < height:
    raise ValueError(
      f"row {sheet.start[0] + 1}: expected rows that rise, got it after row {height}"
    )
  for _ in range(sheet.start[0] - height):
    yield []
  # The library leaves out what is empty around the cells, and fills up at the right.
  before = [""] * sheet.start[1]
  for row in sheet.to_python(skip_empty_area=True):
    while row and row[-1] == "":
      row.pop()
    yield before + row if row else row


@dataclasses.dataclass
class _Extent:
  """How many cells a sheet has, and its last row and column, counted from 1; may be too much."""

  cells: int = 0
  rows: int = 0
  columns: int = 0
  row: bytes = b""  # the tags of the last row, with # for its number

  def check(self):
    if self.columns > _MAX_COLUMNS:
      raise ValueError(f"the sheet: expected at most {_MAX_COLUMNS} columns, got {self.columns}")
    if self.cells > self.rows * self.columns:
      raise ValueError("the sheet: expected each cell once, got some of them twice")
    if self.rows * self.columns > self.cells + _SPARE_CELLS:
      raise ValueError(
        f"the sheet: expected a full table, got {self.cells} cells in {self.rows} rows of"
        f" {self.columns} columns"
      )


def _copy(path: pathlib.Path, copy: IO[bytes]) -> tuple[_Extent, int]:
  """Copies the first worksheet, split into several, if it is small enough; says how many."""
  with open(path, "rb") as file:
    if file.read(4) == b"\xd0\xcf\x11\xe0":  # the mark of Microsoft's older container
      raise ValueError("it is encrypted, or an .xls file")
  with zipfile.ZipFile(path) as source:
    workbook, name = _find(source)
    extent, sheets = _split(source, workbook, name, copy, _SHEET_BYTES)
    if extent is None:
      copy.seek(0)
      copy.truncate()
      _, sheets = _split(source, workbook, name, copy, _MAX_BYTES)
      with _open(source, name, _MAX_BYTES) as xml:
        extent = _parse(xml)
  extent.check()
  return extent, sheets


def _split(
  source: zipfile.ZipFile, workbook: str, name: str, copy: IO[bytes], size: int
) -> tuple[_Extent | None, int]:
  """Writes a worksheet as several of about `size` bytes; the extent is None for unusual XML."""
  extent, usual, sheets = _Extent(), True, 0
  with zipfile.ZipFile(copy, "w") as target, _open(source, name, _MAX_BYTES) as xml:
    pieces = _pieces(xml)
    piece = next(pieces, None)
    while piece is not None:
      sheets, written = sheets + 1, 0
      with target.open(f"xl/worksheets/sheet{sheets}.xml", "w") as out:
        out.write(_HEAD if sheets == 1 else _HEAD + b"<worksheet><sheetData>")
        while piece is not None and (written < size or not piece.startswith(b"<row")):
          out.write(piece.replace(b' t="s"', b' t="str"'))  # texts stay behind: none is a number
          usual = usual and _measure(piece, extent)
          written += len(piece)
          piece = next(pieces, None)
        if piece is not None:
          out.write(_TAIL)
    numbers = range(1, sheets + 1)
    listed = "".join(f'<sheet name="{i}" r:id="r{i}"/>' for i in numbers)
    links = "".join(_RELATION.format(i, f"worksheets/sheet{i}.xml", "worksheet") for i in numbers)
    link = _RELATION.format(1, "xl/workbook.xml", "officeDocument")
    target.writestr("[Content_Types].xml", "<Types/>")
    target.writestr("_rels/.rels", _RELATIONS.format(link))
    target.writestr("xl/workbook.xml", f"<workbook><sheets>{listed}</sheets></workbook>")
    target.writestr("xl/_rels/workbook.xml.rels", _RELATIONS.format(links))
    styles = posixpath.join(posixpath.dirname(workbook), "styles.xml")
    if styles in source.NameToInfo:
      target.writestr("xl/styles.xml", _read(source, styles))
  return extent if usual else None, sheets


def _open(source: zipfile.ZipFile, name: str, limit: int = _MAX_PART_BYTES) -> zipfile.ZipExtFile:
  """A part that is no larger than it says: zipfile reads no further, and checks the sum."""
  part = source.getinfo(name)
  if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(f"{name}: expected deflated data, got method {part.compress_type}")
  if part.file_size > min(limit, _MAX_RATIO * part.compress_size + 4096):
    raise ValueError(
      f"{name}: expected at most {limit} bytes and {_MAX_RATIO} per packed one, got"
      f" {part.file_size} of {part.compress_size}"
    )
  return source.open(part)


def _read(source: zipfile.ZipFile, name: str) -> bytes:
  with _open(source, name) as part:
    return part.read()


def _find(source: zipfile.ZipFile) -> tuple[str, str]:
  """The names of the workbook's part and of its first worksheet's; charts are none."""
  for document, workbook in _relations(source, "").values():
    if document == "officeDocument":
      relations = _relations(source, workbook)
      for tag, attributes in _elements(source, workbook):
        kind, sheet = relations.get(attributes.get("id"), ("", ""))
        if tag == "sheet" and kind == "worksheet":
          return workbook, sheet
  raise ValueError("it has no worksheet")


def _relations(source: zipfile.ZipFile, name: str) -> dict[str, tuple[str, str]]:
  """Identifier -> kind and name of the parts that a part refers to."""
  folder, file = posixpath.split(name)
  relations = _elements(source, posixpath.join(folder, "_rels", f"{file}.rels"))
  return {
    relation["Id"]: (
      posixpath.basename(relation["Type"]),
      posixpath.normpath(posixpath.join("/", folder, relation["Target"])).lstrip("/"),
    )
    for tag, relation in relations
    if tag == "Relationship"
  }


def _elements(source: zipfile.ZipFile, name: str) -> list[tuple[str, dict[str, str]]]:
  """All elements of a part, with their attributes; names without prefixes."""
  found = []

  def start(tag, attributes):
    found.append((_local(tag), {_local(key): value for key, value in attributes.items()}))

  parser = _parser()
  parser.StartElementHandler = start
  parser.Parse(_read(source, name), True)
  return found


def _pieces(xml: zipfile.ZipExtFile) -> Iterator[bytes]:
  """Pieces of whole tags, and of whole rows where rows are not long."""
  rest = b""
  while data := xml.read(_PIECE_BYTES):
    data = rest + data
    cut = max(data.rfind(b"<row"), 0) or max(data.rfind(b"<"), 0)
    if cut == 0 and len(data) > _MAX_PART_BYTES:
      raise ValueError(f"the sheet: expected tags of at most {_MAX_PART_BYTES} bytes")
    yield data[:cut]
    rest = data[cut:]
  yield rest


def _measure(piece: bytes, extent: _Extent) -> bool:
  """Adds a piece to the extent; False where it has a cell or a row that is written differently."""
  if b"\0" in piece:
    raise ValueError("the sheet: expected UTF-8")  # all that the library knows
  tags, starts = _TAG.findall(piece), _ROW.findall(piece)
  others = piece.count(b"<c") - len(tags) + piece.count(b"<row") - len(starts)
  if others and others != len(_OTHER_TAG.findall(piece)):
    return False
  if b":" in piece and _PREFIXED.search(piece):
    return False
  extent.cells += len(tags)
  extent.rows = max(extent.rows, *map(int, starts), 0)
  text = b"<".join(tags)
  if not tags or text == b"<".join([extent.row.replace(b"#", start) for start in starts]):
    return True  # all rows are as the one before; what follows would be slow
  cells = _CELL.findall(text)
  if len(cells) != len(tags):
    return False
  columns, numbers = zip(*cells, strict=True)
  extent.columns = max(extent.columns, *map(_column, set(columns)))
  extent.rows = max(extent.rows, *map(int, set(numbers)))
  extent.row = b"<".join([_NUMBER.sub(b"#", tag, 1) for tag in tags[: numbers.count(numbers[0])]])
  return True


def _parse(xml: zipfile.ZipExtFile, counted: Collection[str] = ("row", "c")) -> _Extent:
  """The extent of a sheet in any XML, also where cells and rows do not say where they are.

  Rows and columns are those with a tag that is `counted`; cells are all.
  """
  extent = _Extent()
  row, column = 1, 1

  def start(tag, attributes):
    nonlocal row, column
    tag, reference = _local(tag), attributes.get("r")
    if tag in ("row", "c") and reference is not None:
      match = re.fullmatch(r"([A-Za-z]{0,3})([0-9]{1,7})", reference)
      if match is None or (tag == "c") != bool(match[1]):
        raise ValueError(f"the sheet: expected a place like A1, got {reference:.20}")
      row = int(match[2])
      if tag == "c":
        column = _column(match[1].upper().encode())
    extent.cells += tag == "c"
    if tag in counted:
      extent.rows = max(extent.rows, row)
      if tag != "row":
        extent.columns = max(extent.columns, column)

  def end(tag):
    nonlocal row, column
    tag = _local(tag)
    if tag == "c":
      column += 1
    elif tag == "row":
      row, column = row + 1, 1

  parser = _parser()
  parser.StartElementHandler, parser.EndElementHandler = start, end
  parser.ParseFile(xml)
  return extent


def _parser() -> expat.XMLParserType:
  def refuse(*_):
    raise ValueError("a document type is not expected")  # entities in entities grow without end

  parser = expat.ParserCreate()
  parser.StartDoctypeDeclHandler = refuse
  return parser


def _local(name: str) -> str:
  return name.rpartition(":")[2]


def _column(letters: bytes) -> int:
  """Its number, counted from 1: that of AA is 27."""
  number = 0
  for letter in letters:
    number = 26 * number + letter - 64
  return number
