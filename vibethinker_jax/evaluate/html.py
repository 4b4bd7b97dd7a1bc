"""The parts of all pages: tables, figures, notes, and the page around them with its styles, light and dark.

A page has no scripts and needs no other file and no network. Every colour is named here. A plot is drawn in the light
colours; on the page each colour is a CSS variable, which has another value on a dark screen.
"""

import html
import io
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from vibethinker_jax import disk

_PALETTE = {  # name: on a light page, on a dark one
  'ink': ('#1c222b', '#e6e9ef'),
  'paper': ('#ffffff', '#181c23'),
  'ground': ('#f6f7f9', '#101318'),
  'soft': ('#5b6472', '#a7afbc'),
  'line': ('#e3e7ed', '#2d333d'),
  'axis': ('#9aa1ad', '#6d7582'),
  'rule': ('#4a515c', '#b8bfca'),
  'grey': ('#8a919c', '#98a0ac'),
  'blue': ('#2457c5', '#82aaff'),
  'orange': ('#d9730d', '#f2a057'),
  'red': ('#b3263e', '#ff8a99'),
  'green': ('#20845a', '#52c591'),
  'purple': ('#7b4bb8', '#bd9cf2'),
  'gold': ('#a8790a', '#dab552'),
  'teal': ('#0f8b9d', '#53c3d3'),
  'pink': ('#c9408f', '#f285bd'),
}

_CSS = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55; overflow-wrap: anywhere;
  font-family: Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .8rem; margin-top: 1.2rem;
  padding: clamp(.8rem, 3vw, 1.2rem); }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 0 0 .8rem; } h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
h4 { font-size: .92rem; margin: 0 0 .4rem; } p { margin: .4rem 0 .8rem; }
small { color: var(--soft); font-weight: 400; font-size: .82em; } .lead { font-size: 1.08rem; }
ul { margin: .4rem 0 .8rem; padding-left: 1.2rem; } li { margin: .25rem 0; }
nav { font-size: .88rem; } nav a { color: var(--blue); margin-right: .9rem; white-space: nowrap; }
.note, .missing { color: var(--soft); font-size: .88rem; } .missing { font-style: italic; }
.keys, .columns, .plots { display: grid; gap: .9rem; margin: .6rem 0; }
.keys, .columns { grid-template-columns: repeat(auto-fit, minmax(min(100%, 16rem), 1fr)); }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.key, .sample { background: var(--ground); border-radius: .6rem; padding: .8rem 1rem; min-width: 0; }
.key h3 { margin: 0; font-size: .86rem; color: var(--soft); } .key p { margin: .2rem 0 0; font-size: .9rem; }
.key .big { font-size: 1.9rem; font-weight: 650; line-height: 1.3; } .big small { font-size: .9rem; }
figure { margin: 0; min-width: 0; } figure svg { display: block; width: 100%; height: auto; }
figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .2rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: right; padding: .4rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 550; } thead th { vertical-align: bottom; }
th[scope=row] { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; max-width: 22rem; }
.value { display: inline-block; min-width: 7rem; white-space: normal; overflow-wrap: anywhere; }
td small, thead small { display: block; line-height: 1.3; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
.bar { display: block; height: .6rem; min-width: 1px; border-radius: .2rem; background: var(--blue); }
article { border-top: 1px solid var(--line); } .sample p { margin: .5rem 0 0; font-size: .85rem; }
pre, .sample p { white-space: pre-wrap; overflow-wrap: anywhere; }
.sample pre { max-height: 20rem; overflow-y: auto; }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .82rem; }
pre { margin: 0; }
.right, .wrong { font-size: .8rem; font-weight: 650; border-radius: 1rem; padding: .1rem .55rem; }
.right { --mark: var(--green); } .wrong { --mark: var(--red); }
.right, .wrong { background: color-mix(in srgb, var(--mark) 14%, var(--paper));
  color: color-mix(in srgb, var(--mark) 70%, var(--ink)); }
@media (max-width: 40rem) { th[scope=row] { max-width: 9.5rem; } th, td { padding: .4rem .5rem; } }
"""


def colour(name: str) -> str:
  """The light colour of that name, in which plots are drawn."""
  return _PALETTE[name][0]


def missing(text: str) -> str:
  """A paragraph that says what the page cannot show, as markup."""
  return f'<p class="missing">{text}</p>'


def note(text: str) -> str:
  """A paragraph in small print, as markup."""
  return f'<p class="note">{text}</p>'


def value(value: object) -> str:
  """A value for a table: a text as it is, a number shortened, everything else as JSON."""
  if isinstance(value, float):
    return f'{value:,.4g}' if math.isfinite(value) else '–'
  if isinstance(value, int) and not isinstance(value, bool):
    return f'{value:,}'
  if isinstance(value, list) and all(isinstance(part, str) for part in value):
    return html.escape(', '.join(value))
  return html.escape(value if isinstance(value, str) else json.dumps(value))


def percent(value: float) -> str:
  """A number with one decimal and a per cent sign; a dash for NaN."""
  return f'{value:.1f}%' if math.isfinite(value) else '–'


def duration(seconds: float) -> str:
  """Seconds as hours, minutes and seconds; a dash for NaN."""
  if not seconds >= 60:
    return f'{seconds:.1f} s' if math.isfinite(seconds) else '–'
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02d} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table as markup. `head` and `rows` hold markup; the first cell of a row is its heading."""
  top = ''.join(f'<th scope="col">{cell}</th>' for cell in head)
  body = ''.join(
    f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
  )
  return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def plots_of(figures: Sequence[tuple[str, Figure]], tag: str) -> str:
  """Figures with their titles, as markup; `tag` makes their element ids differ from those of other groups."""
  cards = [
    f'<figure><figcaption>{html.escape(title)}</figcaption>{_svg(figure, f"{tag}{i}", title)}</figure>'
    for i, (title, figure) in enumerate(figures)
  ]
  return f'<div class="plots">{"".join(cards)}</div>'


def _svg(figure: Figure, tag: str, alt: str) -> str:
  """Inline SVG; `tag` makes its element ids differ from those of the other plots of the page."""
  buffer = io.StringIO()
  with matplotlib.rc_context({'svg.fonttype': 'path', 'svg.hashsalt': tag}):
    blank = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(buffer, format='svg', facecolor='none', metadata=blank)
  text = buffer.getvalue()
  text = re.sub(r'<!--.*?-->|<metadata>.*?</metadata>|\s+xmlns(:\w+)?="[^"]*"', '', text, flags=re.DOTALL)
  text = text[text.index('<svg') :].replace(' id="', f' id="{tag}-').replace('url(#', f'url(#{tag}-')
  text = text.replace('xlink:href="#', f'href="#{tag}-')
  text = re.sub(r'(?<=(?:fill|roke): )#[0-9a-f]{6}\b', _named, text)
  width = figure.get_size_inches()[0] * 96
  head = f'<svg role="img" aria-label="{html.escape(alt)}" style="max-width:{width:.0f}px"'
  return re.sub(r'<svg width="[^"]*" height="[^"]*"', head, text, count=1).strip()


def _named(colour: re.Match) -> str:
  """A colour of the palette as the variable of the page; the colour itself counts where there is no such variable."""
  light = colour.group()
  return next((f'var(--{name}, {light})' for name, pair in _PALETTE.items() if pair[0] == light), light)


def _variables() -> str:
  """The variables of the styles, for light and for dark screens; a printed page is light."""
  light, dark = (''.join(f' --{name}: {pair[i]};' for name, pair in _PALETTE.items()) for i in (0, 1))
  return (
    f'\n:root {{ color-scheme: light dark;{light} }}\n'
    f'@media screen and (prefers-color-scheme: dark) {{ :root {{{dark} }} }}'
  )


def write_page(path: pathlib.Path, name: str, subtitle: str, sections: Mapping[str, str]) -> pathlib.Path:
  """Writes a page.

  Args:
    path: the file.
    name: the heading, as text.
    subtitle: below it, as text.
    sections: markup by title, in order.

  Returns `path`.
  """
  name = html.escape(name)
  links = ''.join(f'<a href="#s{i}">{title}</a> ' for i, title in enumerate(sections))
  body = '\n'.join(
    f'<section id="s{i}"><h2>{title}</h2>{text}</section>' for i, (title, text) in enumerate(sections.items())
  )
  page = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{name}: report</title><style>{_variables()}{_CSS}</style></head>\n'
    f'<body><main><h1>{name}</h1><p class="note">{html.escape(subtitle)}</p><nav>{links}</nav>\n{body}\n'
    '</main></body></html>\n'
  )
  # A reader who opens the page while a run rewrites it gets the old page or the new one, never a part of it.
  with disk.atomic(path) as half:
    half.write_text(page, encoding='utf-8')
  return path
