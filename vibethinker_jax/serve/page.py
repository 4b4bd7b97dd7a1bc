"""The chat page: ask and watch the answer come, or draw many solutions and see which answers they reach.

It talks to the worker in the same process, not over HTTP. Whatever the model writes is shown as text: LaTeX and
Markdown are rendered, HTML is not.
"""

import contextlib
import html
import re
from collections.abc import AsyncIterator

import gradio as gr
from fastapi import FastAPI

from vibethinker_jax.serve import solve
from vibethinker_jax.serve.presets import PRESETS
from vibethinker_jax.serve.refusals import ApiError
from vibethinker_jax.serve.service import Sample, Service, ask_of, grow
from vibethinker_jax.serve.worker import Closing, EngineFailure

LATEX = [
  {'left': '$$', 'right': '$$', 'display': True},
  {'left': '\\[', 'right': '\\]', 'display': True},
  {'left': '\\(', 'right': '\\)', 'display': False},
  {'left': '$', 'right': '$', 'display': False},
]
EXAMPLES = ['Solve 7x + 12 = 61.', 'Find the slope of 5x^2 + 5x at x = 4.', 'Write f(x) that returns 3 * x + 3 * 9.']
MOST = 64  # solutions of a spectrum

CSS = """
.gradio-container { max-width: 960px !important; margin: 0 auto !important; }
#stop, #halt { color: #dc2626; }
#talk .placeholder-content { padding: 0 1rem; text-align: center; }
#head h1 { font-size: 1.35rem; margin: 0; letter-spacing: -.01em; }
#head p { margin: .1rem 0 0; color: var(--body-text-color-subdued); font-size: .9rem; }
.step { display: inline-block; padding: 0 .45em; border-left: 3px solid var(--border-color-primary);
  background: color-mix(in srgb, var(--body-text-color) 4%, transparent); border-radius: 0 4px 4px 0; }
.step.holds { border-color: #059669; background: color-mix(in srgb, #059669 9%, transparent); }
.step.fails { border-color: #dc2626; background: color-mix(in srgb, #dc2626 10%, transparent); }
.answer { display: inline-block; margin-top: .5em; padding: .35em .9em; border: 2px solid #4f46e5; border-radius: 8px;
  font-weight: 600; background: color-mix(in srgb, #4f46e5 7%, transparent); }
.answer small { font-weight: 400; opacity: .7; margin-right: .5em; }
.note { opacity: .65; font-size: .82em; }
.spectrum { font-size: .95rem; }
.spectrum .sum { margin: 0 0 .8rem; color: var(--body-text-color-subdued); }
.spectrum .sum b { color: var(--body-text-color); }
.spectrum .row { display: grid; grid-template-columns: minmax(4.5rem, 9rem) 1fr auto; gap: .6rem; align-items: center;
  padding: .35rem 0; border-top: 1px solid var(--border-color-primary); }
.spectrum .label { font-weight: 600; text-align: right; overflow-wrap: anywhere; font-family: var(--font-mono);
  max-height: 4.2em; overflow: hidden; }
.spectrum .dots { display: flex; flex-wrap: wrap; gap: 5px; }
.spectrum .count { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.spectrum button { width: 30px; height: 30px; border-radius: 50%; border: 2px solid transparent; cursor: pointer;
  background: var(--dot); color: #fff; font-size: .74rem; line-height: 1; padding: 0; opacity: .88; }
.spectrum button:hover, .spectrum button:focus-visible { opacity: 1; outline: 2px solid var(--dot);
  outline-offset: 2px; }
.spectrum button.chosen { opacity: 1; border-color: var(--body-text-color); }
.spectrum .none .label { font-weight: 400; font-family: inherit; color: var(--body-text-color-subdued); }
@media (max-width: 640px) {
  .gradio-container { padding: 6px !important; }
  .spectrum .row { grid-template-columns: minmax(3rem, 5.5rem) 1fr auto; gap: .45rem; }
}
"""
CHOOSE = """
element.addEventListener('click', event => {
  const dot = event.target.closest('[data-solution]');
  if (!dot) return;
  element.querySelectorAll('.chosen').forEach(other => other.classList.remove('chosen'));
  dot.classList.add('chosen');
  trigger('select', {index: Number(dot.dataset.solution), value: null});
});
"""
_PLAIN = (
  (r'\\[dt]?frac\{(\w+)\}\{(\w+)\}', r'\1/\2'),
  (r'\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}', r'(\1)/(\2)'),
  (r'\\sqrt\{(\w+)\}', r'√\1'),
  (r'\\pi(?![a-z])', 'π'),
  (r'\\infty', '∞'),
  (r'\\(?:cdot|times)\s*', '·'),
  (r'\^\{?\\circ\}?', '°'),
  (r'\\(?:text|mathrm)\{([^{}]*)\}', r'\1'),
  (r'\\(?:left|right|[,;! ])', ''),
)
_QUIET = {'show_progress': 'hidden', 'api_visibility': 'private'}
_FREE = gr.update(visible=True), gr.update(visible=False)  # the button that starts, and the one that stops
_BUSY = gr.update(visible=False), gr.update(visible=True)
_COLOURS = ('#4f46e5', '#0891b2', '#d97706', '#be185d', '#65a30d', '#7c3aed')


def build(service: Service) -> FastAPI:
  """The page as an application of its own."""
  default = next(iter(PRESETS))
  longest = service.worker.engine.max_length
  with gr.Blocks(title='VibeThinker', analytics_enabled=False) as blocks:
    gr.HTML(f'<h1>VibeThinker</h1><p>{html.escape(service.name)}, served by its own sampler</p>', elem_id='head')
    with gr.Row():
      preset = gr.Radio(
        [(p.title, name) for name, p in PRESETS.items()], value=default, show_label=False, container=False, scale=3
      )
    with gr.Accordion('Sampling', open=False), gr.Row():
      kind = PRESETS[default]
      temperature = gr.Slider(0, 2, kind.temperature, step=0.05, label='Temperature (0 is greedy)', min_width=150)
      top_p = gr.Slider(0.05, 1, kind.top_p, step=0.01, label='Top-p', min_width=150)
      most = gr.Slider(1, longest, min(kind.max_tokens, longest), step=1, label='New tokens at most', min_width=150)
    sampling = [preset, temperature, top_p, most]
    values = lambda name: (PRESETS[name].temperature, PRESETS[name].top_p, min(PRESETS[name].max_tokens, longest))
    preset.change(values, preset, sampling[1:], show_progress='hidden', api_visibility='private')
    with gr.Tab('Chat'):
      _chat(service, sampling)
    with gr.Tab('Spectrum'):
      _spectrum(service, sampling)
  return gr.mount_gradio_app(
    FastAPI(),
    blocks,
    '/',
    auth=(lambda user, password: password in service.keys) if service.keys else None,
    auth_message='Any name, and an API key as password.' if service.keys else None,
    theme=gr.themes.Soft(
      primary_hue='indigo', font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']
    ),
    css=CSS,
    footer_links=[],
    ssr_mode=False,
  )


def _chat(service: Service, sampling: list) -> None:
  talk = gr.Chatbot(
    height='54dvh',
    show_label=False,
    latex_delimiters=LATEX,
    layout='bubble',
    feedback_options=None,
    buttons=['copy'],
    placeholder='Ask for a solution. Equations that were checked are marked green where they hold, red where not.',
    elem_id='talk',
  )
  with gr.Row():
    box = gr.Textbox(
      placeholder='A problem', show_label=False, container=False, scale=8, lines=1, max_lines=8, elem_id='box'
    )
    send = gr.Button('Ask', variant='primary', scale=1, min_width=80, elem_id='send')
    stop = gr.Button('Stop', variant='stop', scale=1, min_width=80, visible=False, elem_id='stop')
  gr.Examples([[example] for example in EXAMPLES], box, label='For example')

  said = gr.State([])  # the conversation as the model has it; what is displayed has marks of ours in it
  talk.clear(lambda: [], None, said, queue=False, api_visibility='private')

  def take(question: str, shown: list, messages: list):
    if not question.strip():
      raise gr.Error('Nothing was asked.', print_exception=False)
    asked = {'role': 'user', 'content': question}
    return '', [*shown, {**asked, 'content': written(question)}], [*messages, asked], *_BUSY

  async def answer(shown: list, messages: list, name: str, temperature: float, top_p: float, most: int):
    kind = PRESETS[name]
    asked = service.with_system(messages, kind.system)
    if kind.instruction:
      asked = [*asked[:-1], {**asked[-1], 'content': f'{asked[-1]["content"]} {kind.instruction}'}]
    reply = lambda text: [*messages, {'role': 'assistant', 'content': solve.parts(text)[1]}]
    async with contextlib.aclosing(drawn(service, asked, 1, name, temperature, top_p, most)) as growing:
      async for (sample,) in growing:
        yield [*shown, *_said(sample.text, None)], reply(sample.text)
    (solution,), _ = await solve.take_apart(service.judges, [sample.text], [sample.finish])
    yield [*shown, *_said(sample.text, solution)], reply(sample.text)

  asked = gr.on([send.click, box.submit], take, [box, talk, said], [box, talk, said, send, stop], queue=False, **_QUIET)
  answering = asked.success(answer, [talk, said, *sampling], [talk, said], concurrency_limit=None, **_QUIET)
  answering.then(lambda: _FREE, None, [send, stop], queue=False, **_QUIET)
  stop.click(lambda: _FREE, None, [send, stop], cancels=[answering], queue=False, **_QUIET)


def _spectrum(service: Service, sampling: list) -> None:
  with gr.Row():
    box = gr.Textbox(
      placeholder='A problem, to be solved many times',
      show_label=False,
      container=False,
      scale=6,
      max_lines=8,
      elem_id='problem',
    )
    count = gr.Slider(2, min(MOST, service.worker.capacity), 8, step=1, label='Solutions', scale=3, min_width=160)
    draw = gr.Button('Draw', variant='primary', scale=1, min_width=80, elem_id='draw')
    stop = gr.Button('Stop', variant='stop', scale=1, min_width=80, visible=False, elem_id='halt')
  gr.Examples([[example] for example in EXAMPLES], box, label='For example')
  picture = gr.HTML('', js_on_load=CHOOSE, elem_id='picture')
  shown = gr.Markdown('', latex_delimiters=LATEX, line_breaks=True, elem_id='solution', container=True, visible=False)
  kept = gr.State([])

  def begin(problem: str):
    if not problem.strip():
      raise gr.Error('Nothing was asked.', print_exception=False)
    return [], gr.update(value='', visible=False), *_BUSY

  async def sample(problem: str, n: int, name: str, temperature: float, top_p: float, most: int):
    asked = ask_of(service, problem, PRESETS[name])
    async with contextlib.aclosing(drawn(service, asked, int(n), name, temperature, top_p, most)) as growing:
      async for samples in growing:
        done = sum(bool(sample.finish) for sample in samples)
        yield f'<div class="spectrum"><p class="sum">{done} of {len(samples)} solutions are complete</p></div>', []
    solutions, spectrum = await solve.take_apart(service.judges, [s.text for s in samples], [s.finish for s in samples])
    yield drawing(solutions, spectrum), solutions

  def show(solutions: list, event: gr.SelectData):
    return gr.update(value=_one(solutions, event.index), visible=True)

  begun = gr.on([draw.click, box.submit], begin, box, [kept, shown, draw, stop], queue=False, **_QUIET)
  drawing_now = begun.success(sample, [box, count, *sampling], [picture, kept], concurrency_limit=None, **_QUIET)
  drawing_now.then(lambda: _FREE, None, [draw, stop], queue=False, **_QUIET)
  stop.click(lambda: _FREE, None, [draw, stop], cancels=[drawing_now], queue=False, **_QUIET)
  picture.select(show, kept, shown, **_QUIET)


async def drawn(
  service: Service, messages: list[dict], n: int, name: str, temperature: float, top_p: float, most: int
) -> AsyncIterator[list[Sample]]:
  """n samples as they grow; a refusal or failure becomes a message on the page."""
  try:
    async with contextlib.aclosing(
      grow(service, messages, n, PRESETS[name].sampling(temperature, top_p), int(most))
    ) as growing:
      async for samples in growing:
        yield samples
  except (ApiError, EngineFailure, Closing) as error:
    raise gr.Error(str(error), print_exception=False) from None


# ---- how a solution looks


def _said(text: str, solution: solve.Solution | None) -> list[dict]:
  """The assistant's messages: its thinking, folded once it is over, and the answer, taken apart once it is whole."""
  thinking, rest = solve.parts(text)
  open_still = '<think>' in text and '</think>' not in text
  said = []
  if thinking:
    status = 'pending' if open_still and solution is None else 'done'
    said.append(
      {'role': 'assistant', 'content': written(thinking), 'metadata': {'title': 'Thinking', 'status': status}}
    )
  if rest or not thinking:
    content = written(rest) if solution is None else with_marks(rest, solution)
    said.append({'role': 'assistant', 'content': content})
  return said


def written(text: str) -> str:
  """What a model wrote as Markdown that shows it: HTML as text, products not as emphasis, lone boxes as LaTeX."""
  out, fenced = [], False
  for line in text.split('\n'):
    fence = line.strip().startswith('```')
    fenced ^= fence
    out.append(line if fenced or fence else _line(line))
  return '\n'.join(out)


def _line(line: str) -> str:
  line = html.escape(line, quote=False)
  line = re.sub(r'(?<=[\w)\s])([*_])(?=[\w(\s])', r'\\\1', line) if '$' not in line and '\\' not in line else line
  if '$' not in line and not re.search(r'\\[(\[]', line):
    line = re.sub(r'\\boxed\{(?:[^{}]|\{[^{}]*\})*\}', lambda box: f'${box.group()}$', line)
  return line


def with_marks(rest: str, solution: solve.Solution) -> str:
  """The response without its thinking, key steps marked, the answer in a box, and how it ended."""
  begin = len(solution.text) - len(rest)
  out, at = [], begin
  for step in solution.steps:
    if step.begin < at:
      continue
    kind = {True: 'step holds', False: 'step fails', None: 'step'}[step.holds]
    mark = f'<span class="{kind}">{_line(step.text)}</span>'
    if '\n' in step.text:  # a displayed formula over several lines
      mark = f'\n\n<div class="{kind}">\n\n{written(step.text)}\n\n</div>\n\n'
    out += [written(solution.text[at : step.begin]), mark]
    at = step.end
  out.append(written(solution.text[at:]))
  if solution.answer is not None and solution.answer != solution.code:
    out.append(f'\n\n<div class="answer"><small>Answer</small>{_formula(solution.answer)}</div>')
  notes = [] if solution.finish_reason == 'stop' else ['cut off at the limit of tokens']
  notes += [] if solution.steps_share is None else [f'{solution.steps_share:.0%} of the equalities checked hold']
  if notes:
    out.append(f'\n\n<span class="note">{"; ".join(notes)}</span>')
  return ''.join(out)


def _formula(answer: str) -> str:
  answer = html.escape(answer, quote=False)
  return answer if '$' in answer else f'${answer}$'


def _one(solutions: list[solve.Solution], i: int) -> str:
  """One solution of a spectrum, thinking and all."""
  thinking, rest = solve.parts(solutions[i].text)
  head = f'**Solution {i + 1}**\n\n'
  if thinking:
    head += f'<details><summary>Thinking</summary>\n\n{written(thinking)}\n\n</details>\n\n'
  return head + with_marks(rest, solutions[i])


def drawing(solutions: list[solve.Solution], spectrum: solve.Spectrum) -> str:
  """The clusters as rows of dots, a dot a solution; all of it text of ours but the answers, which are escaped."""
  rows = []
  for rank, cluster in enumerate(spectrum.clusters):
    colour = _COLOURS[rank] if rank < len(_COLOURS) else '#64748b'
    rows.append(_row(cluster.answer, cluster.members, colour, ''))
  if spectrum.unanswered:
    rows.append(_row('no answer', spectrum.unanswered, '#94a3b8', ' none'))
  n, kinds = len(solutions), len(spectrum.clusters)
  most = f'<b>{spectrum.agreement:.0%}</b> agree on <b>{html.escape(spectrum.majority)}</b>' if kinds else 'no answers'
  told = f'{n} solutions, {kinds} different answer{"" if kinds == 1 else "s"}; {most}. Choose a dot to read a solution.'
  return f'<div class="spectrum"><p class="sum">{told}</p>{"".join(rows)}</div>'


def _readable(answer: str) -> str:
  """An answer in a line, where there is no LaTeX to be had: 48/7 for \\frac{48}{7}."""
  for pattern, plain in _PLAIN:
    answer = re.sub(pattern, plain, answer)
  return answer.replace('\n', ' ')


def _row(label: str, members: tuple[int, ...], colour: str, kind: str) -> str:
  dots = ''.join(
    f'<button data-solution="{i}" aria-label="Solution {i + 1}" title="Solution {i + 1}">{i + 1}</button>'
    for i in members
  )
  label = _readable(label)
  short = html.escape(label if len(label) <= 60 else label[:57] + '...')
  return (
    f'<div class="row{kind}" style="--dot: {colour}"><div class="label">{short}</div>'
    f'<div class="dots">{dots}</div><div class="count">{len(members)}</div></div>'
  )
