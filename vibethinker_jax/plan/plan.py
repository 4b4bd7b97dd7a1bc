"""Whether a run fits a machine and what it costs, before the machine is rented.

A plan goes through the stages of a config (SFT, the RL updates, prefill, decoding) on a machine such as `v5e:4x4` or
`a100:8`. For a TPU slice each stage is compiled by the TPU's compiler, which needs libtpu but no TPU, and the memory is
the compiler's own figure. For GPUs and CPUs each stage is traced and lowered, which finds shapes and shardings that do
not fit together, and the memory is estimated by `formulas.memory`.
"""

import dataclasses
import math
import pathlib

from vibethinker_jax.config import RunConfig, check_mesh, computing, on_devices
from vibethinker_jax.plan.fit import fitted, smallest, stage_seconds, suggestion
from vibethinker_jax.plan.formulas import memory, resident, roofline, traffic, work
from vibethinker_jax.plan.machine import KERNELS, Machine
from vibethinker_jax.plan.program import check_lowered, compiled
from vibethinker_jax.plan.stage import StagePlan, model_of, stages_of

RESERVED = 0.03  # share of a device's memory for the runtime and for fragmentation


def plan(s: RunConfig, on: Machine, cache: pathlib.Path | None) -> dict:
  """The whole report, as JSON.

  Args:
    s: the config; if it is for another machine (number of devices, attention kernel) it is first fitted to this one.
    on: the machine.
    cache: folder in which the results of compilations are kept; None: do not compile, use the memory model alone, which
      takes seconds.

  Raises:
    BadInput: the config cannot run on the machine.
  """
  s = on_devices(s, on.devices)
  c = model_of(s)
  elsewhere = s.model.attention not in ('xla', KERNELS[on.chip.platform])
  chosen = elsewhere or math.prod(dataclasses.astuple(s.mesh)) != on.devices
  if chosen:
    better = fitted(s, c, on)
    s = smallest(s, c, on) if better is None else better  # if nothing fits, report by how much
  check_mesh(s, c)
  c = computing(c, s.model)
  limit = (1 - RESERVED) * on.chip.memory
  report = {stage.name: _report(stage, s, on, limit, cache) for stage in stages_of(s, c)}
  seconds = stage_seconds(s, c, on, {name: row['sent_bytes'] for name, row in report.items()})
  hours = {name: value / s.plan.utilization * on.devices / 3600 for name, value in seconds.items()}
  price = s.plan.prices.get(on.name, s.cost.price_per_hour)
  worst = max(report, key=lambda name: report[name]['bytes_per_device'])
  fits = all(row['fits'] for row in report.values())
  share = report[worst]['bytes_per_device'] / report[worst]['hbm_per_device']
  return {
    'topology': on.topology,
    'devices': on.devices,
    'fits': fits,
    'limit': f'memory, in {worst}: {share:.0%} of what one {on.name} has',
    'mesh': dataclasses.asdict(s.mesh),
    'mesh_chosen': chosen,
    'attention': s.model.attention,
    'remat': s.model.remat,
    'stages': report,
    'run': {
      'utilization': s.plan.utilization,
      'response_tokens': s.plan.response,
      'device_hours': {**hours, 'all': sum(hours.values())},
      'price_per_hour': price,
      'dollars': sum(hours.values()) * price,
    },
    'would_fit': None if fits else suggestion(s, c, on),
  }


def _report(stage: StagePlan, s: RunConfig, on: Machine, limit: float, cache: pathlib.Path | None) -> dict:
  kl = s.mgpo.kl_coef > 0
  parts = memory(stage)
  modelled = sum(parts.values())
  found, by = {'bytes': modelled, 'sent': None}, 'memory model'
  if modelled > 1.5 * on.chip.memory:
    cache = None  # it cannot fit, and the compiler would need minutes to find that out
  if cache is not None and on.chip.platform == 'tpu':
    found, by = compiled(stage, s, on, cache), 'compiler'
  elif cache is not None:
    check_lowered(stage, s, on)
  total = found['bytes'] + resident(stage, kl)
  sent = traffic(stage) if found['sent'] is None else found['sent']
  seconds = roofline(stage, on, sent)
  flops, with_recomputation, _ = work(stage)
  return {
    'fits': total <= limit,
    'bytes_per_device': int(total),
    'hbm_per_device': int(on.chip.memory),
    'by': by,
    'bytes_by_model': int(modelled + resident(stage, kl)),
    'parts_by_model': {name: int(size) for name, size in parts.items()},
    'rows': stage.rows,
    'length': stage.length,
    'accumulation': s.sft.accumulation if stage.kind == 'sft' else None,
    'flops': flops,
    'flops_with_recomputation': with_recomputation,
    'sent_bytes': sent,
    'sent_by': 'formula' if found['sent'] is None else 'compiler',
    'sent_bytes_by_formula': traffic(stage),
    'seconds': max(seconds.values()),
    'bound': max(seconds, key=seconds.get),
    'tokens_per_s': stage.rows * (1 if stage.kind == 'decode' else stage.length) / max(seconds.values()),
  }


def table(report: dict) -> str:
  """The report as text."""
  mesh = ', '.join(f'{axis} {n}' for axis, n in report['mesh'].items() if n > 1) or 'one device'
  lines = [
    f'{report["topology"]}, {_devices(report["devices"])}; mesh: {mesh}'
    + (' (chosen for this machine)' if report['mesh_chosen'] else '')
    + f'; attention: {report["attention"]}; remat: {report["remat"]}',
    '',
    f'{"stage":16}{"rows x length":>16}{"GiB":>8}{"of":>6}  {"by":13}{"TFLOP":>8}{"GB sent":>9}{"seconds":>9}'
    f'  {"bound":9}{"tokens/s":>11}',
  ]
  for name, row in report['stages'].items():
    lines.append(
      f'{name:16}{row["rows"]:>7} x {row["length"]:<6}{row["bytes_per_device"] / 2**30:>8.2f}'
      f'{row["hbm_per_device"] / 2**30:>6.0f}  {row["by"]:13}{row["flops"] / 1e12:>8.1f}{row["sent_bytes"] / 1e9:>9.2f}'
      f'{row["seconds"]:>9.3f}  {row["bound"]:9}{row["tokens_per_s"]:>11,.0f}'
      + ('' if row['fits'] else '  DOES NOT FIT')
    )
  lines.append('')
  run = report['run']
  hours = ', '.join(f'{name} {_amount(value)}' for name, value in run['device_hours'].items() if name != 'all')
  lines.append(
    f'the run at {run["utilization"]:.0%} of the roofline, responses of {run["response_tokens"]:,} tokens: '
    f'{_amount(run["device_hours"]["all"])} device-hours ({hours}), ${_amount(run["dollars"])} at '
    f'${run["price_per_hour"]:g}'
  )
  lines.append(f'{"fits" if report["fits"] else "does not fit"}; the binding limit: {report["limit"]}')
  if not report['fits']:
    lines.append('would fit: ' + (_in_words(report['would_fit']) if report['would_fit'] else 'nothing that was tried'))
  return '\n'.join(lines)


def _devices(n: int) -> str:
  return f'{n} device{"s" if n > 1 else ""}'


def _amount(value: float) -> str:
  """A number as text: whole if 10 or more, else with two digits, so that a run of minutes does not take 0 hours."""
  return f'{value:,.0f}' if value >= 10 else f'{value:.2g}'


def _in_words(suggestion: dict) -> str:
  mesh = ', '.join(f'{axis} {n}' for axis, n in suggestion['mesh'].items() if n > 1) or 'one device'
  return (
    f'{_devices(suggestion["devices"])} with the mesh {mesh}; sft.rows {suggestion["sft"]["rows"]}, sft.accumulation '
    f'{suggestion["sft"]["accumulation"]}, rl.micro_rows {suggestion["rl"]["micro_rows"]}, engine.rows '
    f'{suggestion["engine"]["rows"]}'
  )
