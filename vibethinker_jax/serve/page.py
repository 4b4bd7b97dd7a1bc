"""The chat page: ask a question and see the answer grow, or draw many solutions and see which answers they reach.

It talks to the worker in the same process, not over HTTP. page_actions.py has what its buttons do, markup.py how
solutions look.
"""

import asyncio
import contextlib
import html
import pathlib

import gradio as gr
from fastapi import FastAPI

from vibethinker_jax.serve import markup, page_actions
from vibethinker_jax.serve.presets import PRESETS
from vibethinker_jax.serve.service import Service

EXAMPLES = (  # of 32 solutions the model of the tiny run gets all right, the shipped base 11, 15 and 17
  ('Find the slope of 2x^2 + 10x at x = 5.', '30'),
  ('Three scores are 15, 11 and 7. Find their mean.', '11'),
  ('Of 9, 7 and 6 red, blue and green balls one is drawn. What is the chance of red?', '9/22'),
  ('Write f(n) that adds up 8 * i + 2 * 8 for i from 1 to n.', ''),
)

CSS = """
.gradio-container { width: 100% !important; max-width: 960px !important; margin: 0 auto !important; --quiet: #52606f;
  --good: #067647; --bad: #b42318; }
.dark .gradio-container, .gradio-container.dark, .dark { --quiet: #b3bcc8; --good: #4ade9b; --bad: #ff9b90; }
.gradio-container main { width: 100%; }
.notice { padding: .5rem .8rem; border-left: 4px solid var(--bad); border-radius: 0 6px 6px 0;
  color: var(--body-text-color); background: color-mix(in srgb, var(--bad) 9%, transparent); overflow-wrap: anywhere; }
.notice b { color: var(--bad); }
#stop, #halt { color: var(--bad); }
#talk [role=log] { padding-top: 2.4rem; } #talk .prose { opacity: 1; }
#talk .placeholder-content { padding: 0 1rem; text-align: center; }
#head h1 { font-size: 1.35rem; margin: 0; letter-spacing: -.01em; }
#head p { margin: .1rem 0 0; color: var(--quiet); font-size: .9rem; }
.step { display: inline-block; padding: 0 .45em; border-left: 3px solid var(--border-color-primary);
  background: color-mix(in srgb, var(--body-text-color) 4%, transparent); border-radius: 0 4px 4px 0; }
.step.holds { border-color: var(--good); background: color-mix(in srgb, var(--good) 9%, transparent); }
.step.fails { border-color: var(--bad); background: color-mix(in srgb, var(--bad) 9%, transparent); }
.step.holds b, .right, .sign.yes { color: var(--good); } .step.fails b, .wrong, .sign.no { color: var(--bad); }
.right, .wrong, .sign { font-weight: 600; margin-left: .4em; } .sign { margin: 0 .35em 0 0; }
.answer { display: inline-block; margin-top: .5em; padding: .35em .9em; border: 2px solid #4f46e5; border-radius: 8px;
  font-weight: 600; background: color-mix(in srgb, #4f46e5 7%, transparent); }
.answer small, .note { font-weight: 400; color: var(--quiet); margin-right: .5em; }
.note { font-size: .85em; }
.spectrum { font-size: .95rem; }
.spectrum .sum { margin: 0 0 .8rem; color: var(--quiet); }
.spectrum .sum b { color: var(--body-text-color); }
.spectrum .row { display: grid; grid-template-columns: minmax(4.5rem, 9rem) 1fr 5.5rem; gap: .6rem; align-items: center;
  padding: .35rem 0; border-top: 1px solid var(--border-color-primary); }
.spectrum .label { font-weight: 600; text-align: right; overflow-wrap: anywhere; font-family: var(--font-mono); }
.spectrum .head { border: 0; font-size: .85rem; } .spectrum .head > div { color: var(--quiet); }
.spectrum .head .label, .spectrum .none .label { font-weight: 400; font-family: inherit; color: var(--quiet); }
.spectrum .dots { display: flex; flex-wrap: wrap; gap: 5px; }
.spectrum .count { color: var(--quiet); font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.spectrum .program { grid-template-columns: 1fr 5.5rem; }
.spectrum .program .label { grid-column: 1 / -1; text-align: left; display: flex; align-items: start; }
.spectrum pre { margin: 0; padding: .4rem .6rem; flex: 1; min-width: 0; max-height: 12rem; overflow: auto;
  font-weight: 400; font-size: .85rem; border-radius: 6px;
  background: color-mix(in srgb, var(--body-text-color) 5%, transparent); }
.spectrum button { min-width: 30px; height: 30px; border-radius: 15px; border: 2px solid transparent; cursor: pointer;
  background: var(--dot); color: #fff; font-size: .76rem; line-height: 1; padding: 0 .35rem; }
.spectrum button i { font-style: normal; margin-left: .15em; color: #fff; }
.spectrum button:hover, .spectrum button:focus-visible { outline: 2px solid var(--dot); outline-offset: 2px; }
.spectrum button.chosen { border-color: var(--body-text-color); }
@media (max-width: 640px) {
  .gradio-container { padding: 6px !important; }
  .spectrum .row { grid-template-columns: minmax(3rem, 5.5rem) 1fr 4.6rem; gap: .45rem; }
  .spectrum .program { grid-template-columns: 1fr 4.6rem; }
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
_QUIET = {'show_progress': 'hidden', 'api_visibility': 'private'}


def checkpoint(service: Service) -> str:
  """The last parts of the path from which the tokenizer, and so the model, was loaded."""
  return '/'.join(pathlib.Path(service.tokenizer.hf.name_or_path).parts[-3:])


def build(service: Service) -> FastAPI:
  """The page as an application of its own."""
  default, longest = next(iter(PRESETS)), page_actions.longest(service)
  with gr.Blocks(title=f'VibeThinker: {checkpoint(service)}', analytics_enabled=False) as blocks:
    served = f'{html.escape(service.name)}, <code>{html.escape(checkpoint(service))}</code>'
    gr.HTML(f'<h1>VibeThinker</h1><p>{served}</p>', elem_id='head')
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
    preset.change(values, preset, sampling[1:], **_QUIET)
    with gr.Tab('Chat'):
      _chat(service, sampling)
    with gr.Tab('Spectrum'):
      _spectrum(service, sampling)
  return gr.mount_gradio_app(
    FastAPI(),
    blocks,
    '/',
    auth=(lambda user, password: password in service.keys) if service.keys else None,
    auth_message='Enter any name, and an API key as the password.' if service.keys else None,
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
    latex_delimiters=markup.LATEX,
    layout='bubble',
    feedback_options=None,
    buttons=['copy'],
    placeholder='Ask for a solution. Checked equations are marked: ✓ holds, ✗ does not hold.',
    elem_id='talk',
  )
  notice = gr.HTML('', elem_id='notice', visible=False)
  with gr.Row():
    box = gr.Textbox(
      placeholder='A problem', show_label=False, container=False, scale=8, lines=1, max_lines=8, elem_id='box'
    )
    send = gr.Button('Ask', variant='primary', scale=1, min_width=80, elem_id='send')
    stop = gr.Button('Stop', variant='stop', scale=1, min_width=80, visible=False, elem_id='stop')
  gr.Examples([[problem] for problem, _ in EXAMPLES], box, label='For example')
  said = gr.State([])
  talk.clear(lambda: ([], _notice('')), None, [said, notice], queue=False, **_QUIET)

  def answer(stop: asyncio.Event, question: str, shown: list, messages: list, *how):
    return page_actions.converse(service, question, shown, messages, page_actions.How(*how), stop)

  def seen(turn: page_actions.Turn) -> tuple:
    return gr.skip() if turn.box is None else turn.box, turn.shown, turn.said, _notice(turn.notice)

  events, inputs = [send.click, box.submit], [box, talk, said, *sampling]
  _run(events, answer, seen, inputs, [box, talk, said, notice], send, stop)


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
    expected = gr.Textbox(
      placeholder='Expected answer, if known',
      show_label=False,
      container=False,
      scale=2,
      min_width=180,
      max_lines=1,
      elem_id='expected',
    )
  with gr.Row():
    most = page_actions.most_solutions(service)
    count = gr.Slider(1, most, min(8, most), step=1, label='Solutions', scale=8, min_width=160)
    draw = gr.Button('Draw', variant='primary', scale=1, min_width=80, elem_id='draw')
    stop = gr.Button('Stop', variant='stop', scale=1, min_width=80, visible=False, elem_id='halt')
  notice = gr.HTML('', elem_id='warning', visible=False)
  gr.Examples([list(example) for example in EXAMPLES], [box, expected], label='For example')
  picture = gr.HTML('', js_on_load=CHOOSE, elem_id='picture')
  shown = gr.Markdown(
    '', latex_delimiters=markup.LATEX, line_breaks=True, elem_id='solution', container=True, visible=False
  )
  kept = gr.State([])

  def sample(stop: asyncio.Event, problem: str, answer: str, n: float | None, *how):
    return page_actions.explore(service, problem, answer, n, page_actions.How(*how), stop)

  def seen(view: page_actions.View) -> tuple:
    return view.picture, view.solutions, gr.update(value='', visible=False), _notice(view.notice)

  def show(solutions: list, event: gr.SelectData):
    return gr.update(value=markup.one(solutions, event.index), visible=True)

  events, inputs = [draw.click, box.submit, expected.submit], [box, expected, count, *sampling]
  _run(events, sample, seen, inputs, [picture, kept, shown, notice], draw, stop)
  picture.select(show, kept, shown, **_QUIET)


def _run(events: list, begun, seen, inputs: list, outputs: list, begin: gr.Button, stop: gr.Button) -> None:
  """Connects the events of an action, the button that begins it, and the button that stops it.

  Args:
    events: each of them begins the action.
    begun: begun(stop, *inputs) yields the states of page_actions.py until `stop` is set.
    seen: turns a state into the values of `outputs`.
    inputs, outputs: components of Gradio.
    begin, stop: the two buttons, of which one is visible.

  The whole action is one event of Gradio, since an event that follows a failed one is not run. The stop button does not
  cancel it, since a cancelled event may leave "Error" on the page.
  """
  running: dict[str, asyncio.Event] = {}  # by session

  async def each(request: gr.Request, *values):
    stopped = running[request.session_hash] = asyncio.Event()
    try:
      async with contextlib.aclosing(begun(stopped, *values)) as growing:
        async for step in growing:
          yield *seen(step), *_buttons(step.busy)
    finally:
      if running.get(request.session_hash) is stopped:
        del running[request.session_hash]

  async def end(request: gr.Request):
    if request.session_hash in running:
      running[request.session_hash].set()
    return _buttons(False)

  gr.on(events, each, inputs, [*outputs, begin, stop], concurrency_limit=None, **_QUIET)
  stop.click(end, None, [begin, stop], queue=False, **_QUIET)


def _buttons(busy: bool) -> tuple:
  """The states of the button that begins and of the button that stops."""
  return gr.update(visible=not busy), gr.update(visible=busy)


def _notice(text: str) -> dict:
  """The component that says why something was not done."""
  return gr.update(value=f'<div class="notice" role="alert"><b>✗</b> {html.escape(text)}</div>', visible=bool(text))
