"""The page of any sweep, written again from its files."""

import json
import pathlib

from vibethinker_jax.errors import BadInput
from vibethinker_jax.study import ablation, selection, simplex


def write_report(directory: pathlib.Path) -> pathlib.Path:
  """Write the page with the results so far; returns its path. Raises BadInput."""
  study = json.loads((directory / 'sweep.json').read_text())['study']
  if study == 'ablation':
    return ablation.write_report(directory)
  if study == 'simplex':
    return simplex.write_report(directory)
  if study == 'selection':
    return selection.write_report(directory)
  raise BadInput(f'{directory / "sweep.json"}: study is {study!r}, expected ablation, simplex or selection')
