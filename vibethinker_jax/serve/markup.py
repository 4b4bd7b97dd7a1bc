"""How solutions look on the page: their text as Markdown, with marked key steps, and their answers as a picture.

Everything that the model writes is shown as text: LaTeX and Markdown are rendered, HTML is not. This file decides what
is a formula, and puts every formula between `\\(` and `\\)`: a single dollar sign opens none.
"""

import html
import re

from vibethinker_jax.serve import solve

LATEX = [
  {'left': '\\[', 'right': '\\]', 'display': True},
  {'left': '\\(', 'right': '\\)', 'display': False},
]
_BRACES = r'\{(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*\}'
_TOKENS = re.compile(
  r'(?P<display>\$\$(?P<d1>[^$]+)\$\$|\\\[(?P<d2>.+?)\\\])'
  r'|(?P<inline>\\\((?P<i1>.+?)\\\)|(?<![\\$\w])\$(?P<i2>[^\s$](?:[^$\n]*?[^\s$\\])?)\$(?![\d$]))'
  r'|(?P<code>(?P<ticks>(?<!`)`+(?!`))(?P<c1>[^\n]+?)(?<!`)(?P=ticks)(?!`))'
  rf'|(?P<box>\\boxed\s*{_BRACES})',
  re.DOTALL,
)
_PROSE = re.compile(r'(?<![\\{a-zA-Z])[a-zA-Z]{2,},?\s+[a-zA-Z]{2,}(?![}a-zA-Z])')  # as in "5 and six apples"
_WORDS = re.compile(r'\\(?:text|textbf|textit|texttt|textrm|mbox|operatorname|mathrm|mathtt)\s*\{[^{}]*\}')
_NAME = re.compile(r'(?<![\\A-Za-z])[A-Za-z]+(?:_[A-Za-z0-9]{2,}|(?:_[A-Za-z0-9]+){2,})(?![A-Za-z0-9])')
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
  (r'\\([%$#&_])', r'\1'),
)
_SIGNS = {
  True: '<span class="sign yes" title="right">✓</span>',
  False: '<span class="sign no" title="wrong">✗</span>',
}
_COLOURS = ('#4f46e5', '#0e7490', '#b45309', '#be185d', '#4d7c0f', '#7c3aed')  # white text is legible on each
_OTHERS, _NONE = '#475569', '#64748b'
_LABEL, _PROGRAM = 60, 1500  # characters of an answer, and of a program, that are shown


# ---- text


def written(text: str) -> str:
  """The text of a model as Markdown: HTML is shown as text, products are no emphasis, boxes alone are LaTeX."""
  out, prose, fenced = [], [], False
  for line in text.split('\n'):
    fence = line.strip().startswith('```')
    if fence and not fenced:
      out += [_prose('\n'.join(prose))] if prose else []
      prose = []
    if fenced or fence:
      out.append(line)
    else:
      prose.append(line)
    fenced ^= fence
  out += [_prose('\n'.join(prose))] if prose else []
  return '\n'.join(out)


def _prose(text: str) -> str:
  """Text without fences: formulas, code spans, and the words between them."""
  out, at = [], 0
  for token in _TOKENS.finditer(text):
    out += [_words(text, at, token.start()), _token(token)]
    at = token.end()
  return ''.join([*out, _words(text, at, len(text))])


def _token(token: re.Match) -> str:
  whole = token.group()
  if token['code']:
    return _code(token['c1'])
  if token['display']:
    return formula(token['d1'] or token['d2'], display=True)
  if token['i2'] and _PROSE.search(_WORDS.sub('', token['i2'])):
    return _words(whole, 0, 1) + _prose(whole[1:])  # an amount of dollars, and the text after it
  return formula(token['i1'] or token['i2'] or whole)


def _words(text: str, begin: int, end: int) -> str:
  """Words as Markdown, with the signs escaped that would be HTML, LaTeX or (in a product) emphasis."""
  part = html.escape(text[begin:end], quote=False).replace('$', '&#36;').replace('\\', '&#92;')
  return re.sub(r'(?<=[\w)\s])([*_])(?=[\w(\s])', r'\\\1', part)


def _code(text: str) -> str:
  """A code span, as HTML with every sign as a number: Markdown's own code span would escape these signs again."""
  return f'<code>{_numbered(text)}</code>'


def _numbered(text: str) -> str:
  return re.sub(r'[^\w\s]|_', lambda sign: f'&#{ord(sign.group())};', text)


def formula(tex: str, display: bool = False) -> str:
  r"""A formula between \( and \), changed so that KaTeX can read it; as code where it cannot be LaTeX."""
  tex = tex.strip()
  bare = re.sub(r'\\.', '', tex, flags=re.DOTALL)
  if not tex or not _balanced(bare) or tex.count('\\begin{') != tex.count('\\end{'):
    return _code(tex)
  tex = re.sub(r'(?<!\\)[%#$]', r'\\\g<0>', tex)
  tex = tex if '\\begin{' in tex else re.sub(r'(?<!\\)&', r'\\&', tex)
  tex = _WORDS.sub(lambda words: re.sub(r'(?<!\\)_', r'\\_', words.group()), tex)
  tex = _NAME.sub(lambda name: f'\\mathtt{{{name.group()}}}'.replace('_', '\\_'), tex)
  left, right = ('\\[', '\\]') if display else ('\\(', '\\)')
  return f'{left}{html.escape(tex, quote=False)}{right}'


def _balanced(text: str) -> bool:
  depth = 0
  for sign in re.findall(r'[{}]', text):
    depth += 1 if sign == '{' else -1
    if depth < 0:
      return False
  return depth == 0


# ---- solutions


def messages(text: str, solution: solve.SampledSolution | None) -> list[dict]:
  """The messages of the assistant: its thinking, folded once that has ended, and its answer.

  text: of the sample so far. solution: its analysis, None while it is not complete.
  """
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


def with_marks(rest: str, solution: solve.SampledSolution) -> str:
  """The response after its thinking (`rest`), with key steps marked, the answer in a box, and how it ended."""
  begin = len(solution.text) - len(rest)
  out, at = [], begin
  for step in solution.key_steps:
    if step.begin < at:
      continue
    kind = {True: 'step holds', False: 'step fails', None: 'step'}[step.holds]
    sign = {True: ' <b title="holds">✓</b>', False: ' <b title="does not hold">✗</b>', None: ''}[step.holds]
    mark = f'<span class="{kind}">{_prose(step.text)}{sign}</span>'
    if '\n' in step.text:  # a displayed formula over several lines
      mark = f'\n\n<div class="{kind}">\n\n{_prose(step.text)}\n\n{sign}</div>\n\n'
    out += [written(solution.text[at : step.begin]), mark]
    at = step.end
  out.append(written(solution.text[at:]))
  if solution.answer is not None and solution.answer != solution.code:
    out.append(f'\n\n<div class="answer"><small>Answer</small>{_answer(solution.answer)}{_verdict(solution)}</div>')
  elif solution.verdict is not None:
    out.append(f'\n\n<div class="answer"><small>Answer</small>{_verdict(solution)}</div>')
  notes = [] if solution.finish_reason == 'stop' else ['ended by the limit of tokens']
  notes += [] if solution.steps_share is None else [f'{solution.steps_share:.0%} of the equalities checked hold']
  if notes:
    out.append(f'\n\n<span class="note">{"; ".join(notes)}</span>')
  return ''.join(out)


def _answer(answer: str) -> str:
  """The content of a box, as a formula."""
  inner = answer.strip()
  if len(inner) > 2 and inner[0] == inner[-1] == '$' and '$' not in inner[1:-1]:
    inner = inner[1:-1]
  return formula(inner)


def _verdict(solution: solve.SampledSolution) -> str:
  if solution.verdict is None:
    return ''
  right = solution.verdict.score == 1
  return f' <span class="{"right" if right else "wrong"}">{"✓ right" if right else "✗ wrong"}</span>'


def one(solutions: list[solve.SampledSolution], i: int) -> str:
  """One solution of a spectrum, with its thinking."""
  thinking, rest = solve.parts(solutions[i].text)
  head = f'**Solution {i + 1}**\n\n'
  if thinking:
    head += f'<details><summary>Thinking</summary>\n\n{written(thinking)}\n\n</details>\n\n'
  return head + with_marks(rest, solutions[i])


# ---- the spectrum


def drawing(solutions: list[solve.SampledSolution], spectrum: solve.SolutionSpectrum) -> str:
  """The clusters as rows of dots, one dot for each solution, as HTML; the answers in it are escaped."""
  rows = [_row('Answer', 'Solutions', 'Share', ' head', 'columnheader')]
  for rank, cluster in enumerate(spectrum.clusters):
    colour = _COLOURS[rank] if rank < len(_COLOURS) else _OTHERS
    rows.append(_cluster(cluster.answer, solutions, cluster.members, colour))
  if spectrum.unanswered:
    rows.append(_cluster(None, solutions, spectrum.unanswered, _NONE))
  told = summary(solutions, spectrum)
  return (
    f'<div class="spectrum"><p class="sum">{html.escape(told)} Choose a dot to read a solution.</p>'
    f'<div role="table" aria-label="Answers">{"".join(rows)}</div></div>'
  )


def summary(solutions: list[solve.SampledSolution], spectrum: solve.SolutionSpectrum) -> str:
  """In a sentence: how many answers there are, which is the most frequent, and how many are right, if that is known."""
  n, kinds, leaders = len(solutions), len(spectrum.clusters), spectrum.leaders
  said = f'{n} solutions, {kinds} different answer{"" if kinds == 1 else "s"}'
  if not kinds:
    said = f'{n} solutions, none with an answer'
  elif len(leaders) == 1:
    said += f'; {spectrum.agreement:.0%} agree on {_named(leaders[0].answer)}'
  else:
    count = len(leaders[0].members)
    names = [_named(leader.answer) for leader in leaders[:4]] + ['others'] * (len(leaders) > 4)
    each = f'{count} solution{"" if count == 1 else "s"} each ({spectrum.agreement:.0%})'
    said += f'; a tie: {", ".join(names[:-1])} and {names[-1]} have {each}'
  judged = [s.verdict.score == 1 for s in solutions if s.verdict is not None]
  return f'{said}. Right: {sum(judged)} of {len(judged)}.' if judged else f'{said}.'


def _named(answer: str) -> str:
  return 'one program' if '\n' in answer else _short(readable(answer))


def readable(answer: str) -> str:
  """An answer in one line without LaTeX, such as 48/7 for \\frac{48}{7}."""
  for pattern, plain in _PLAIN:
    answer = re.sub(pattern, plain, answer)
  return ' '.join(answer.split())


def _short(label: str) -> str:
  return label if len(label) <= _LABEL else f'{label[: _LABEL - 1]}…'


def _cluster(answer: str | None, solutions: list[solve.SampledSolution], members: tuple[int, ...], colour: str) -> str:
  """A row: the answer, the dots of its solutions, and their share. A program keeps its lines."""
  dots = ''.join(_dot(solutions[i], i) for i in members)
  share = f'{len(members)} · {len(members) / len(solutions):.0%}'
  if answer is None:
    return _row('no answer', dots, share, ' none', 'cell', colour)
  judged = {solutions[i].verdict.score == 1 for i in members if solutions[i].verdict is not None}
  sign = ''.join(_SIGNS[right] for right in sorted(judged, reverse=True))
  if all(answer == solutions[i].code for i in members[:1]):
    code = answer if len(answer) <= _PROGRAM else f'{answer[:_PROGRAM]}\n…'
    return _row(f'{sign}<pre>{html.escape(code)}</pre>', dots, share, ' program', 'cell', colour)
  return _row(sign + html.escape(_short(readable(answer))), dots, share, '', 'cell', colour)


def _dot(solution: solve.SampledSolution, i: int) -> str:
  right = None if solution.verdict is None else solution.verdict.score == 1
  said = f'Solution {i + 1}' + {True: ', right', False: ', wrong', None: ''}[right]
  sign = {True: '<i>✓</i>', False: '<i>✗</i>', None: ''}[right]
  return f'<button data-solution="{i}" aria-label="{said}" title="{said}">{i + 1}{sign}</button>'


def _row(label: str, dots: str, share: str, kind: str, role: str, colour: str = _NONE) -> str:
  cells = (('label', label), ('dots', dots), ('count', share))
  inner = ''.join(f'<div class="{name}" role="{role}">{cell}</div>' for name, cell in cells)
  return f'<div class="row{kind}" role="row" style="--dot: {colour}">{inner}</div>'
