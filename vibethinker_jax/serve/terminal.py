"""`vibethinker chat`: the two views of the page in a terminal, with its own worker."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from vibethinker_jax.serve import markup, solve
from vibethinker_jax.serve.page_actions import REFUSED
from vibethinker_jax.serve.presets import PRESETS
from vibethinker_jax.serve.service import Sample, Service, ask_of, grow

HELP = """/preset NAME   math, code, explore or evaluate
/n N PROBLEM   the spectrum: N solutions, and which answers they reach
/new           begin a new conversation
/quit          or the end of input; Ctrl-C stops an answer"""
_BAR = 40  # characters of the largest cluster


def run(service: Service, preset: str) -> None:
  """Answers lines until the input ends. preset: the one to begin with."""
  print(f'{service.name}. {HELP}')
  with asyncio.Runner() as runner:
    runner.run(_start(service))
    talk = _Talk(service, preset)
    try:
      while (line := _line(f'\n{talk.preset}> ')) is not None:
        if line.strip() == '/quit':
          break
        try:
          runner.run(talk.take(line.strip()))
        except KeyboardInterrupt:
          print(' [stopped]')
        except REFUSED as error:
          print(f'\n{error}')
    finally:
      runner.run(service.worker.stop())


async def _start(service: Service) -> None:
  service.worker.start()


def _line(prompt: str) -> str | None:
  try:
    return input(prompt)
  except (EOFError, KeyboardInterrupt):
    print()
    return None


class _Talk:
  """A conversation."""

  def __init__(self, service: Service, preset: str):
    self._service, self.preset, self._said = service, preset, []

  async def take(self, line: str) -> None:
    """Does what a line asks for."""
    match line.split(maxsplit=2):
      case []:
        pass
      case ['/new']:
        self._said = []
      case ['/preset', name] if name in PRESETS:
        self.preset = name
      case ['/n', n, problem] if n.isdecimal() and int(n) > 0:
        await self._spectrum(problem, int(n))
      case [word, *_] if word.startswith('/'):
        print(HELP)
      case _:
        await self._answer(line)

  async def _answer(self, question: str) -> None:
    kind = PRESETS[self.preset]
    asked = {'role': 'user', 'content': f'{question} {kind.instruction}'.strip()}
    messages = self._service.with_system([*self._said, asked], kind.system)
    printed = 0
    async with contextlib.aclosing(self._drawn(messages, 1)) as growing:
      async for (sample,) in growing:
        print(sample.text[printed:], end='', flush=True)
        printed = len(sample.text)
    print()
    (solution,), _ = await solve.take_apart(self._service.graders, [sample.text], [sample.finish])
    if solution.answer is not None:
      print(f'[ {solution.answer} ]')
    for step in solution.key_steps:
      if step.holds is False:
        print(f'does not hold: {step.text}')
    self._said += [asked, {'role': 'assistant', 'content': solve.parts(sample.text)[1]}]

  async def _spectrum(self, problem: str, n: int) -> None:
    async with contextlib.aclosing(self._drawn(ask_of(self._service, problem, PRESETS[self.preset]), n)) as growing:
      async for samples in growing:
        done = sum(bool(sample.finish) for sample in samples)
        print(f'\r{done} of {n} are complete', end='' if done < n else '\n', file=sys.stderr, flush=True)
    texts, ends = [s.text for s in samples], [s.finish for s in samples]
    print(pictured(*await solve.take_apart(self._service.graders, texts, ends)))

  def _drawn(self, messages: list[dict], n: int) -> AsyncIterator[list[Sample]]:
    kind = PRESETS[self.preset]
    return grow(self._service, messages, n, kind.sampling(), kind.max_tokens)


def pictured(solutions: list[solve.SampledSolution], spectrum: solve.SolutionSpectrum) -> str:
  """The clusters as bars, and a sentence about them. A program is printed below its bar."""
  n = len(solutions)
  rows = []  # name, solutions, program
  for i, cluster in enumerate(spectrum.clusters, 1):
    program = solutions[cluster.members[0]].code == cluster.answer
    rows.append((f'program {i}' if program else markup.readable(cluster.answer), len(cluster.members), program))
  rows += [('(no answer)', len(spectrum.unanswered), False)] if spectrum.unanswered else []
  width = max(len('answer'), *(min(30, len(name)) for name, _, _ in rows))
  lines = [markup.summary(solutions, spectrum), f'{"answer":>{width}} solutions and their share']
  for i, (name, count, program) in enumerate(rows):
    name = name if len(name) <= width else f'{name[: width - 1]}…'
    lines.append(f'{name:>{width}} {"█" * max(1, round(_BAR * count / n))} {count} · {count / n:.0%}')
    if program:
      lines += [f'{"":>{width}} {line}' for line in spectrum.clusters[i].answer.split('\n')]
  return '\n'.join(lines)
