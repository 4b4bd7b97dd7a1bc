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

from vibethinker_jax import disk
from vibethinker_jax.errors import BadInput

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


def record(workdir: pathlib.Path, data: dict[str, str]) -> None:
  """Add this session to the workdir's; with several processes the first one does. `data`: fingerprints by source."""
  if jax.process_index() == 0:
    disk.append(pathlib.Path(workdir) / 'provenance.jsonl', json.dumps({**session(), 'data': data}))


def check_data(workdir: pathlib.Path, data: dict[str, str]) -> None:
  """Raises BadInput where a source is not what it was in the sessions before this one."""
  for before in sessions(workdir):
    for source, fingerprint in before.get('data', {}).items():
      if data.get(source, fingerprint) != fingerprint:
        raise BadInput(
          f'{source}: has changed since this run read it ({before.get("started")}), expected the same problems; bring '
          f'them back, or use a new workdir than {workdir}'
        )


def sessions(workdir: pathlib.Path) -> list[dict]:
  """All that were recorded, the first one first; none where the workdir is older than this record.

  Raises BadInput where a line is damaged.
  """
  path = pathlib.Path(workdir) / 'provenance.jsonl'
  lines = path.read_bytes().split(b'\n')[:-1] if path.exists() else []
  found = []
  for number, line in enumerate(lines, 1):
    try:
      found.append({**json.loads(line.decode())})
    except (ValueError, TypeError):
      raise BadInput(f'{path}, line {number}: damaged, expected a JSON object; take the line away') from None
  return found


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
