"""The notebooks run from top to bottom, in reduced size: the test overrides what their `parameters` cell sets.

They also run where Colab would run them: in a kernel of another directory, with the package installed and no repository
beside it.
"""

import os
import pathlib
import re
import shutil
import subprocess

import jax
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.model import hf
from vibethinker_jax.model.qwen2 import Config, Qwen2

ROOT = pathlib.Path(__file__).parents[2]
COLABS = ROOT / 'colabs'
NAMES = ['quickstart', 'mgpo_lambda', 'fusion_weights', 'your_own_model']


@pytest.fixture(scope='module')
def kernels(tmp_path_factory):
  """The environment of the notebooks' kernels: one device, and one cache of what jax compiles for all of them."""
  cache = tmp_path_factory.mktemp('compiled')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=0')
    patch.setenv('JAX_COMPILATION_CACHE_DIR', str(cache))
    patch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
    patch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    yield


@pytest.fixture(scope='module')
def own_model(shrunk, tmp_path_factory):
  """A Hugging Face directory with a small random model and the tiny base's tokenizer."""
  directory = tmp_path_factory.mktemp('models') / 'own'
  model = jax.jit(lambda key: Qwen2(Config(**shrunk['model']['random']), key))(jax.random.key(0))
  hf.save(model, directory, TINY_BASE, ())
  return directory


@pytest.fixture
def content(kernels, tmp_path, monkeypatch):
  """The directory in which Colab starts: the package is installed, its repository is at the address of `repository`.

  `google.colab` can be imported, and nothing else of Colab is there.
  """
  git = shutil.which('git') or pytest.skip('the notebooks fetch the repository with git')
  site, repository, content = (tmp_path / name for name in ('site', 'repository', 'content'))
  (site / 'google' / 'colab').mkdir(parents=True)
  (site / 'google' / 'colab' / '__init__.py').write_text('')
  (site / 'vibethinker_jax').symlink_to(ROOT / 'vibethinker_jax')
  for name in ('colabs', 'configs'):
    shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns('runs', '.*', '__pycache__'))
  for command in (
    ['init', '-q'],
    ['add', '.'],
    ['-c', 'user.name=x', '-c', 'user.email=x@y', 'commit', '-q', '-m', 'x'],
  ):
    subprocess.run([git, *command], cwd=repository, check=True)
  content.mkdir()
  monkeypatch.setenv('PYTHONPATH', str(site))
  return content


def read(name: str):
  return nbformat.read(COLABS / f'{name}.ipynb', as_version=4)


def code_of(notebook) -> list:
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def reduced(notebook, workdir: pathlib.Path | str, changes: dict, **more):
  """The notebook with a cell after its parameters that overrides them."""
  (at,) = [i for i, cell in enumerate(notebook.cells) if 'parameters' in cell.metadata.get('tags', ())]
  given = {'WORKDIR': str(workdir), 'CHANGES': changes, 'DEVICES': 1, **more}
  lines = [f'{key} = {value!r}' for key, value in given.items()]
  notebook.cells.insert(at + 1, nbformat.v4.new_code_cell('\n'.join(lines)))
  return notebook


def execute(notebook, cwd: pathlib.Path, **options) -> None:
  NotebookClient(
    notebook, timeout=240, kernel_name='python3', resources={'metadata': {'path': str(cwd)}}, **options
  ).execute()


def changes_of(name: str, shrunk: dict, own_model: pathlib.Path) -> tuple[dict, dict]:
  """What makes a notebook small: CHANGES, and further parameters."""
  changes = {**shrunk, 'data.extra_domains': ()}
  if name == 'mgpo_lambda':
    changes |= {'ablation.lambdas': (0.0, 2.0), 'ablation.seeds': (0,)}
  if name == 'fusion_weights':
    changes |= {'simplex.parts': 2, 'simplex.random': 1}
  if name == 'your_own_model':
    del changes['model']
    return changes, {'MODEL': str(own_model)}
  return changes, {}


def check_shown(notebook) -> None:
  said = [output for cell in code_of(notebook) for output in cell.outputs]
  assert any('image/png' in output.get('data', {}) for output in said), 'a notebook without a picture'
  assert any('<iframe' in str(output.get('data', {}).get('text/html', '')) for output in said)


@pytest.mark.parametrize('name', NAMES)
def test_notebook(name, kernels, shrunk, own_model, tmp_path):
  notebook = read(name)
  code = code_of(notebook)
  assert all(not cell.outputs and cell.execution_count is None for cell in code), 'outputs are to be stripped'
  changes, more = changes_of(name, shrunk, own_model)
  execute(reduced(notebook, tmp_path / 'w', changes, **more), COLABS)
  check_shown(notebook)
  # what a picture shows is said right after it, and nowhere else
  said = [i for i, cell in enumerate(notebook.cells) if cell.source.startswith('**What to see.**')]
  shown = lambda cell: (
    cell.cell_type == 'code' and any('image/png' in output.get('data', {}) for output in cell.outputs)
  )
  pictures = [i for i, cell in enumerate(notebook.cells) if shown(cell)]
  curves = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == 'code' and 'plots.curves' in cell.source]
  assert [i - 1 for i in said] == sorted({*pictures, *curves})


@pytest.mark.parametrize('name', NAMES)
def test_what_a_notebook_tells(name):
  notebook = read(name)
  for cell in code_of(notebook)[1:]:
    first = cell.source.split('\n')[0]
    assert re.match(r'# .*\b(seconds?|minutes?)\b', first, re.IGNORECASE), f'{cell.id} does not say how long it takes'
  assert sum('**Exercise.**' in cell.source for cell in notebook.cells) == 1


def test_all_notebooks_begin_alike():
  setups = {tuple(cell.source for cell in code_of(read(name))[1:3]) for name in NAMES}
  assert len(setups) == 1


def test_every_notebook_is_tested():
  assert sorted(NAMES) == sorted(path.stem for path in COLABS.glob('*.ipynb'))


def test_what_goes_wrong_on_colab_is_a_sentence(content):
  """A placeholder for an address, an address that is none, a restart, another cwd, old libraries, a lost workdir."""
  setup, begin = (cell.source for cell in code_of(read('quickstart'))[1:3])
  parameters = read('quickstart').cells[1].source
  repository = content.parent / 'repository'
  cells = [
    parameters,
    setup,  # 1: a placeholder
    f"REPOSITORY = '{content.parent / 'nowhere'}'",
    setup,  # 3: an address that is none
    f"REPOSITORY = '{repository}'",
    setup,
    'os.getcwd()',
    f"os.chdir('{content}'); REPOSITORY = 'gone'",  # as after a restart
    setup,
    'os.getcwd()',  # 9
    begin,  # 10: where WORKDIR is
    "open('runs/quickstart/experts.json')",  # 11: lost
    "from vibethinker_jax.config_io import load_config; load_config('nowhere.py')",  # 12: what a user can mend
    "import numpy; was, numpy.__version__ = numpy.__version__, '1.0'",
    begin,  # 14: another numpy than that which is installed
    'numpy.__version__ = was',
    begin,
  ]
  notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
  execute(notebook, content, allow_errors=True)
  failed, said = {}, {}
  for i, cell in enumerate(notebook.cells):
    for output in cell.outputs:
      if output.output_type == 'error':
        failed[i] = '\n'.join(output.traceback)
      else:
        said[i] = said.get(i, '') + str(output.get('text', output.get('data', {}).get('text/plain')))
  assert sorted(failed) == [1, 3, 14], failed
  for told, part in (
    (failed[1], 'REPOSITORY, in the cell above, is a placeholder'),
    (failed[3], 'nowhere, REPOSITORY in the cell above, could not be fetched'),
    (said[11], 'runs/quickstart/experts.json does not exist: run the cells above'),
    (said[12], '--config nowhere.py: no'),
    (failed[14], 'numpy: this session still has the version from before'),
  ):
    assert part in told and 'File "' not in told and 'Traceback' not in told, told
  assert said[6] == said[9] == repr(str(content / 'repository' / 'colabs'))
  assert 'which Colab deletes when it disconnects' in said[10] and said[16] == said[10]
  notebook = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell(source) for source in ("WORKDIR = 'runs/x'", begin, "open('gone')", 'print(1)')]
  )
  with pytest.raises(CellExecutionError):  # running all cells stops there
    execute(notebook, content)
  assert notebook.cells[-1].execution_count is None


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_on_colab(name, content, shrunk, own_model):
  """The whole of it, then once more after a restart of the kernel: it goes on where it was."""
  changes, more = changes_of(name, shrunk, own_model)
  address = str(content.parent / 'repository')
  for REPOSITORY in (address, 'gone'):
    notebook = reduced(read(name), 'runs/w', changes, REPOSITORY=REPOSITORY, **more)
    execute(notebook, content)
    check_shown(notebook)
    assert (content / 'repository' / 'colabs' / 'runs' / 'w' / 'report.html').exists()


@pytest.mark.slow
def test_a_workdir_that_is_lost_on_the_way(content, shrunk, own_model):
  """Each cell below is met with a sentence, not with a traceback."""
  notebook = reduced(
    read('quickstart'),
    'runs/w',
    changes_of('quickstart', shrunk, own_model)[0],
    REPOSITORY=str(content.parent / 'repository'),
  )
  (at,) = [i for i, cell in enumerate(notebook.cells) if "'sft', 'probe'" in cell.source]
  notebook.cells.insert(at + 1, nbformat.v4.new_code_cell('import shutil\nshutil.rmtree(WORKDIR)'))
  execute(notebook, content, allow_errors=True)
  later = [cell for cell in notebook.cells[at + 2 :] if cell.cell_type == 'code']
  errors = ['\n'.join(o.traceback) for cell in later for o in cell.outputs if o.output_type == 'error']
  told = ''.join(o.text for cell in later for o in cell.outputs if o.output_type == 'stream' and o.name == 'stderr')
  assert all(re.search('NameError.*summary', error) for error in errors), errors  # of the cell before, which failed
  assert 'Traceback' not in told and 'File "' not in told and 'is not there' in told
