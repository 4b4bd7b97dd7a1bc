"""The Spectrum-to-Signal pipeline. Each stage reads files of the workdir and writes files to it.

  sft       trains the SFT runs, with a checkpoint every k steps   -> sft/<run>/<step>/
  probe     Pass@K of every checkpoint; chooses the experts        -> probe/<run>/<step>-<half>.json, experts.json
  fuse      the weighted mean of the experts                       -> fused/
  rl        MGPO, one RL stage after another                       -> rl/<stage>/<step>/, final/
  evaluate  all models on the test problems                        -> evaluate/<model>.json, summary.json, report.html

A run that is started again on its workdir continues, and ends with the same bits as a run without interruption.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from vibethinker_jax.config import TINY_BASE, RunConfig, base_seed, check_mesh, computing, own_config
from vibethinker_jax.data.augment import sft_examples
from vibethinker_jax.data.problem import Problem
from vibethinker_jax.data.tokenizer import render
from vibethinker_jax.disk import writing
from vibethinker_jax.distributed import Stop, Stopped, share_work
from vibethinker_jax.engine.cache import KVCache
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.pages import PagedLayout
from vibethinker_jax.errors import BadInput
from vibethinker_jax.evaluate import graded
from vibethinker_jax.evaluate.graded import Graded
from vibethinker_jax.evaluate.protocol import Protocol
from vibethinker_jax.evaluate.report import write_report
from vibethinker_jax.experts import Checkpoint, Experts
from vibethinker_jax.model import hf
from vibethinker_jax.model.config import eos_ids
from vibethinker_jax.model.mesh import own_mesh, place
from vibethinker_jax.model.qwen2 import Qwen2
from vibethinker_jax.run_data import load_run_data
from vibethinker_jax.run_summary import verdicts, write_summary, write_verdicts
from vibethinker_jax.shared_files import read_json, write_json
from vibethinker_jax.spectrum.passk import mean_pass_at_k
from vibethinker_jax.spectrum.select import has_signal
from vibethinker_jax.train import rl, sft
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.profile import Profile
from vibethinker_jax.verify.grader import Grader
from vibethinker_jax.workdir import check_claim, claimed, seconds_of, timed

STAGES = ('sft', 'probe', 'fuse', 'rl', 'evaluate')


class Pipeline:
  """A run in a workdir. Each stage is a method that does what is still to do; `run` calls them in order.

  A stage that is called by itself needs the workdir: `with pipeline.claimed(): pipeline.probe()`.
  """

  def __init__(
    self,
    settings: RunConfig,
    workdir: pathlib.Path,
    devices: Sequence[jax.Device] | None = None,
    profile: str = '',
    wandb: str = '',
  ):
    """Checks the config, reads tokenizer and problems, and writes nothing.

    Args:
      settings: the run's config.
      workdir: the run's directory, new or to be continued.
      devices: the devices of the mesh; None: all.
      profile: STAGE:STEP, the one step to trace (train/profile.py); '': none.
      wandb: a project of Weights & Biases for the metrics; '': none.

    Raises:
      BadInput: the config cannot be used on these devices, or with its files, or in this workdir.
    """
    found = load_run_data(settings, devices)
    settings, self.mesh, self.tokenizer, self.sets = found.settings, found.mesh, found.tokenizer, found.sets
    self.s, self.workdir = settings, pathlib.Path(workdir)
    self.rolled, self.left_out = found.rolled, found.left_out
    check_claim(self.workdir, dataclasses.asdict(settings))
    self.seed = base_seed(settings.seed)
    self.experts = Experts(settings, self.workdir, self.mesh)
    self.grader = Grader(settings.grader.workers, settings.grader.deadline_s)
    self.engine = _engine(settings, self.mesh, self.stop_ids, self.tokenizer.size)
    self.writer = MetricWriter(self.workdir / 'metrics.jsonl', wandb)
    self.profile = Profile(profile, self.workdir)
    self._check_profile(profile)
    self.stop = Stop()
    for line in self.left_out:
      tqdm.write(line)

  def run(self, stages: tuple[str, ...] = STAGES) -> dict:
    """Carry out `stages`, in the order of STAGES.

    Returns the content of summary.json where 'evaluate' is among them, else {}. Raises Stopped after SIGTERM, when
    everything is saved.
    """
    todo = {
      'sft': self.sft,
      'probe': self.probe,
      'fuse': self.fuse,
      'rl': lambda: self.rl(self.workdir / 'fused'),
      'evaluate': self.evaluate,
    }
    with self.claimed():
      for stage in STAGES:
        if stage in stages:
          with timed(self.workdir, stage):
            todo[stage]()
          self.pause(f'stage {stage} is done')
    return read_json(self.workdir / 'summary.json') if 'evaluate' in stages else {}

  @contextlib.contextmanager
  def claimed(self) -> Iterator[None]:
    """The workdir belongs to this run within the block, and its stages can be called.

    Raises BadInput where another run is at work in the workdir, or where it holds another run; CannotWrite.
    """
    with claimed(self.workdir, dataclasses.asdict(self.s), self.sets.fingerprints), self.computing():
      yield

  @contextlib.contextmanager
  def computing(self) -> Iterator[None]:
    """The mesh is set, SIGTERM is caught, and the grader may start workers, within the block; no file is claimed."""
    mesh = jax.set_mesh(self.mesh) if self.mesh.size > 1 else contextlib.nullcontext()
    with self.grader, self.stop, contextlib.closing(self.writer), mesh:
      yield

  def pause(self, done: str) -> None:
    """Raises Stopped, with the message `done`, after SIGTERM."""
    if self.stop():
      raise Stopped(done)

  # ---- stages -------------------------------------------------------------------------------------------------------

  def sft(self) -> None:
    """Train the SFT runs, and keep a checkpoint every k steps."""
    right = lambda answers: [verdict.score == 1 for verdict in share_work(answers, self.grader.grade)]
    steps = lambda answers: share_work(answers, self.grader.steps)
    for name, domains in self.experts.runs().items():
      problems = [problem for domain in domains for problem in self.sets.train[domain]]
      rows, left_out = sft_examples(problems, self.s.data.spectrum, right, steps, self.s.seed)
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
        self.seed,
        self.stop,
        self.profile,
      )

  def probe(self) -> None:
    """Choose the expert of each domain: the checkpoint with the highest Pass@K on probing half A.

    Its Pass@K is measured again on half B: the maximum of noisy scores is too high. Writes experts.json.
    """
    k, found = self.s.probe.k, {}
    curves = self._curves()
    chosen = self.experts.best(curves, k)
    for run, domains in self.experts.probed().items():
      held_out = {
        step: self._probe(run, step, 'b', {d: self.sets.probe_b[d] for d in domains if chosen[d][1] == step})
        for step in sorted({chosen[d][1] for d in domains})
      }
      for domain in domains:
        step = chosen[domain][1]
        scores = [mean_pass_at_k(row[domain], k) for row in curves[run].values()]
        found[domain] = {
          'run': run,
          'steps': list(curves[run]),
          'pass_at_k': scores,
          'k': k,
          'selected_step': step,
          'held_out': mean_pass_at_k(held_out[step][domain], k),
          'signal': has_signal(scores),
        }
        tqdm.write(
          f'expert for {domain}: step {step}, Pass@{k} {max(scores):.3f} where chosen, '
          f'{found[domain]["held_out"]:.3f} held out'
        )
        if not has_signal(scores):
          same = f'all {len(scores)} checkpoints have Pass@{k} {scores[0]:.3f}'
          tqdm.write(f'WARNING expert for {domain}: no signal, {same}; the last one is used')
    write_json(self.workdir / 'experts.json', {d: found[d] for d in self.s.data.domains})
    if self.s.prune:
      self.experts.prune()

  def fuse(self) -> None:
    """Write the weighted mean of the experts as a Hugging Face directory, fused/."""
    if not (self.workdir / 'fused').exists():
      self.save(self.experts.fused(), self.workdir / 'fused')

  def rl(self, begin: pathlib.Path) -> None:
    """Train the model of the directory `begin` through all RL stages, and write it to final/."""
    s, models = self.s, [self.load(begin)]
    trainer = rl.Trainer(
      s.rl,
      s.mgpo,
      self.tokenizer,
      self.engine,
      self.grader,
      self.writer,
      self.seed + 10_000 * s.rl.seed,
      self.stop,
      self.profile,
    )
    for number, stage in enumerate(s.rl.stages):
      # popped, so that no second model is in memory beside the one that is trained
      problems, folder = self.rolled[stage.name], self.workdir / 'rl' / stage.name
      models.append(trainer.run(number, models.pop(), problems, folder).model)
    if not (self.workdir / 'final').exists():
      self.save(models.pop(), self.workdir / 'final')

  def evaluate(self) -> None:
    """Evaluate every model of the run on the test problems; write summary.json and report.html."""
    began = time.perf_counter()
    models, results = {}, {}
    for name, (made_of, load) in self._models().items():
      if made_of not in results:
        results[made_of] = self.evaluate_model(name, load)
      models[name] = results[made_of]
    seconds = seconds_of(self.workdir)
    seconds['evaluate'] = seconds.get('evaluate', 0.0) + time.perf_counter() - began  # only the page is still to come
    tokens = {t.name: sum(row['tokens'] for row in self.writer.rows(f'rl/{t.name}')) for t in self.s.rl.stages}
    write_summary(self.workdir, self.s, models, self.left_out, tokens, seconds)
    if jax.process_index() == 0:
      print(f'report: {write_report(self.workdir)}')

  # ---- models -------------------------------------------------------------------------------------------------------

  def base(self) -> Qwen2:
    """The model that the run starts from."""
    if self.s.model.random is None:
      return self.load(self.s.model.path or TINY_BASE)
    return self._ready(jax.jit(lambda key: Qwen2(self.s.model.random, key))(jax.random.key(self.s.seed)))

  def native_base(self) -> Qwen2:
    """The base with the rope_theta that it was pretrained with: the model that the others are compared with."""
    base = self.base()
    base.config = dataclasses.replace(base.config, rope_theta=own_config(self.s).rope_theta)
    return base

  def load(self, path: pathlib.Path) -> Qwen2:
    """The model of a Hugging Face directory, with the config's dtypes and kernels, on the run's mesh."""
    return self._ready(hf.load(path, self.s.model.param_dtype, self.mesh if self.mesh.size > 1 else None))

  def _ready(self, model: Qwen2) -> Qwen2:
    check_mesh(self.s, model.config)
    model.config = computing(model.config, self.s.model)
    model = jax.tree.map(lambda x: x.astype(self.s.model.param_dtype), model)
    return place(model, self.mesh) if self.mesh.size > 1 else model

  def save(self, model: Qwen2, path: pathlib.Path) -> None:
    """Write a model as a Hugging Face directory with the run's tokenizer."""
    source = self.s.model.tokenizer or self.s.model.path or TINY_BASE
    with writing(path):
      hf.save(model, path, source, self.stop_ids)

  @property
  def stop_ids(self) -> tuple[int, ...]:
    """The token ids that end a response: those of the tokenizer, and those of the base."""
    own = () if self.s.model.random is not None else eos_ids(self.s.model.path or TINY_BASE)
    return tuple(sorted({*self.tokenizer.stop_ids, *own}))

  def _models(self) -> dict[str, tuple[str | tuple[Checkpoint, ...], Callable[[], Qwen2]]]:
    """For each model that is evaluated: what it is made of, and how to load it.

    A checkpoint that is the expert of several domains is one model, and is evaluated once.
    """
    last, spaced = self.experts.last(), self.experts.spaced()
    out = {
      'base': ('base', self.native_base),
      'last': (tuple(last), lambda: self.experts.mean_of(last)),
      'uniform': ('uniform', lambda: self.experts.mean_of(spaced)),
    }
    for domain, one in self.experts.chosen().items():
      out[f'expert_{domain}'] = ((one,), lambda one=one: self.experts.mean_of([one]))
    out['fused'] = ('fused', lambda: self.load(self.workdir / 'fused'))
    out['rl'] = ('rl', lambda: self.load(self.workdir / 'final'))
    return out

  # ---- sampling -----------------------------------------------------------------------------------------------------

  def chosen_by(self, k: int) -> dict[str, Checkpoint]:
    """For each domain the checkpoint with the highest Pass@k on probing half A."""
    return self.experts.best(self._curves(), k)

  def sample_and_grade(
    self,
    protocol: Protocol,
    model: Qwen2,
    sets: dict[str, Sequence[Problem]],
    what: str = '',
    result: pathlib.Path | None = None,
  ) -> dict[str, Graded]:
    """Sample and judge problems, all domains in one call of the engine.

    Args:
      protocol: how to sample.
      model: which model.
      sets: problems by domain.
      what: the name of the progress bar; '': no bar.
      result: the file that `write_verdicts` will write. Until then the samples are kept beside it, so that a run that
        is killed continues with them. None: they are kept nowhere.

    Returns:
      The graded samples of each domain.
    """
    seed, stop = self.seed + 1000, self.stop.asked
    return graded.sample_and_grade(
      protocol, self.engine, model, self.tokenizer, sets, self.grader, seed, result, what, stop
    )

  def evaluate_model(self, name: str, load: Callable[[], Qwen2]) -> dict:
    """A model's results on the test problems, from evaluate/<name>.json; sampled where the file is not there."""
    path = self.workdir / 'evaluate' / f'{name}.json'
    if not path.exists():
      write_verdicts(path, self.sample_and_grade(self.s.evaluate, load(), self.sets.test, f'evaluate {name}', path))
    return read_json(path)

  def _curves(self) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    """The verdicts [P,N] on half A of every checkpoint, by run, step and domain."""
    half = self.sets.probe_a
    return {
      run: {step: self._probe(run, step, 'a', {d: half[d] for d in domains}) for step in self.experts.steps(run)}
      for run, domains in self.experts.probed().items()
    }

  def _probe(self, run: str, step: int, half: str, sets: dict[str, Sequence[Problem]]) -> dict[str, np.ndarray]:
    """The verdicts [P,N] of a checkpoint by domain, from probe/; sampled where the file is not there."""
    path = self.workdir / 'probe' / run / f'{step}-{half}.json'
    if not path.exists():
      self.pause(f'probing {run} at step {step} is next')
      model = self.experts.mean_of([(run, step)])
      write_verdicts(path, self.sample_and_grade(self.s.probe, model, sets, f'probe {run} {step}{half}', path))
    return verdicts(read_json(path))

  def _passes(self, rows: Sequence) -> float:
    """About how often SFT sees each of `rows`, estimated from the lengths of some."""
    s = self.s.sft
    some = rows[:: -(-len(rows) // 200)]
    mean = sum(len(render(self.tokenizer, *row)['tokens']) for row in some) / len(some)
    return s.steps * s.accumulation * s.rows * s.length / (mean * len(rows))

  def _check_profile(self, asked: str) -> None:
    """Raises BadInput for a step that the run does not have."""
    stages = {f'sft/{run}': self.s.sft.steps for run in self.experts.runs()}
    stages |= {f'rl/{stage.name}': stage.steps for stage in self.s.rl.stages}
    stage, _, step = asked.rpartition(':')
    if asked and not 1 <= int(step) <= stages.get(stage, 0):
      there = ', '.join(f'{name}:1 to {steps}' for name, steps in stages.items())
      raise BadInput(f'--profile {asked}: the run has no such step, expected one of {there}')


def _engine(s: RunConfig, mesh: Mesh, stop_ids: Sequence[int], vocabulary: int) -> Engine:
  """The engine of this process, with its own devices and its share of the config's rows and pages."""
  rows, config = s.engine, computing(own_config(s), s.model)
  share = lambda n: -(-n // jax.process_count())
  kernel = {'tpu': 'tpu', 'gpu': 'gpu'}.get(mesh.devices.flat[0].platform, 'xla')
  cache = PagedLayout(share(rows.pages), rows.page, kernel) if rows.pages else KVCache
  own = own_mesh(mesh.local_devices)
  return Engine(config, stop_ids, share(rows.rows), rows.block, cache=cache, mesh=own, vocabulary=vocabulary)
