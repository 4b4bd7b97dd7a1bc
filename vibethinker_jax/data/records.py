"""Prepared problems as a `tensorflow-datasets` data set of ArrayRecord files: random access, in shards, no TensorFlow.

`vibethinker prepare` writes such a data set: its problems are merged and checked once instead of at every start, and
the `path` of a config names it like any other source. `Records` is for pipelines of your own: a sequence that reads and
parses a row when the row is asked for. So nothing is held in memory, and a shuffled order needs no pass over the files
(`grain.MapDataset.source`).

Checked with tensorflow-datasets 4.9.10 and without TensorFlow: `GeneratorBasedBuilder` with file_format 'array_record'
writes, and `as_data_source` reads; `store_as_tfds_dataset` does not work, it needs `tf.data`. A row holds the id and
the JSON text of a problem, so what is read is what was written, whatever the features of other data sets can express.
"""

import contextlib
import io
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from vibethinker_jax.data.problem import Problem, problem_from, row_of
from vibethinker_jax.errors import BadInput


class _Problems(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The builder: splits of problems, given when it is made."""

  name = 'problems'
  VERSION = tfds.core.Version('1.0.0')
  code_path = None  # the folder of checksums of downloads; to look for it the library needs another package

  def __init__(self, splits: dict[str, Sequence[Problem]], data_dir: str):
    self._splits = splits
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    features = tfds.features.FeaturesDict({'id': text(), 'problem': text()})
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {name: self._generate_examples(problems) for name, problems in self._splits.items()}

  def _generate_examples(self, problems: Sequence[Problem]) -> Iterator[tuple[int, dict]]:
    for number, problem in enumerate(problems):
      yield number, {'id': problem.id, 'problem': json.dumps(row_of(problem))}


def write(splits: dict[str, Sequence[Problem]], directory: pathlib.Path, shards: int | None = None) -> pathlib.Path:
  """Writes splits of problems as a data set, in order, and returns its directory.

  Args:
    splits: the problems of each split, by its name.
    directory: where to; a data set that is there is replaced once the new one is complete.
    shards: files of a split; None lets the library choose by size.

  Raises:
    BadInput: a split has fewer problems than shards.
    OSError: the directory cannot be written.
  """
  for name, problems in splits.items():
    if len(problems) < (shards or 1):
      raise BadInput(f'{directory}: split {name!r} has {len(problems)} problems, expected at least {shards or 1}')
  directory.parent.mkdir(parents=True, exist_ok=True)
  # the library writes NAME/VERSION below a folder: that is a temporary one, and the result is moved to `directory`
  with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f'.{directory.name}.') as beside:
    builder = _Problems(splits, beside)
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints about downloads and the temporary folder
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    if directory.exists():
      directory.rename(pathlib.Path(beside) / 'old')
    pathlib.Path(builder.data_dir).rename(directory)
  return directory


def open_split(name: str | pathlib.Path, split: str) -> Sequence[dict]:
  """The rows of a split, in order. Texts are str and arrays are lists; a row of `write` is the problem's JSON object.

  Args:
    name: the directory of a prepared data set (a pathlib.Path), or a name as in `tfds.load` (a str).
    split: its name.

  Raises:
    BadInput: the library cannot read it.
  """
  try:
    if isinstance(name, pathlib.Path):
      source = tfds.builder_from_directory(name).as_data_source(split)
    else:
      source = tfds.data_source(name, split=split)
  except Exception as error:  # many parts of the library may raise, and a message may list every data set it knows
    said = (str(error).strip() or type(error).__name__).split('\n')[0][:200]
    raise BadInput(f'{name}: split {split!r} cannot be read by tensorflow-datasets ({said})') from None
  return _Rows(source)


class Records(Sequence):
  """The Problems of a split that `write` has written, each read when it is asked for. Raises BadInput."""

  def __init__(self, directory: pathlib.Path, split: str = 'train'):
    self._name = directory
    self._rows = open_split(pathlib.Path(directory), split)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Problem:
    return problem_from(self._rows[index], f'{self._name}, row {index + 1}')


class _Rows(Sequence):
  def __init__(self, source):
    self._source = source

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict:
    index = range(len(self))[index]  # IndexError at the end, which ends a loop; the library's own error does not
    row = _plain(self._source[index])
    return json.loads(row['problem']) if set(row) == {'id', 'problem'} else row


def _plain(value):
  """A value of numpy as Python's own; bytes are decoded as UTF-8."""
  if isinstance(value, dict):
    return {name: _plain(inner) for name, inner in value.items()}
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if isinstance(value, np.ndarray | np.generic):
    return _plain(value.tolist())
  if isinstance(value, list | tuple):
    return [_plain(inner) for inner in value]
  return value
