"""The problems of a run, by domain and by purpose: for training, for probing checkpoints, and for the final test."""

import dataclasses
import hashlib
import pathlib
import random
import unicodedata
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveInt
from tqdm import tqdm

from vibethinker_jax.data import synthetic
from vibethinker_jax.data.augment import Augmentation
from vibethinker_jax.data.decontaminate import Decontaminate, Index, find_leaks
from vibethinker_jax.data.problem import Problem, merge
from vibethinker_jax.data.sources import Source, load_all
from vibethinker_jax.errors import BadInput
from vibethinker_jax.fields import bad_value


@dataclasses.dataclass(frozen=True)
class Data:
  """Where problems come from, and how many of each kind a domain gets.

  source: 'synthetic' generates problems (data/synthetic.py); 'files' reads the sources below.
  domains: domains that get an expert each. Published: algebra, geometry, calculus, statistics.
  extra_domains: domains for training and test that are not probed.
  train: training problems of a domain at most (synthetic: exactly).
  probe: probing problems of a domain, in each of the two halves.
  test: test problems of a domain at most (synthetic: exactly).
  instruction: text after every statement that has an answer, in training and in evaluation.
  paths: for 'synthetic', the solution paths that SFT sees; () is all.
  train_files: sources of training problems.
  test_files: sources of test problems.
  probe_files: sources of probing problems; () takes these from the training problems.
  labelled: sources of problems with domains; a classifier trained on them gives a domain to problems without one.
  decontaminate: removes probing and training problems that give away a test problem, and training problems that give
    away a probing problem; None removes equal statements only.
  spectrum: how SFT examples are made from the training problems.
  """

  source: Literal['synthetic', 'files']
  domains: tuple[str, ...]
  extra_domains: tuple[str, ...]
  train: PositiveInt
  probe: PositiveInt
  test: PositiveInt
  instruction: str = ''
  paths: tuple[str, ...] = ()
  train_files: tuple[Source, ...] = ()
  test_files: tuple[Source, ...] = ()
  probe_files: tuple[Source, ...] = ()
  labelled: tuple[Source, ...] = ()
  decontaminate: Decontaminate | None = None
  spectrum: Augmentation = dataclasses.field(default_factory=Augmentation)


@dataclasses.dataclass(frozen=True)
class Sets:
  """Disjoint sets of problems by domain. fingerprints: a digest of each source that was read, by its name."""

  train: dict[str, list[Problem]]
  probe_a: dict[str, list[Problem]]  # checkpoints are chosen on this half
  probe_b: dict[str, list[Problem]]  # the chosen checkpoint is reported on this half
  test: dict[str, list[Problem]]
  fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)


def load_sets(data: Data, seed: int) -> Sets:
  """The sets that `data` describes. Raises BadInput."""
  sets = _synthetic(data, seed) if data.source == 'synthetic' else _files(data, seed)
  if rates := data.spectrum.error_rates:
    sets.fingerprints[rates] = _of_file(rates)
  if not data.instruction:
    return sets
  ask = lambda p: dataclasses.replace(p, prompt=f'{p.prompt} {data.instruction}') if p.tests is None else p
  asked = lambda group: {domain: [ask(p) for p in own] for domain, own in group.items()}
  return Sets(asked(sets.train), asked(sets.probe_a), asked(sets.probe_b), asked(sets.test), sets.fingerprints)


def _synthetic(data: Data, seed: int) -> Sets:
  every = (*data.domains, *data.extra_domains)
  for domain in every:
    if domain not in synthetic.DOMAINS:
      raise bad_value('config.data.domains and extra_domains', domain, f'some of {", ".join(synthetic.DOMAINS)}')

  def draw(split: str, field: str, n: int, domains: Sequence[str]) -> dict[str, list[Problem]]:
    try:
      return {d: synthetic.problems(d, split, n, seed, data.paths or None) for d in domains}
    except ValueError as error:  # more problems than can be generated
      raise bad_value(f'config.data.{field}', n, f'fewer ({error})') from None

  return Sets(
    draw('train', 'train', data.train, every),
    draw('probe_a', 'probe', data.probe, data.domains),
    draw('probe_b', 'probe', data.probe, data.domains),
    draw('test', 'test', data.test, every),
  )


def _files(data: Data, seed: int) -> Sets:
  prints: dict[str, str] = {}
  groups = [merge(_read(files, prints)) for files in (data.train_files, data.test_files, data.probe_files)]
  if data.labelled:
    from vibethinker_jax.data.domain_classifier import train_classifier  # scikit-learn: a second to import

    classifier = train_classifier(_read(data.labelled, prints), seed)
    unknown = sum(not p.domain for group in groups for p in group)
    tqdm.write(
      f'{unknown} problems labelled by a classifier of {classifier.accuracy:.1%} accuracy on labelled ones held out'
    )
    groups = [classifier.label(group) for group in groups]
  train, test, probe = groups
  seen = {_same(p) for p in test}
  train, probe = ([p for p in group if _same(p) not in seen] for group in (train, probe))
  if data.decontaminate is not None:
    train = _clean('train against test', train, test, data.decontaminate)
    probe = _clean('probe against test', probe, test, data.decontaminate)
  rng = random.Random(seed)
  for group in (train, test, probe):
    rng.shuffle(group)
  sets, probed = Sets({}, {}, {}, {}, prints), []
  for domain in data.domains:
    pool = probe if data.probe_files else train
    halves = _distinct([p for p in pool if p.domain == domain])[: 2 * data.probe]
    if len(halves) < 2 * data.probe:
      files = ', '.join(source.path for source in data.probe_files or data.train_files)
      raise BadInput(f'{files}: {len(halves)} problems of domain {domain!r} to probe with, expected {2 * data.probe}')
    sets.probe_a[domain], sets.probe_b[domain] = halves[: data.probe], halves[data.probe :]
    probed += halves
  taken = {_same(p) for p in probed}
  train = [p for p in train if _same(p) not in taken]
  if data.decontaminate is not None:
    train = _clean('train against probe', train, probed, data.decontaminate)
  for domain in (*data.domains, *data.extra_domains):
    own, final = ([p for p in group if p.domain == domain] for group in (train, test))
    if not own or not final:
      files = ', '.join(source.path for source in (*data.train_files, *data.test_files))
      raise BadInput(
        f'{files}: {len(own)} training (beside {2 * data.probe} for probing) and {len(final)} test problems of domain '
        f'{domain!r}, expected at least 1 of each'
      )
    sets.train[domain], sets.test[domain] = own[: data.train], final[: data.test]
  other = sum(p.domain not in (*data.domains, *data.extra_domains) for p in (*train, *test))
  if other:
    tqdm.write(f'{other} problems are of no domain of config.data.domains and extra_domains: left out')
  return sets


def _clean(what: str, problems: list[Problem], against: list[Problem], s: Decontaminate) -> list[Problem]:
  """`problems` without those that give away one of `against`. what: how the printed line names the two."""
  if not problems:
    return problems
  texts = lambda group: [(p.id, p.prompt) for p in group]
  try:
    index = Index(texts(against), s)
  except ValueError as error:
    raise BadInput(f'config.data.decontaminate: {error}') from None
  kept = [p for p, leak in zip(problems, find_leaks(texts(problems), index)) if leak is None]
  tqdm.write(f'{what}: {len(problems) - len(kept)} of {len(problems)} problems taken out')
  return kept


def _same(p: Problem) -> str:
  """A key that problems with the same statement share.

  Case, the number and kind of spaces, and forms of characters that a reader does not distinguish (NFKC) do not count.
  """
  return ' '.join(unicodedata.normalize('NFKC', p.prompt).casefold().split())


def _distinct(problems: Sequence[Problem]) -> list[Problem]:
  """The first problem of each group with the same statement."""
  first: dict[str, Problem] = {}
  for p in problems:
    first.setdefault(_same(p), p)
  return [*first.values()]


def _read(files: Sequence[Source], prints: dict[str, str]) -> list[Problem]:
  """The problems of several sources; the fingerprint of each source is added to `prints`."""
  out = []
  for source in files:
    problems = load_all([source])
    digest = hashlib.sha256()
    for p in problems:
      digest.update(repr(p).encode())
    # a source may be read twice, in two splits or by two readers
    name = source.path if source.path not in prints else f'{source.path} ({source.split}, {source.reader})'
    prints[name] = digest.hexdigest()
    out += problems
  return out


def _of_file(path: str) -> str:
  try:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror}), expected the file of config.data.spectrum') from None
