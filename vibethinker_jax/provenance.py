"""What a run was made with: provenance.jsonl in its workdir, a line for each time it was started."""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import jax

PACKAGES = (
  'jax',
  'jaxlib',
  'libtpu',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'numpy',
  'tokenizers',
  'transformers',
)


def session() -> dict:
  """Versions, devices, code and command of this process."""
  device = jax.devices()[0]
  return {
    'started': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    'command': sys.argv,
    'commit': _git('rev-parse', 'HEAD'),
    'changed': _git('status', '--porcelain', '--untracked-files=no'),  # files that differ from the commit
    'versions': {'python': platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    'platform': platform.platform(),
    'cpu': {'count': os.cpu_count(), 'kind': platform.processor() or platform.machine()},
    'device': {'platform': device.platform, 'kind': device.device_kind, 'count': jax.device_count()},
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'matmul_precision': jax.config.jax_default_matmul_precision,
  }


def record(workdir: pathlib.Path) -> None:
  """Add this session to the workdir's; with several processes the first one does."""
  if jax.process_index() == 0:
    with (pathlib.Path(workdir) / 'provenance.jsonl').open('a', encoding='utf-8') as file:
      file.write(json.dumps(session()) + '\n')


def sessions(workdir: pathlib.Path) -> list[dict]:
  """All that were recorded, the first one first; none where the workdir is older than this record."""
  path = pathlib.Path(workdir) / 'provenance.jsonl'
  lines = path.read_text(encoding='utf-8').split('\n')[:-1] if path.exists() else []
  return [json.loads(line) for line in lines]


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _git(*command: str) -> str | None:
  """What git says of this package's own directory; None where it is no checkout."""
  here = pathlib.Path(__file__).parent
  if not (here.parent / '.git').exists():
    return None  # installed somewhere below another project, whose commit says nothing
  try:
    return subprocess.run(['git', '-C', here, *command], capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
