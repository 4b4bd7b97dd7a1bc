"""How the notebooks in colabs/ begin, after the installation of this package."""

import importlib.metadata
import importlib.util
import os
import sys

from vibethinker_jax.errors import BadInput, Failure

_COMPILED = ('numpy', 'scipy', 'pandas', 'pyarrow', 'ml_dtypes', 'jax', 'jaxlib')
_DRIVE = '/content/drive'  # where Colab mounts it


def begin(workdir: str) -> None:
  """Make errors that the user can correct one sentence each; "Run all" stops at such a cell.

  On Colab, mount Google Drive where `workdir` lies there, and otherwise print that Colab deletes `workdir`. Raises
  SystemExit where the notebook still holds libraries from before the installation.
  """
  from IPython import get_ipython

  if replaced := replaced_libraries():
    raise SystemExit(
      f'{", ".join(replaced)}: this session still has the version from before the installation. Choose "Restart '
      'session" in the menu "Runtime" and run all cells again; nothing is installed twice.'
    )
  get_ipython().set_custom_exc((BadInput, Failure, FileNotFoundError), _in_one_sentence)
  if not on_colab():
    return
  if not workdir.startswith(f'{_DRIVE}/'):
    print(
      f'WORKDIR, {os.path.abspath(workdir)}, is on the disk of this machine, which Colab deletes when it disconnects. '
      f"A folder of your Drive is kept: WORKDIR = '{_DRIVE}/MyDrive/NAME'."
    )
  elif not os.path.isdir(f'{_DRIVE}/MyDrive'):
    from google.colab import drive

    drive.mount(_DRIVE)


def replaced_libraries() -> list[str]:
  """The compiled libraries that were imported before another version of them was installed."""
  loaded = {name: vars(sys.modules[name]).get('__version__') for name in _COMPILED if name in sys.modules}
  return [name for name, version in loaded.items() if version and version != importlib.metadata.version(name)]


def on_colab() -> bool:
  """Whether Google Colab runs this notebook."""
  try:
    return importlib.util.find_spec('google.colab') is not None
  except ModuleNotFoundError:  # there is no package `google` either
    return False


def _in_one_sentence(shell, kind: type, error: Exception, trace, tb_offset=None) -> list[str]:
  """IPython's handler of an exception: prints it. The cell still fails. Returns an empty traceback."""
  said = ' '.join(str(error).split())
  if isinstance(error, FileNotFoundError) and error.filename is not None:
    said = (
      f'{error.filename} does not exist: run the cells above, which make it. (The disk of a new Colab machine is '
      'empty; a WORKDIR on your Drive is kept.)'
    )
  print(said, file=sys.stderr)
  return []
