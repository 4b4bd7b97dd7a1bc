import gzip
import json
import os
import pathlib

import pytest

from vibethinker_jax.verify.grader import Grader


@pytest.fixture(scope='session')
def read_data():
  """Reads a .json, .jsonl or .jsonl.gz file of the data folder; skips the test where it is absent."""
  default = pathlib.Path(__file__).parents[2].parent / 'shared' / 'data'
  root = pathlib.Path(os.environ.get('VIBETHINKER_DATA', default))

  def read(path: str) -> list:
    file = root / path
    if not file.exists():
      pytest.skip(f'{file} is absent; set VIBETHINKER_DATA to the folder of data files')
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == '.gz' else file.read_text()
    lines = [text] if file.suffix == '.json' else [line for line in text.split('\n') if line]
    rows = [json.loads(line) for line in lines]
    return rows[0] if file.suffix == '.json' else rows

  return read


@pytest.fixture(scope='session')
def grader():
  """One grader for all tests, like that of a training run for all steps."""
  with Grader(workers=2, deadline_s=2.0) as grader:
    yield grader
