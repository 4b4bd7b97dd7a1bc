"""All that only an accelerator shows, in one command of at most --minutes: one JSON, and the same as a table.

  python experiments/accelerator.py --out=accelerator.json                    # the 1.5B, on one GPU (or TPU)
  python experiments/accelerator.py --config=configs/accelerator.py:tiny      # the same on a CPU, in a minute

vibethinker_jax/plan/parts.py has the parts, the more wanted ones first: kernels beside the plain form, steps of SFT and
RL, decode steps, int8. Each runs in a process of its own: what fails, crashes or hangs in one leaves the others
standing. Both files are written anew after every part, so that a command cut short leaves what it has.
--parts=sft_8192,rl_8192 measures only those.
"""

import dataclasses
import json
import multiprocessing
import pathlib
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection

import jax
from absl import flags, logging

from vibethinker_jax import disk, distributed
from vibethinker_jax.config_io import config_flag, freeze, run_app
from vibethinker_jax.errors import BadInput
from vibethinker_jax.plan.parts import Accelerator, Figure, Part, check, parts_of

CONFIG = config_flag('configs/accelerator.py')
MINUTES = flags.DEFINE_float('minutes', 9.0, lower_bound=0.0, help='After which no part begins, and none goes on.')
PARTS = flags.DEFINE_list('parts', [], 'Names of parts, to measure only these; default: all.')
OUT = flags.DEFINE_string('out', 'accelerator.json', 'Where the figures go; the table goes beside it, as .md.')

LONGEST = 1 / 3  # of the time, that one part may take: one that hangs is not to take all of it
NOTES = """Ratio: the value by what it is compared with; that of `model FLOP/s` is the MFU. Its operations: 6 a weight
and token (of the un-embedding: a token with a loss), and 12 x the head width a query head, layer and causal pair of
tokens; what is computed again is not counted. Roofline of a decode step: the longer of its operations and of reading
the weights and the live cache. Errors: the largest difference from the same in float32, by the largest value there."""


def main(argv) -> None:
  del argv
  s, out = freeze(Accelerator, CONFIG.value), pathlib.Path(OUT.value)
  check(s)
  parts = chosen(parts_of(s), PARTS.value)
  for path in (out, out.with_suffix('.md')):
    if path.is_dir():
      raise BadInput(f'--out {path}: is a directory, expected a file to write')
  if out.suffix == '.md':
    raise BadInput(f'--out {out}: the table goes there, expected another name for the JSON')
  with disk.beginning(out):
    out.parent.mkdir(parents=True, exist_ok=True)
  print(f'\n{table(measured(s, parts, 60 * MINUTES.value, out))}\n{out}: the same figures')


def chosen(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
  """The parts of these names, or all. Raises BadInput for an unknown one."""
  known = [part.name for part in parts]
  if unknown := [name for name in names if name not in known]:
    raise BadInput(f'--parts {unknown[0]}: expected some of {", ".join(known)}')
  return [part for part in parts if not names or part.name in names]


def measured(s: Accelerator, parts: Sequence[Part], budget: float, out: pathlib.Path) -> dict:
  """The result after at most `budget` seconds. This process touches no device: its forks could not, after it."""
  began = time.monotonic()
  result = {'device': None, 'jax': jax.__version__, 'config': dataclasses.asdict(s), 'budget_s': budget, 'parts': {}}
  with tempfile.TemporaryDirectory() as programs:
    for number, part in enumerate(parts, 1):
      clock = time.monotonic()
      left = budget - (clock - began)
      if left > 0:
        found = in_own_process(s, part, min(left, LONGEST * budget), programs)
        result['device'] = found.pop('device') or result['device']
        found = beside(part, found, result['parts'])
      else:
        found = {'state': 'left out', 'why': 'no time'}
      result['parts'][part.name] = found | {'seconds': time.monotonic() - clock}
      result['seconds'] = time.monotonic() - began
      write(out, result)
      print(f'[{number}/{len(parts)}] {part.name}: {line(result["parts"][part.name])}', flush=True)
  return result


def in_own_process(s: Accelerator, part: Part, limit: float, programs: str) -> dict:
  """What the part measures in a process of its own within `limit` seconds, or why it does not."""
  fork = multiprocessing.get_context('fork')  # everything is imported, and no device is touched
  ours, theirs = fork.Pipe(duplex=False)
  process = fork.Process(target=carry_out, args=(s, part, programs, theirs), daemon=True)
  process.start()
  theirs.close()
  try:
    if ours.poll(limit):
      return ours.recv()
    why = f'stopped after {limit:.0f} s'
  except EOFError:
    process.join()
    why = f'its process ended with exit code {process.exitcode}'
  finally:
    process.kill()
    process.join()
  return {'device': None, 'state': 'failed', 'why': why}


def carry_out(s: Accelerator, part: Part, programs: str, pipe: Connection) -> None:
  """The child's side: whatever it raises is one line, and its traceback goes to standard error.

  What parts have in common (making the weights, the update) is compiled once, and kept in the folder `programs`.
  """
  found = {'device': None}
  try:
    logging.set_verbosity(logging.WARNING)  # jax reports every kind of device that is not there
    jax.config.update('jax_compilation_cache_dir', programs)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    distributed.cpu_devices(s.mesh.size)
    found['device'] = device()
    if part.needs and jax.default_backend() not in part.needs:
      found |= {'state': 'left out', 'why': f'needs a {" or ".join(part.needs)}'}
    else:
      found |= {'state': 'measured', 'figures': {name: figure.row() for name, figure in part.run(s).items()}}
  except Exception as error:
    traceback.print_exc()
    found |= {'state': 'failed', 'why': ' '.join(f'{type(error).__name__}: {error}'.split())[:300]}
  pipe.send(found)


def device() -> dict:
  """What the first device is."""
  first = jax.devices()[0]
  limit = (first.memory_stats() or {}).get('bytes_limit')  # a CPU does not tell
  return {
    'kind': first.device_kind,
    'platform': first.platform,
    'devices': jax.device_count(),
    'memory_bytes': limit,
  }


def beside(part: Part, found: dict, earlier: dict) -> dict:
  """With its step compared with that of its fallback too, where both were measured."""
  theirs = earlier.get(part.fallback, {}).get('figures')
  if theirs is None or 'figures' not in found:
    return found
  step = Figure(found['figures']['step']['value'], 's', part.fallback, theirs['step']['value'])
  return found | {'figures': found['figures'] | {f'step, by {part.fallback}': step.row()}}


def line(found: dict) -> str:
  """A part in one line."""
  if found['state'] != 'measured':
    return f'{found["state"]}: {found["why"]}'
  told = [f'{name} {amount(f["value"])} {f["unit"]}' for name, f in found['figures'].items() if f['value'] is not None]
  return f'{found["seconds"]:.0f} s; {", ".join(told)}'


def table(result: dict) -> str:
  """The result as Markdown."""
  on, parts = result['device'] or {'kind': 'no device', 'memory_bytes': None}, result['parts']
  room = '' if on['memory_bytes'] is None else f', {on["memory_bytes"] / 2**30:.1f} GiB'
  lines = [f'{on["kind"]}{room}, jax {result["jax"]}, {result["seconds"]:.0f} s', '']
  lines += ['| part | figure | value | compared with | its value | ratio |', '|---|---|---|---|---|---|']
  for name, found in parts.items():
    if found['state'] != 'measured':
      lines.append(f'| {name} | {line(found).replace("|", "/")} | | | | |')
    for figure, f in found.get('figures', {}).items():
      with_unit = lambda value, unit=f['unit']: '' if value is None else f'{amount(value)} {unit}'
      cells = (name, figure, with_unit(f['value']) or 'not told', f['against'], with_unit(f['reference']))
      lines.append(f'| {" | ".join(cells)} | {"" if f["ratio"] is None else amount(f["ratio"])} |')
  return '\n'.join([*lines, '', NOTES, ''])


def amount(value: float) -> str:
  """Four digits, or all of a large whole number."""
  return f'{value:,.4g}' if value < 1e4 else f'{value:,.0f}'


def write(out: pathlib.Path, result: dict) -> None:
  """Both files, whole. Raises CannotWrite."""
  for path, text in ((out, json.dumps(result, indent=2) + '\n'), (out.with_suffix('.md'), table(result))):
    with disk.atomic(path) as scratch:
      scratch.write_text(text, encoding='utf-8')


if __name__ == '__main__':
  run_app(main)
