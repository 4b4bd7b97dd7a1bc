"""Sources of problems: files, Hugging Face `datasets`, `tensorflow-datasets`.

  FILE.jsonl, .json, .csv (each also .gz), .parquet    one row an object (JSON: a list of them)
  -, or a pipe                                         JSON Lines from stdin, or from another program
  DIRECTORY                                            of `vibethinker prepare`, of `tfds`, of `Dataset.save_to_disk`,
                                                       or of data files
  hf:NAME or hf:NAME@CONFIG                            a data set of the Hugging Face hub
  tfds:NAME or tfds:NAME/CONFIG:VERSION                a prepared data set of `tensorflow-datasets`

None of them needs TensorFlow. Rows are read one after the other; a reader (readers.py) makes a Problem of each row.
"""

import csv
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from vibethinker_jax.data import readers
from vibethinker_jax.data.problem import Problem, json_lines, named, opened, parse_json, reason
from vibethinker_jax.errors import BadInput

Rows = Iterable[tuple[str, dict | BadInput]]  # (how messages name the row, the row or what is wrong with it)


@dataclasses.dataclass(frozen=True)
class Source:
  """A source of problems.

  path: a file, a directory, hf:NAME or tfds:NAME (data/sources.py).
  reader: the shape of its rows: a name of data/readers.py, or 'fields'.
  fields: for the reader 'fields', the field of a row for each field of a problem (`mapped` in data/readers.py).
  split: the split to read, of a source that has splits.
  domain: the domain of problems that have none.
  skip_bad: malformed rows are counted and left out; otherwise the first one ends the run.
  """

  path: str
  reader: str = 'problems'
  fields: dict[str, str] | None = None
  split: str = 'train'
  domain: str = ''
  skip_bad: bool = False


def load(
  path: str | pathlib.Path,
  reader: str = 'problems',
  fields: dict | None = None,
  split: str = 'train',
  skip_bad: bool = False,
) -> list[Problem]:
  """The Problems of a source, one for each row, in order.

  Args:
    path: one of the forms above.
    reader: a name of `readers.READERS`, or 'fields'.
    fields: the mapping for the reader 'fields', which needs one.
    split: of a source that has splits.
    skip_bad: malformed rows are left out, and a line on stderr counts them.

  Raises:
    BadInput: names the file, the line (or row) and what was expected.
  """
  if (reader == 'fields') != (fields is not None):
    raise BadInput(
      f"{path}: reader {reader!r} with fields {fields}; the reader 'fields', and no other, wants a mapping"
    )
  if reader != 'fields' and reader not in readers.READERS:
    raise BadInput(f'{path}: unknown reader {reader!r}, expected fields, {", ".join(readers.READERS)}')
  make = readers.READERS[reader] if fields is None else readers.mapped(fields)
  problems, bad = [], []
  for where, row in rows(path, split):
    try:
      if isinstance(row, BadInput):
        raise row
      problems.append(make(row, where))
    except BadInput as error:
      if not skip_bad:
        raise
      bad.append(error)
  if bad:
    tqdm.write(
      f'{named(path)}: {len(bad)} of {len(bad) + len(problems)} rows left out, the first: {bad[0]}', file=sys.stderr
    )
  if not problems:
    raise BadInput(f'{named(path)}: no row{" that could be read" if bad else "s"}')
  return problems


def load_all(sources: Iterable[Source]) -> list[Problem]:
  """The Problems of several sources, one after the other."""
  out = []
  for s in sources:
    for problem in load(s.path, s.reader, s.fields, s.split, s.skip_bad):
      out.append(problem if problem.domain or not s.domain else dataclasses.replace(problem, domain=s.domain))
  return out


def rows(path: str | pathlib.Path, split: str = 'train') -> Rows:
  """The rows of a source, whose path has one of the forms above. Raises BadInput, also while they are read."""
  kind, _, name = str(path).partition(':')
  if kind == 'hf' and name:
    return _hub(name, split)
  if kind == 'tfds' and name:
    return _tfds(name, split)
  path = pathlib.Path(path)
  if os.path.isdir(path):  # False for a name that no file can have
    return _directory(path, split)
  if str(path) == '-' or (os.path.exists(path) and path.is_fifo()):
    return json_lines(path)
  match path.name.removesuffix('.gz').rpartition('.')[2]:
    case 'jsonl' | 'ndjson':
      return json_lines(path)
    case 'json':
      return _json(path)
    case 'parquet':
      return _parquet(path)
    case 'csv':
      return _csv(path)
  raise BadInput(f'{path}: expected .jsonl, .json, .csv (each also .gz), .parquet or a directory')


def _json(path: pathlib.Path) -> Rows:
  try:
    whole = parse_json(_bytes(path).decode('utf-8-sig'))
  except UnicodeDecodeError as error:
    raise BadInput(f'{path}: not UTF-8 at byte {error.start}') from None
  except json.JSONDecodeError as error:
    raise BadInput(f'{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})') from None
  except (RecursionError, ValueError):
    raise BadInput(f'{path}: not JSON that can be read (nested too deep, or a number too long)') from None
  if not isinstance(whole, list):
    raise BadInput(f'{path}: expected a JSON list of objects, found {type(whole).__name__}')
  return _numbered(path, whole)


def _csv(path: pathlib.Path) -> Rows:
  try:
    lines = _bytes(path).decode('utf-8-sig').splitlines(keepends=True)
  except UnicodeDecodeError as error:
    raise BadInput(f'{path}: not UTF-8 at byte {error.start}') from None
  reader = csv.DictReader(lines, restkey='')
  try:
    for row in reader:
      where = f'{path}, line {reader.line_num}'
      whole = '' not in row and None not in row.values()
      yield where, row if whole else BadInput(f'{where}: expected {len(reader.fieldnames)} columns, as in the header')
  except csv.Error as error:
    raise BadInput(f'{path}, line {reader.line_num}: not CSV ({error})') from None


def _bytes(path: pathlib.Path) -> bytes:
  with opened(path) as file:
    return file.read()


def _parquet(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  number = 0
  try:
    with pq.ParquetFile(path) as file:
      for batch in file.iter_batches(batch_size=4096):
        for row in batch.to_pylist():
          number += 1
          yield f'{path}, row {number}', row
  except (OSError, pa.ArrowException) as error:
    raise BadInput(f'{path}: cannot be read as Parquet ({reason(error)})') from None


def _directory(path: pathlib.Path, split: str) -> Rows:
  import datasets

  names = {p.name for p in path.iterdir()}
  if 'features.json' in names:
    return _tfds(path, split)
  try:
    if {'dataset_dict.json', 'state.json'} & names:
      data = datasets.load_from_disk(str(path))
      data = data[split] if isinstance(data, datasets.DatasetDict) else data
    else:
      data = datasets.load_dataset(str(path), split=split)
  except KeyError:
    raise BadInput(f'{path}: no split {split!r}, it has {", ".join(data)}') from None
  except Exception as error:  # the readers of the library may raise anything
    raise BadInput(f'{path}: cannot be read as a data set ({error})') from None
  return _numbered(path, data)


def _hub(name: str, split: str) -> Rows:
  import datasets

  name, _, config = name.partition('@')
  try:
    return _numbered(f'hf:{name}', datasets.load_dataset(name, config or None, split=split))
  except Exception as error:  # from the network, the hub, or the files of the data set
    raise BadInput(f'hf:{name}: cannot be loaded ({error})') from None


def _tfds(name: str | pathlib.Path, split: str) -> Rows:
  from vibethinker_jax.data import records

  return _numbered(name, records.open_split(name, split))


def _numbered(path, whole: Iterable) -> Rows:
  for number, row in enumerate(whole, 1):
    where = f'{path}, row {number}'
    yield where, row if isinstance(row, dict) else BadInput(f'{where}: expected an object, found {type(row).__name__}')
