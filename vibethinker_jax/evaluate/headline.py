"""The effect of each stage of a run, in sentences: what got better, what did not change, what got worse.

Each stage is compared with the model before it. So the fused model is compared with the last SFT checkpoint and with
the best single checkpoint, not with the base.
"""

import html
import math

from vibethinker_jax.evaluate.html import missing, percent
from vibethinker_jax.evaluate.summary import Change, Models, headline_domains, ks_of, label, measured, score_of

_MOST = 5  # scores that fell and are named
_ROAD = (('SFT', 'base', 'last'), ('fusion', 'last', 'fused'), ('RL', 'fused', 'rl'))


def headline(m: Models) -> str:
  """The sentences, and a card for each stage, as markup."""
  k, domain = ks_of(m.summary)[-1], (headline_domains(m.summary) or ['math'])[0]
  said, cards = [], []
  stages = [
    ('SFT', 'base', 'last', domain, k),
    ('Fusion', 'last', 'fused', domain, k),
    *(('MGPO', 'fused', 'rl', domain, at) for at in ks_of(m.summary)),
    *(('MGPO', 'fused', 'rl', 'code', at) for at in ks_of(m.summary)),
  ]
  for what, before, after, where, at in stages:
    metric = f'Pass@{at} on {html.escape(where)}'
    change = m.change(before, after, where, at)
    if what == 'Fusion' and m.of('fused'):
      sentence, text = _fusion(m, domain, k)
      said.append(sentence)
    elif math.isfinite(change.points):
      said.append(_moved(what, metric, change))
      text = _big(change, after, f'against {change.before} of {label(before)}', str(change))
    else:
      text = missing(f'Needs the models {before} and {after}: not in this run.')
    cards.append((f'{what}: {metric}', text))
  said += _worse(m)
  said = [sentence for sentence in said if sentence] or ['This run does not have two stages to compare yet.']
  lead = ''.join(f'<li>{sentence}</li>' for sentence in said)
  keys = ''.join(f'<div class="key"><h3>{title}</h3>{text}</div>' for title, text in cards)
  return f'<ul class="lead">{lead}</ul><div class="keys">{keys}</div>'


def _moved(what: str, metric: str, change: Change) -> str:
  before, after = percent(change.before.value), percent(change.after.value)
  if before == after:
    return f'{what} left {metric} at {after}' + (f' ({change.interval}).' if change.interval else '.')
  return f'{what} moved {metric} from {before} to {after} ({change}).'


def _big(change: Change, model: str, against: str, verdict: str) -> str:
  return f'<p class="big">{change.after}</p><p>{html.escape(label(model))}, {against}</p><p><b>{verdict}</b></p>'


def singles(m: Models, domain: str, k: int) -> list[str]:
  """The models that are single checkpoints, each under one name; the best in Pass@k on `domain` first."""
  names = [next(n for n in g if n == 'last' or n.startswith('expert_')) for g in m.groups if _is_single(g)]
  have = [name for name in names if math.isfinite(score_of(m.summary, name, domain, k).value)]
  return sorted(have, key=lambda name: -score_of(m.summary, name, domain, k).value)


def _is_single(group: tuple[str, ...]) -> bool:
  return any(name == 'last' or name.startswith('expert_') for name in group)


def _fusion(m: Models, domain: str, k: int) -> tuple[str, str]:
  """The sentence about the fused model, and the text of its card."""
  group = m.of('fused') or ()
  metric = f'Pass@{k} on {html.escape(domain)}'
  fused = score_of(m.summary, 'fused', domain, k)
  if _is_single(group):
    others = tuple(name for name in group if name != 'fused')
    same = 'the last checkpoint' if 'last' in group else label(*others)
    sentence = f'Fusion changed nothing: the fused model is {html.escape(same)}.'
    if 'last' in group and all(set(g) <= set(group) for g in m.groups if _is_single(g)):
      sentence = 'Fusion changed nothing: all domains chose the last checkpoint, and the fused model is that one.'
    return sentence, f'<p class="big">{fused}</p><p>{html.escape(label(*group))}</p><p><b>one model</b></p>'
  ranked = singles(m, domain, k)
  if not ranked:  # neither the last checkpoint nor an expert was evaluated
    change = m.change('base', 'fused', domain, k)
    if not math.isfinite(change.points):
      return '', missing('Needs the models last and fused: not in this run.')
    sentence = _moved('SFT and fusion together', metric, change)
    return sentence, _big(change, 'fused', f'against {change.before} of base', str(change))
  against = dict.fromkeys([*(['last'] if 'last' in ranked else []), ranked[0]])
  parts = []
  for name in against:
    change = m.change(name, 'fused', domain, k)
    same = m.of(name) or (name,)
    known = 'the last checkpoint' if 'last' in same else f'the best single one ({label(*same)})'
    known += ', the best single one' if 'last' in same and name == ranked[0] else ''
    parts.append(f'{change} to the {percent(change.before.value)} of {html.escape(known)}')
  sentence = f'The fused model has {percent(fused.value)} {metric}: {"; ".join(parts)}.'
  rows = ''.join(f'<p><b>{part}</b></p>' for part in parts)
  return sentence, f'<p class="big">{fused}</p><p>fused</p>{rows}'


def _worse(m: Models) -> list[str]:
  """Sentences about the scores that fell from stage to stage, the largest falls first.

  Falls whose interval does not contain 0 have a sentence of their own.
  """
  fell, compared = [], False
  for what, before, after in _ROAD:
    if m.of(before) is None or m.of(before) == m.of(after):
      continue
    for domain in measured(m.summary):
      for k in ks_of(m.summary):
        change = m.change(before, after, domain, k)
        compared |= math.isfinite(change.points)
        if change.points <= -0.05:
          values = f'{percent(change.before.value)} to {percent(change.after.value)}'
          fell.append((change, f'Pass@{k} on {html.escape(domain)} after {what}, {values} ({change})'))
  fell.sort(key=lambda one: (not one[0].is_clear, one[0].points))
  said = []
  for clear, head in ((True, 'What got worse:'), (False, 'Lower, by no more than chance may do:')):
    found = [text for change, text in fell if change.is_clear == clear]
    rest = f'; and {len(found) - _MOST} smaller falls' if len(found) > _MOST else ''
    if found:
      said.append(f'<b>{head}</b> {"; ".join(found[:_MOST])}{rest}.')
  return said or ['Nothing that was measured fell.'] * compared
