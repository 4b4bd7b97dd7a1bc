"""What the buttons of the page do, without a browser: answer a question, and solve a problem many times.

Each action yields the state of the page after every step. If the action is refused or fails, the last state says why,
and is no longer busy.
"""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator

from vibethinker_jax.serve import markup, solve
from vibethinker_jax.serve.errors import ApiError
from vibethinker_jax.serve.presets import PRESETS
from vibethinker_jax.serve.service import Service, ask_of, grow
from vibethinker_jax.serve.worker import Closing, EngineFailure

REFUSED = ApiError, EngineFailure, Closing, RuntimeError  # the graders raise the last one
_SOLUTIONS = 64  # of a spectrum, at most


@dataclasses.dataclass(frozen=True)
class How:
  """The settings of the sampling on the page. A cleared field is None, and a typed number may be out of range."""

  preset: str
  temperature: float | None
  top_p: float | None
  most: float | None  # new tokens

  def fault(self, longest: int) -> str:
    """What is wrong with the settings, '' for nothing. longest: tokens that the engine takes."""
    return (
      out_of_range('Temperature', self.temperature, 0, 2)
      or out_of_range('Top-p', self.top_p, 0.05, 1)
      or out_of_range('New tokens at most', self.most, 1, longest)
    )


def out_of_range(name: str, value: float | None, low: float, high: float) -> str:
  """What is wrong with a number from the page, '' for nothing. name: of its field. low, high: its range."""
  if isinstance(value, int | float) and math.isfinite(value) and low <= value <= high:
    return ''
  return f'{name} is {"empty" if value is None else value}, expected {low:g} to {high:g}.'


@dataclasses.dataclass(frozen=True)
class Turn:
  """The state of the chat after a step.

  box: the text of the input field; None leaves it as it is. shown: the messages on the page, with our marks in them.
  said: the conversation as the model sees it. notice: why something was not done, '' for nothing. busy: more will come.
  """

  box: str | None
  shown: list[dict]
  said: list[dict]
  notice: str = ''
  busy: bool = False


async def converse(
  service: Service, question: str, shown: list[dict], said: list[dict], how: How, stop: asyncio.Event
) -> AsyncIterator[Turn]:
  """Asks a question, and yields the chat as the answer grows, until `stop` is set.

  Args:
    service: the model.
    question: the text of the user.
    shown, said: as in Turn, before the question.
    how: the settings.
    stop: ends the answer where it is.

  A question without any answer does not enter the conversation. The last turn is never busy.
  """
  before = Turn(question, shown, said)
  if refused := 'Nothing was asked: type a problem.' * (not question.strip()) or how.fault(longest(service)):
    yield dataclasses.replace(before, notice=refused)
    return
  kind, asked, text = PRESETS[how.preset], {'role': 'user', 'content': question}, ''
  told = service.with_system([*said, asked], kind.system)
  told = [*told[:-1], {**asked, 'content': f'{question} {kind.instruction}'.strip()}]
  shown = [*shown, {**asked, 'content': markup.written(question)}]
  reply = lambda text: [*said, asked, {'role': 'assistant', 'content': solve.parts(text)[1]}]
  yield Turn('', shown, said, busy=True)
  try:
    sampling = kind.sampling(how.temperature, how.top_p)
    async with contextlib.aclosing(grow(service, told, 1, sampling, int(how.most))) as growing:
      async for (sample,) in _until(stop, growing):
        text = sample.text
        yield Turn(None, [*shown, *markup.messages(text, None)], reply(text), busy=True)
    if stop.is_set():
      yield Turn(None, [*shown, *markup.messages(text, None)], reply(text)) if text else before
      return
    (solution,), _ = await solve.take_apart(service.graders, [text], [sample.finish])
    yield Turn(None, [*shown, *markup.messages(text, solution)], reply(text))
  except Exception as error:
    why = _why(error)
    if isinstance(error, ApiError) and error.code == 'context_length_exceeded' and said:
      why += ' Earlier messages count as well: the bin above the conversation begins a new one.'
    if text:  # it stays on the page
      why += ' The part that came before is no part of the conversation.'
      yield Turn(None, [*shown, *markup.messages(text, None)], said, why)
    else:
      yield dataclasses.replace(before, notice=why)
    if not isinstance(error, REFUSED):
      raise


@dataclasses.dataclass(frozen=True)
class View:
  """The state of the spectrum after a step.

  picture: HTML. solutions: those drawn, once all are complete. notice, busy: as in Turn.
  """

  picture: str
  solutions: list[solve.SampledSolution]
  notice: str = ''
  busy: bool = False


async def explore(
  service: Service, problem: str, expected: str, n: float | None, how: How, stop: asyncio.Event
) -> AsyncIterator[View]:
  """Solves a problem n times, and yields the spectrum as the solutions grow, until `stop` is set.

  Args:
    service: the model.
    problem: the statement.
    expected: the right answer, by which the solutions are graded; '' for none.
    n: solutions.
    how: the settings.
    stop: ends the drawing without a result.

  The last view is never busy.
  """
  refused = 'Nothing was asked: type a problem.' * (not problem.strip()) or how.fault(longest(service))
  if refused := refused or out_of_range('Solutions', n, 1, most_solutions(service)):
    yield View('', [], refused)
    return
  kind, done = PRESETS[how.preset], 0
  yield View(_progress(f'0 of {int(n)} solutions are complete'), [], busy=True)
  try:
    asked, sampling = ask_of(service, problem, kind), kind.sampling(how.temperature, how.top_p)
    async with contextlib.aclosing(grow(service, asked, int(n), sampling, int(how.most))) as growing:
      async for samples in _until(stop, growing):
        done = sum(bool(sample.finish) for sample in samples)
        yield View(_progress(f'{done} of {int(n)} solutions are complete'), [], busy=True)
    if stop.is_set():
      yield View(_progress(f'Stopped, with {done} of {int(n)} solutions complete'), [])
      return
    texts, ends = [s.text for s in samples], [s.finish for s in samples]
    solutions, spectrum = await solve.take_apart(service.graders, texts, ends, expected.strip() or None)
    yield View(markup.drawing(solutions, spectrum), solutions)
  except Exception as error:
    yield View('', [], _why(error))
    if not isinstance(error, REFUSED):
      raise


def _why(error: Exception) -> str:
  """The notice for an error. The text of an unexpected one is left to the log."""
  if isinstance(error, REFUSED):
    return str(error)[:1].upper() + str(error)[1:].rstrip('.') + '.'
  return f'The page failed ({type(error).__name__}).'


async def _until(stop: asyncio.Event, growing: AsyncIterator) -> AsyncIterator:
  """The items of `growing` until `stop` is set; it does not wait for the next item then."""
  told = asyncio.ensure_future(stop.wait())
  try:
    while True:
      step = asyncio.ensure_future(anext(growing, None))
      await asyncio.wait({step, told}, return_when=asyncio.FIRST_COMPLETED)
      if told.done():
        step.cancel()
        await asyncio.wait({step})
        return
      if (item := step.result()) is None:
        return
      yield item
  finally:
    told.cancel()


def _progress(told: str) -> str:
  return f'<div class="spectrum"><p class="sum">{told}</p></div>'


def longest(service: Service) -> int:
  """Tokens of prompt and answer together, at most."""
  return service.worker.engine.max_length


def most_solutions(service: Service) -> int:
  """Solutions that may be drawn at the same time."""
  return min(_SOLUTIONS, service.worker.capacity)
