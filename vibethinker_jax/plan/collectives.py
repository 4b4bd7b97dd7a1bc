"""The bytes that a compiled program sends between devices, counted in its text (HLO as XLA prints it)."""

import math
import re
from collections.abc import Iterator


def sent_bytes(hlo: str) -> float:
  """Bytes that one device sends in one call of a compiled program.

  They are counted as in `formulas.traffic`; the body of a loop counts once for every iteration.
  """
  total = 0.0
  for kind, size, devices, times in _collectives(hlo):
    per_byte = {'all-reduce': 2, 'reduce-scatter': devices}.get(kind, 1) * (devices - 1) / devices
    total += times * size * (1 if kind == 'collective-permute' else per_byte)
  return total


def _collectives(hlo: str) -> Iterator[tuple[str, int, int, int]]:
  """(kind, bytes of the result, devices of a group, number of executions) of every collective of a program."""
  blocks: dict[str, list[str]] = {}
  name = entry = ''
  for line in hlo.splitlines():
    if begins := re.match(r'(ENTRY )?%([\w.\-]+) \(.*\{$', line):
      name = begins[2]
      entry, blocks[name] = name if begins[1] else entry, []
    elif name:
      blocks[name].append(line)
  times, todo = {entry: 1}, [entry]
  while todo:
    block = todo.pop()
    for line in blocks[block]:
      turns = 1
      if loop := re.search(r' while\(.*condition=%([\w.\-]+)', line):
        bounds = [int(n) for text in blocks[loop[1]] for n in re.findall(r'constant\((\d+)\)', text)]
        turns = max(bounds, default=1)
      for called in re.findall(r'(?:calls|to_apply|body)=%([\w.\-]+)', line):
        if times[block] * turns > times.get(called, 0):
          times[called] = times[block] * turns
          todo.append(called)
  found = {}
  for block in times:
    for line in blocks[block]:
      call = re.search(r'= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\(', line)
      if call:
        # a collective that overlaps with other work is printed several times, always with the same channel
        channel = re.search(r'channel_id=(\d+)', line)
        key = channel[1] if channel else line
        found[key] = max(found.get(key, (0,)), (times[block], call[2], _bytes(call[1]), _group(line)))
  for turns, kind, size, devices in found.values():
    yield kind, size, devices, turns


def _bytes(shapes: str) -> int:
  width = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4}
  arrays = re.findall(r'(pred|[a-z]+\d+)\[([\d,]*)\]', shapes)
  return sum(width[kind] * math.prod(int(n) for n in dims.split(',') if n) for kind, dims in arrays)


def _group(line: str) -> int:
  """How many devices take part. XLA prints groups as axes of a mesh, as lists, or as rows of an array."""
  if axes := re.search(r'replica_groups=mesh\[(.*?)\].*? \{(.*?)\}', line):
    size = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
    return math.prod(int(size[axis]) for axis in re.findall(r"'(\w+)'", axes[2]))
  if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', line):
    return len(listed[1].split(','))
  rows = re.search(r'replica_groups=\[\d+,(\d+)\]', line)
  return int(rows[1]) if rows else 2
