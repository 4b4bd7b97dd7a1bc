"""The notebooks run from top to bottom, in reduced size: the test overrides what their `parameters` cell sets."""

import os
import pathlib

import jax
import nbformat
import pytest
from nbclient import NotebookClient

from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config, Qwen2
from vibethinker_jax.recipe import TINY_BASE

COLABS = pathlib.Path(__file__).parents[2] / 'colabs'
NAMES = ['quickstart', 'mgpo_lambda', 'fusion_weights', 'your_own_model']


@pytest.fixture(scope='module')
def kernels(tmp_path_factory):
  """The environment of the notebooks' kernels: one device, and one cache of what jax compiles for all of them."""
  cache = tmp_path_factory.mktemp('compiled')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=0')
    patch.setenv('JAX_COMPILATION_CACHE_DIR', str(cache))
    patch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
    patch.setenv('PYTHONPATH', os.pathsep.join([str(COLABS.parent), os.environ.get('PYTHONPATH', '')]))
    yield


@pytest.fixture(scope='module')
def own_model(shrunk, tmp_path_factory):
  """A Hugging Face directory with a small random model and the tiny base's tokenizer."""
  directory = tmp_path_factory.mktemp('models') / 'own'
  model = jax.jit(lambda key: Qwen2(Config(**shrunk['start']['random']), key))(jax.random.key(0))
  hf.save(model, directory, TINY_BASE, ())
  return directory


@pytest.mark.parametrize('name', NAMES)
def test_notebook(name, kernels, shrunk, own_model, tmp_path):
  notebook = nbformat.read(COLABS / f'{name}.ipynb', as_version=4)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert all(not cell.outputs and cell.execution_count is None for cell in code), 'outputs are to be stripped'
  changes = {**shrunk, 'data.others': ()}
  if name == 'mgpo_lambda':
    changes |= {'ablation.lambdas': (0.0, 2.0), 'ablation.seeds': (0,)}
  if name == 'fusion_weights':
    changes |= {'simplex.parts': 2, 'simplex.random': 1}
  reduced = {'WORKDIR': str(tmp_path / 'w'), 'CHANGES': changes, 'DEVICES': 1}
  if name == 'your_own_model':
    del changes['start']
    reduced['MODEL'] = str(own_model)
  (at,) = [i for i, cell in enumerate(notebook.cells) if 'parameters' in cell.metadata.get('tags', ())]
  lines = [f'{key} = {value!r}' for key, value in reduced.items()]
  notebook.cells.insert(at + 1, nbformat.v4.new_code_cell('\n'.join(lines)))
  NotebookClient(notebook, timeout=240, kernel_name='python3', resources={'metadata': {'path': str(COLABS)}}).execute()
  said = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
  assert any('image/png' in output.get('data', {}) for output in said), 'a notebook without a picture'
  assert any('<iframe' in str(output.get('data', {}).get('text/html', '')) for output in said)


def test_every_notebook_is_tested():
  assert sorted(NAMES) == sorted(path.stem for path in COLABS.glob('*.ipynb'))
