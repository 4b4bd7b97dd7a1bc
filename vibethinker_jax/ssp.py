"""The Spectrum-to-Signal pipeline, stage by stage: each stage reads files of the workdir and leaves files in it.

  sft      domain experts' training, a checkpoint every k steps     -> sft/<run>/<step>/
  probe    Pass@K of every checkpoint on the probing halves         -> probe/<run>/<step>.json, experts.json
  fuse     weighted mean of the selected checkpoints                -> fused/
  rl       MGPO, stage after stage                                  -> rl/<stage>/<step>/, final/
  evaluate all models on the test sets                              -> evaluate/<model>.json, summary.json, report.html

Run again on the same workdir it goes on where it stopped, and ends with the same bits as a run never stopped.
"""

import contextlib
import dataclasses
import json
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from vibethinker_jax import provenance
from vibethinker_jax.config import (
  TINY_BASE,
  RunConfig,
  check,
  check_mesh,
  check_pages,
  computing,
  own_config,
  sft_runs,
)
from vibethinker_jax.data.augment import sft_examples
from vibethinker_jax.data.tokenizer import render
from vibethinker_jax.disk import writing
from vibethinker_jax.distributed import Stop, Stopped, share_work
from vibethinker_jax.engine.cache import KVCache
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import graded, samples
from vibethinker_jax.evaluate.graded import Graded
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.evaluate.report import write_report
from vibethinker_jax.evaluate.scores import by_domain
from vibethinker_jax.fields import bad_value
from vibethinker_jax.lock import held
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import eos_ids
from vibethinker_jax.model.mesh import make_mesh, own_mesh, place
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.run_data import RunData, load_run_data
from vibethinker_jax.spectrum.fusion import fuse
from vibethinker_jax.spectrum.passk import mean_pass_at_k
from vibethinker_jax.spectrum.select import select, told
from vibethinker_jax.train import rl, sft
from vibethinker_jax.train.metric_writer import MetricWriter, read_json, write_json, write_text
from vibethinker_jax.train.optim import optimizer
from vibethinker_jax.train.profile import Profile
from vibethinker_jax.train.state import Checkpoints
from vibethinker_jax.verify.grader import Grader
from vibethinker_jax.workdir import check_claim, claim

STAGES = ('sft', 'probe', 'fuse', 'rl', 'evaluate')


class Pipeline:
  """A run in a workdir. Each stage is a method that does what is not yet done; `run` calls them in order."""

  def __init__(
    self,
    settings: RunConfig,
    workdir: pathlib.Path,
    devices: Sequence[jax.Device] | None = None,
    profile: str = '',
    wandb: str = '',
  ):
    """`devices`: those of the mesh; None is all there are. Raises BadInput.

    `profile`: STAGE:STEP of the one step to be traced (train/profile.py); `wandb`: a project of Weights & Biases.
    """
    self.s, self.workdir = settings, pathlib.Path(workdir)
    self.mesh, found = _prepared(settings, devices)
    self.tokenizer, self.sets, self.rolled, self.left_out = found.tokenizer, found.sets, found.rolled, found.left_out
    check_claim(self.workdir, dataclasses.asdict(settings))
    self.writer = MetricWriter(self.workdir / 'metrics.jsonl', wandb)
    self.profile = Profile(profile, self.workdir)
    self._check_profile(profile)
    self.stop = Stop()
    for line in self.left_out:
      tqdm.write(line)

  def run(self, stages: tuple[str, ...] = STAGES) -> dict:
    """Carry out `stages`; the summary (as summary.json holds it) where the last one is among them, else {}.

    Raises Stopped where SIGTERM has come and everything is saved.
    """
    with self.claimed() as base:
      todo = {
        'sft': self.sft,
        'probe': lambda: self.probe(base),
        'fuse': lambda: self.fuse(base),
        'rl': lambda: self.rl(self.workdir / 'fused'),
        'evaluate': lambda: self.evaluate(base),
      }
      for stage in STAGES:
        if stage in stages:
          with self.timed(stage):
            todo[stage]()
          self.pause(f'stage {stage} is done')
    return read_json(self.workdir / 'summary.json') if 'evaluate' in stages else {}

  @contextlib.contextmanager
  def claimed(self) -> Iterator[Qwen2]:
    """The workdir, and what `computing` gives, as long as stages are carried out.

    Raises BadInput where another run is at work in the workdir, or it holds another run; CannotWrite.
    """
    with held(self.workdir), writing(self.workdir), self.computing() as base:
      provenance.check_data(self.workdir, self.sets.fingerprints)
      claim(self.workdir, dataclasses.asdict(self.s))
      provenance.record(self.workdir, self.sets.fingerprints)
      yield base

  @contextlib.contextmanager
  def computing(self) -> Iterator[Qwen2]:
    """Grader, engine and mesh.

    Yields the base without its weights, as what checkpoints are laid out like: training wants their memory.
    """
    mesh = jax.set_mesh(self.mesh) if self.mesh.size > 1 else contextlib.nullcontext()
    judges = self.s.grader
    with Grader(judges.workers, judges.deadline_s) as self.grader, self.stop, contextlib.closing(self.writer), mesh:
      base = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.base())
      # each process decodes its share of the samples with its own devices
      spread = own_mesh(self.mesh.local_devices)
      rows = self.s.engine
      own = lambda n: -(-n // jax.process_count())
      kernel = {'tpu': 'tpu', 'gpu': 'gpu'}.get(self.mesh.devices.flat[0].platform, 'xla')
      cache = PagedLayout(own(rows.pages), rows.page, kernel) if rows.pages else KVCache
      self.engine = Engine(base.config, self.stop_ids, own(rows.rows), rows.block, cache=cache, mesh=spread)
      yield base

  def _check_profile(self, asked: str) -> None:
    """Raises BadInput for a step that the run does not have."""
    stages = {f'sft/{run}': self.s.sft.steps for run in self.runs()}
    stages |= {f'rl/{stage.name}': stage.steps for stage in self.s.rl.stages}
    stage, _, step = asked.rpartition(':')
    if asked and not 1 <= int(step) <= stages.get(stage, 0):
      there = ', '.join(f'{name}:1 to {steps}' for name, steps in stages.items())
      raise BadInput(f'--profile {asked}: the run has no such step, expected one of {there}')

  def base(self) -> Qwen2:
    """The model the run starts from."""
    if self.s.model.random is None:
      return self.load(self.s.model.path or TINY_BASE)
    return self._ready(jax.jit(lambda key: Qwen2(self.s.model.random, key))(jax.random.key(self.s.seed)))

  def native_base(self) -> Qwen2:
    """The base with the rope of its own training, whatever the run computes with: what the other models are held to."""
    base = self.base()
    base.config = dataclasses.replace(base.config, rope_theta=own_config(self.s).rope_theta)
    return base

  @property
  def stop_ids(self) -> tuple[int, ...]:
    """Ids that end a response: the tokenizer's, and the base's own."""
    own = () if self.s.model.random is not None else eos_ids(self.s.model.path or TINY_BASE)
    return tuple(sorted({*self.tokenizer.stop_ids, *own}))

  @property
  def base_seed(self) -> int:
    """The seed of orders and samples. Epochs and stages add to it, so those of neighbouring runs lie far apart."""
    return 1_000_000 * self.s.seed

  def sft(self) -> None:
    """Train the experts' runs, keeping a checkpoint every k steps."""
    for name, domains in self.runs().items():
      problems = [problem for domain in domains for problem in self.sets.train[domain]]
      rows, left_out = sft_examples(problems, self.s.data.spectrum, self._right, self._held, self.s.seed)
      if left_out:
        tqdm.write(f'sft/{name}: solutions left out: ' + ', '.join(f'{n} for {why}' for why, n in left_out.items()))
      if not rows:
        raise BadInput(f'config.data: no solution is left that sft/{name} could learn from')
      tqdm.write(f'sft/{name}: {self._passes(rows):.1f} passes through {len(rows)} solutions')
      sft.run(
        self.s.sft,
        f'sft/{name}',
        self.base(),
        rows,
        self.tokenizer,
        self.workdir / 'sft' / name,
        self.writer,
        self.base_seed,
        self.stop,
        self.profile,
      )

  def _passes(self, rows: Sequence) -> float:
    """About how often SFT meets each of `rows`, by the length of some."""
    s = self.s.sft
    some = rows[:: -(-len(rows) // 200)]
    mean = sum(len(render(self.tokenizer, *row)['tokens']) for row in some) / len(some)
    return s.steps * s.accumulation * s.rows * s.length / (mean * len(rows))

  def probe(self, base: Qwen2) -> None:
    """Pass@K of every checkpoint on half A, the expert of each domain by argmax, and its Pass@K on half B."""
    k, experts = self.s.probe.k, {}
    chosen = self.chosen_by(base, k)
    for name, domains in self._probed().items():
      curves = self._curves(base, name, domains)
      held = {
        step: self._probe(base, name, step, 'b', {d: self.sets.probe_b[d] for d in domains if chosen[d][1] == step})
        for step in sorted({chosen[d][1] for d in domains})
      }
      for domain in domains:
        step = chosen[domain][1]
        scores = [mean_pass_at_k(row[domain], k) for row in curves.values()]
        experts[domain] = {
          'run': name,
          'steps': list(curves),
          'pass_at_k': scores,
          'k': k,
          'selected_step': step,
          'held_out': mean_pass_at_k(held[step][domain], k),
          'signal': told(scores),
        }
        tqdm.write(
          f'expert for {domain}: step {step}, Pass@{k} {max(scores):.3f} where chosen, '
          f'{experts[domain]["held_out"]:.3f} held out'
        )
        if not told(scores):
          same = f'all {len(scores)} checkpoints have Pass@{k} {scores[0]:.3f}'
          tqdm.write(f'WARNING expert for {domain}: cannot be told, {same}; the last one is taken')
    write_json(self.workdir / 'experts.json', {d: experts[d] for d in self.s.data.domains})
    if self.s.prune:
      self.prune()

  def prune(self) -> None:
    """Delete the SFT checkpoints that neither fusion nor evaluation reads: not chosen, not spaced, not the last."""
    experts = read_json(self.workdir / 'experts.json')
    read = {*self.last(), *self.spaced(), *((e['run'], e['selected_step']) for e in experts.values())}
    for run in self.runs():
      with contextlib.closing(Checkpoints(self.workdir / 'sft' / run)) as checkpoints:
        checkpoints.delete([step for step in checkpoints.steps() if (run, step) not in read])

  def chosen_by(self, base: Qwen2, k: int) -> dict[str, tuple[str, int]]:
    """The checkpoint (run, step) of each domain with the best Pass@k on half A."""
    chosen = {}
    for name, domains in self._probed().items():
      curves = self._curves(base, name, domains)
      steps = select({step: {d: mean_pass_at_k(v, k) for d, v in row.items()} for step, row in curves.items()})
      chosen |= {domain: (name, step) for domain, step in steps.items()}
    return {domain: chosen[domain] for domain in self.s.data.domains}

  def fuse(self, base: Qwen2) -> None:
    """The weighted mean of the selected checkpoints, as a Hugging Face directory."""
    if not (self.workdir / 'fused').exists():
      self.save(self._fused(base), self.workdir / 'fused')

  def rl(self, begin: pathlib.Path) -> None:
    """MGPO through its stages, from the model of directory `begin` to final/."""
    s, models = self.s, [self.load(begin)]
    seed = self.base_seed + 10_000 * s.rl.seed
    trainer = rl.Trainer(
      s.rl, s.mgpo, self.tokenizer, self.engine, self.grader, self.writer, seed, self.stop, self.profile
    )
    for number, stage in enumerate(s.rl.stages):
      # handed over, not held: two models and an optimizer's state are more than a device has to have
      problems, folder = self.rolled[stage.name], self.workdir / 'rl' / stage.name
      models.append(trainer.run(number, models.pop(), problems, folder).model)
    if not (self.workdir / 'final').exists():
      self.save(models.pop(), self.workdir / 'final')

  def evaluate(self, base: Qwen2) -> None:
    """Every model of the run on the test sets; summary.json and report.html."""
    experts = read_json(self.workdir / 'experts.json')
    named = {
      'base': self.native_base,
      'last': lambda: self.mean_of(base, self.last()),
      'uniform': lambda: self.mean_of(base, self.spaced()),
    }
    for domain, expert in experts.items():
      named[f'expert_{domain}'] = lambda e=expert: self.mean_of(base, [(e['run'], e['selected_step'])])
    named['fused'] = lambda: self.load(self.workdir / 'fused')
    named['rl'] = lambda: self.load(self.workdir / 'final')
    # a checkpoint chosen for several domains is one model: it is evaluated once
    same = {}
    for domain, expert in experts.items():
      same[f'expert_{domain}'] = (expert['run'], expert['selected_step'])
    if len(self.runs()) == 1:
      same['last'] = next((run, self.steps(run)[-1]) for run in self.runs())
    done: dict = {}
    for name, load in named.items():
      key = same.get(name, name)
      if key not in done:
        done[key] = self.evaluate_model(name, load)
    models = {name: done[same.get(name, name)] for name in named}
    self._summarise(models, experts)
    if jax.process_index() == 0:
      print(f'report: {write_report(self.workdir)}')

  def pause(self, done: str) -> None:
    """Raises Stopped where SIGTERM has come."""
    if self.stop():
      raise Stopped(done)

  def _probed(self) -> dict[str, list[str]]:
    """The domains each run has an expert of."""
    return {run: [d for d in domains if d in self.s.data.domains] for run, domains in self.runs().items()}

  def _curves(self, base: Qwen2, run: str, domains: Sequence[str]) -> dict[int, dict[str, np.ndarray]]:
    """Verdicts [P,N] of every checkpoint of a run on half A, by step and domain."""
    sets = {d: self.sets.probe_a[d] for d in domains}
    return {step: self._probe(base, run, step, 'a', sets) for step in self.steps(run)}

  # ---- models -------------------------------------------------------------------------------------------------------

  def load(self, directory: pathlib.Path) -> Qwen2:
    """The model of a Hugging Face directory, with the run's way of computing."""
    return self._ready(hf.load(directory, self.s.model.param_dtype, self.mesh if self.mesh.size > 1 else None))

  def _ready(self, model: Qwen2) -> Qwen2:
    """The model with the run's way of computing, on the run's mesh."""
    check_mesh(self.s, model.config)
    model.config = computing(model.config, self.s.model)
    model = jax.tree.map(lambda x: x.astype(self.s.model.param_dtype), model)
    return place(model, self.mesh) if self.mesh.size > 1 else model

  def save(self, model: Qwen2, directory: pathlib.Path) -> None:
    """The model as a Hugging Face directory with the run's tokenizer."""
    source = self.s.model.tokenizer or self.s.model.path or TINY_BASE
    with writing(directory):
      hf.save(model, directory, source, self.stop_ids)

  def runs(self) -> dict[str, tuple[str, ...]]:
    """SFT runs and the domains each trains on."""
    return sft_runs(self.s)

  def steps(self, run: str) -> list[int]:
    """Steps at which the run is to have checkpoints."""
    steps, every = self.s.sft.steps, self.s.sft.save_every
    return sorted({*range(every, steps + 1, every), steps})

  def last(self) -> list[tuple[str, int]]:
    """The last checkpoint of every run."""
    return [(run, self.steps(run)[-1]) for run in self.runs()]

  def spaced(self) -> list[tuple[str, int]]:
    """As many equally spaced checkpoints as there are experts, of every run."""
    n = len(self.s.data.domains)
    out = []
    for run in self.runs():
      steps = self.steps(run)
      out += [(run, steps[-(-(i + 1) * len(steps) // n) - 1]) for i in range(n)]
    return out

  def mean_of(self, base: Qwen2, chosen: list[tuple[str, int]]) -> Qwen2:
    """The plain mean of checkpoints (run, step)."""
    return self.weighted_mean(base, chosen, [1 / len(chosen)] * len(chosen))

  def _fused(self, base: Qwen2) -> Qwen2:
    experts = read_json(self.workdir / 'experts.json')
    weights = self.s.fusion.weights or [1 / len(experts)] * len(experts)
    return self.weighted_mean(base, [(e['run'], e['selected_step']) for e in experts.values()], weights)

  def weighted_mean(self, base: Qwen2, chosen: list[tuple[str, int]], weights: Sequence[float]) -> Qwen2:
    """The weighted mean of checkpoints (run, step)."""
    return fuse([self.checkpoint(base, run, step) for run, step in chosen], weights)

  def checkpoint(self, base: Qwen2, run: str, step: int) -> Qwen2:
    """The model of an SFT run after `step` steps."""
    with contextlib.closing(Checkpoints(self.workdir / 'sft' / run)) as checkpoints:
      return checkpoints.model(base, optimizer(self.s.sft.optim, self.s.sft.steps), step)

  # ---- judging ------------------------------------------------------------------------------------------------------

  def _right(self, answers: list[tuple]) -> list[bool]:
    """The grader's yes or no to (response, answer, tests)."""
    return [verdict.score == 1 for verdict in share_work(answers, self.grader.grade)]

  def _held(self, answers: list[tuple]) -> list[float | None]:
    """Grader.steps of (response, answer, tests)."""
    return share_work(answers, self.grader.steps)

  def sample_and_grade(
    self, protocol: Protocol, model: Qwen2, sets: dict, what: str, result: pathlib.Path | None = None
  ) -> dict[str, Graded]:
    """The model on problems by domain. The samples are kept beside `result` until `write_asked` has written it."""
    seed, stop = self.base_seed + 1000, self.stop.asked
    return graded.sample_and_grade(
      protocol, self.engine, model, self.tokenizer, sets, self.grader, seed, result, what, stop
    )

  def _probe(self, base: Qwen2, run: str, step: int, half: str, sets: dict) -> dict[str, np.ndarray]:
    path = self.workdir / 'probe' / run / f'{step}-{half}.json'
    if not path.exists():
      self.pause(f'probing {run} at step {step} is next')
      model, what = self.mean_of(base, [(run, step)]), f'probe {run} {step}{half}'
      write_asked(path, self.sample_and_grade(self.s.probe, model, sets, what, path))
    return {d: np.array(v, bool) for d, v in read_json(path)['correct'].items()}

  def evaluate_model(self, name: str, load: Callable[[], Qwen2]) -> dict:
    """A model on the test sets, as evaluate/<name>.json holds it."""
    path = self.workdir / 'evaluate' / f'{name}.json'
    if not path.exists():
      write_asked(path, self.sample_and_grade(self.s.evaluate, load(), self.sets.test, f'evaluate {name}', path))
    return read_json(path)

  def _summarise(self, models: dict, experts: dict) -> None:
    s = self.s
    rl_tokens = {
      stage.name: sum(row['tokens'] for row in self.writer.rows(f'rl/{stage.name}')) for stage in s.rl.stages
    }
    asked = lambda folder: sum(read_json(p)['tokens'] for p in sorted((self.workdir / folder).rglob('*.json')))
    seconds = read_json(self.workdir / 'seconds.json')
    # this stage is not over; what is left of it is the page
    seconds = {**seconds, 'evaluate': seconds.get('evaluate', 0.0) + time.perf_counter() - self._since}
    hours = sum(seconds.values()) / 3600 * s.cost.devices
    device = jax.devices()[0]
    verdicts = lambda model: {d: np.array(v, bool) for d, v in model['correct'].items()}
    summary = {
      'models': {name: by_domain(verdicts(m), s.evaluate.k, s.data.domains) for name, m in models.items()},
      'experts': experts,
      'left_out': list(self.left_out),
      'mgpo': {
        'lambda': s.mgpo.lam,
        'p0': s.mgpo.p0,
        'stages': [{**dataclasses.asdict(stage), 'tokens': rl_tokens[stage.name]} for stage in s.rl.stages],
      },
      'seconds': seconds,
      'tokens': {
        'sft': len(self.runs()) * s.sft.steps * s.sft.accumulation * s.sft.rows * s.sft.length,
        'probe': asked('probe'),
        'rl': sum(rl_tokens.values()),
        'evaluate': asked('evaluate'),
      },
      'cost': {
        'device_hours': hours,
        'price_per_hour': s.cost.price_per_hour,
        'dollars': hours * s.cost.price_per_hour,
      },
      'device': {'platform': device.platform, 'kind': device.device_kind, 'count': jax.device_count()},
      'versions': {'python': platform.python_version(), 'jax': jax.__version__},
    }
    write_json(self.workdir / 'summary.json', summary)
    shown = [
      {'model': name, **row}
      for name in ('base', 'fused', 'rl')
      for row in read_json(self.workdir / 'evaluate' / f'{name}.json')['samples']
    ]
    write_text(self.workdir / 'samples.jsonl', ''.join(json.dumps(row) + '\n' for row in shown))

  @contextlib.contextmanager
  def timed(self, stage: str) -> Iterator[None]:
    """Adds the seconds spent to seconds.json, over restarts. An error is raised at once: the others may not be here."""
    self._since = time.perf_counter()
    try:
      yield
    except (Stopped, KeyboardInterrupt):
      self._spent(stage)
      raise
    self._spent(stage)

  def _spent(self, stage: str) -> None:
    path = self.workdir / 'seconds.json'
    seconds = read_json(path) if path.exists() else {}
    write_json(path, {**seconds, stage: seconds.get(stage, 0.0) + time.perf_counter() - self._since})


def ready(s: RunConfig, devices: Sequence[jax.Device] | None = None) -> None:
  """Raises BadInput for what a Pipeline of these settings would refuse, and leaves nothing behind."""
  _prepared(s, devices)


def _prepared(s: RunConfig, devices: Sequence[jax.Device] | None) -> tuple[Mesh, RunData]:
  """The mesh and what the run works on. Raises BadInput, for what needs no device before any is looked for."""
  check(s)
  try:
    mesh = make_mesh(s.mesh, devices)
  except ValueError as error:
    raise BadInput(f'config.mesh: {error}') from None
  platform = mesh.devices.flat[0].platform
  if (wants := {'splash': 'tpu', 'triton': 'gpu'}.get(s.model.attention, platform)) != platform:
    raise bad_value('config.model.attention', s.model.attention, f"'xla' on a {platform}: that kernel wants a {wants}")
  found = load_run_data(s)
  check_pages(s, computing(own_config(s), s.model), jax.process_count(), len(mesh.local_devices))
  return mesh, found


def write_asked(path: pathlib.Path, asked: dict[str, Graded]) -> None:
  """Verdicts of every sample, and the first sample of each problem in full; the samples beside `path` are deleted."""
  first = [
    {
      'domain': domain,
      'id': problem.id,
      'prompt': problem.prompt,
      'response': rolled.responses[i][0],
      'answer': problem.answer if problem.tests is None else 'tests',
      'score': rolled.verdicts[i][0].score,
      'extracted': rolled.verdicts[i][0].extracted,
      'reason': rolled.verdicts[i][0].reason,
    }
    for domain, rolled in asked.items()
    for i, problem in enumerate(rolled.problems)
  ]
  write_json(
    path,
    {
      'correct': {domain: rolled.correct.astype(int).tolist() for domain, rolled in asked.items()},
      'lengths': {domain: rolled.lengths.mean(1).tolist() for domain, rolled in asked.items()},
      'tokens': int(sum(rolled.lengths.sum() for rolled in asked.values())),
      'truncated': float(np.mean([rolled.truncated.mean() for rolled in asked.values()])),
      'samples': first,
    },
  )
  samples.discard(path)
