"""What the docs name exists, and what they show runs."""

import ast
import inspect
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import vibethinker_jax as vt
from vibethinker_jax.config import TINY_BASE

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(DOCS.glob('*.md'))]
GUIDES = [DOCS / name for name in ('index.md', 'method.md', 'extending.md')]

# the changed term of the reward, in its place
REWARDS = """
import types
from vibethinker_jax.train.rl import Trainer
trainer = types.SimpleNamespace(m=MGPO(lam=1.0, shorter=0.5))
rolled = types.SimpleNamespace(correct=np.array([[True, True, False]]), lengths=np.array([[10, 30, 5]]))
np.testing.assert_allclose(Trainer._rewards(trainer, rolled, 64, None), [[1.5, 0.5, 0]], atol=1e-6)
"""

_REFERENCE = re.compile(r'`([\w/.-]+\.py)(?::([\w.]+))?`')
_BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def source(name: str) -> pathlib.Path | None:
  """The file that a page means: below the package, or of the repository."""
  return next((path for path in (ROOT / 'vibethinker_jax' / name, ROOT / name) if path.is_file()), None)


def defined(path: pathlib.Path) -> set[str]:
  """Names of a file: functions, classes, values, and CLASS.NAME."""
  out = set()

  def visit(body, prefix):
    for node in body:
      names = []
      if isinstance(node, ast.FunctionDef | ast.ClassDef):
        names = [node.name]
      elif isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
      elif isinstance(node, ast.AnnAssign):
        names = [node.target.id]
      out.update(f'{prefix}{name}' for name in names)
      if isinstance(node, ast.ClassDef):
        visit(node.body, f'{prefix}{node.name}.')

  visit(ast.parse(path.read_text()).body, '')
  return out


def missing(text: str) -> list[str]:
  """References of a page to files or names that are not there."""
  out = []
  for match in _REFERENCE.finditer(text):
    path = source(match[1])
    if path is None or (match[2] is not None and match[2] not in defined(path)):
      out.append(match[0])
  return out


def anchors(page: pathlib.Path) -> set[str]:
  """The headings of a page as links name them."""
  headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
  return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


def blocks(page: pathlib.Path, kind: str) -> list[str]:
  """The fenced blocks of a kind."""
  return [text for tag, text in _BLOCK.findall(page.read_text()) if tag == kind]


def apply(change: str, folder: pathlib.Path) -> None:
  """Apply a block that names its file in its first line; lines are kept (' '), taken out ('-') or added ('+')."""
  name, *lines = change.rstrip('\n').split('\n')
  path = folder / name.removeprefix('# ')
  before = '\n'.join(line[1:] for line in lines if line[:1] != '+') + '\n'
  after = '\n'.join(line[1:] for line in lines if line[:1] != '-') + '\n'
  text = path.read_text()
  assert text.count(before) == 1, f'{path.name}: found {text.count(before)} times:\n{before}'
  path.write_text(text.replace(before, after))


@pytest.mark.parametrize('page', GUIDES, ids=lambda page: page.name)
def test_what_a_guide_names_exists(page):
  text = page.read_text()
  assert missing(text) == []
  assert len(_REFERENCE.findall(text)) > 10


def test_missing_names_are_found():
  assert missing('`train/mgpo.py:maxent_weight` `ssp.py:Pipeline.probe` `configs/tiny.py:get_config` `ssp.py`') == []
  wrong = '`train/mgpo.py:maxent_wait` `ssp.py:Pipeline.prove` `train/none.py` `rollout.py:correct`'
  assert missing(wrong) == wrong.split(' ')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  text = page.read_text()
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if target.startswith('http'):
      continue
    file, _, anchor = target.partition('#')
    path = page.parent / file if file else page
    assert path.exists(), target
    assert not anchor or anchor in anchors(path), target
  for name in re.findall(r'(?<![\w/])docs/[\w-]+\.\w+', text):
    assert (ROOT / name).is_file(), name


def test_every_page_is_in_the_index():
  index = (DOCS / 'index.md').read_text()
  assert [page.name for page in DOCS.glob('*.md') if page.name != 'index.md' and f']({page.name}' not in index] == []


def test_the_api_page_lists_the_public_names():
  rows = re.findall(r'^\| `vt\.(\w+)(?:\(([^)]*)\))?`', (DOCS / 'api.md').read_text(), re.MULTILINE)
  assert sorted(name for name, _ in rows) == sorted(vt.__all__)
  for name, parameters in rows:
    if name != '__version__':
      own = {*inspect.signature(getattr(vt, name)).parameters}
      assert {*parameters.split(', ')} == own, name


def test_examples_of_the_python_api(monkeypatch, capsys):
  for page in (ROOT / 'README.md', DOCS / 'api.md'):
    for block in blocks(page, 'python'):
      exec(compile(block.replace('runs/tiny/final', str(TINY_BASE)), page.name, 'exec'), {})
  assert len(capsys.readouterr().out.split('\n')) > 8


def test_examples_of_extending(tmp_path):
  """All changes in one copy of the package, all examples in one interpreter."""
  for name in ('vibethinker_jax', 'configs'):
    shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
  page = DOCS / 'extending.md'
  for change in blocks(page, 'diff'):
    apply(change, tmp_path)
  examples = blocks(page, 'python')
  assert len(blocks(page, 'diff')) >= 10 and len(examples) >= 6
  # the judges' workers are processes that may import the main module
  script = ''.join(f'  {line}\n' for text in [*examples, REWARDS] for line in text.split('\n'))
  (tmp_path / 'examples.py').write_text(f'if __name__ == "__main__":\n{script}')
  done = subprocess.run([sys.executable, 'examples.py'], cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
