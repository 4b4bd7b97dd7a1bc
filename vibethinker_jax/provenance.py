"""What a run was made with: provenance.jsonl in its workdir has a line for each session, that is, each start."""

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
    'changed': _git('status', '--porcelain', '--untracked-files=no'),  # the files that differ from the commit
    'versions': {'python': platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    'platform': platform.platform(),
    'cpu': {'count': os.cpu_count(), 'kind': platform.processor() or platform.machine()},
    'device': {'platform': device.platform, 'kind': device.device_kind, 'count': jax.device_count()},
    'processes': jax.process_count(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'matmul_precision': jax.config.jax_default_matmul_precision,
  }


def record(workdir: pathlib.Path, data: dict[str, str]) -> None:
  """Add a line for this session; of several processes the first one writes. `data`: fingerprints by source."""
  if jax.process_index() == 0:
    disk.append(pathlib.Path(workdir) / 'provenance.jsonl', json.dumps({**session(), 'data': data}))


def check_data(workdir: pathlib.Path, data: dict[str, str]) -> None:
  """Raises BadInput where a source of data has changed since an earlier session. `data`: fingerprints by source."""
  for before in sessions(workdir):
    for source, fingerprint in before.get('data', {}).items():
      if data.get(source, fingerprint) != fingerprint:
        raise BadInput(
          f'{source}: has changed since this run read it ({before.get("started")}), expected the same problems; '
          f'restore the file, or use another workdir than {workdir}'
        )


def sessions(workdir: pathlib.Path) -> list[dict]:
  """The recorded sessions, the first one first. Raises BadInput where a line is damaged."""
  path = pathlib.Path(workdir) / 'provenance.jsonl'
  lines = path.read_bytes().split(b'\n')[:-1] if path.exists() else []
  found = []
  for number, line in enumerate(lines, 1):
    try:
      found.append({**json.loads(line.decode())})
    except (ValueError, TypeError):
      raise BadInput(f'{path}, line {number}: damaged, expected a JSON object; delete the line') from None
  return found


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _git(*command: str) -> str | None:
  """The output of git in the directory of this package; None where it is no git checkout."""
  here = pathlib.Path(__file__).parent
  if not (here.parent / '.git').exists():
    return None  # it may be installed inside another project, whose commit says nothing about it
  try:
    return subprocess.run(['git', '-C', here, *command], capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
