r"""Is an answer equal to the reference? The structure is compared first, the values last.

A verdict is True, False, or None where only algebra can decide. Algebra is a function of two LaTeX expressions that the
caller passes in. The grader of a batch first passes `undecided`, which always gives None; the answers that are left go
to a worker, which passes the function of algebra.py. So the same rules decide in both places.
"""

import re
from collections.abc import Sequence

from vibethinker_jax.verify import latex, vocabulary
from vibethinker_jax.verify.quantity import quantity, units_agree
from vibethinker_jax.verify.scalars import Equal, every, is_words, letters, readable, scalars, some, spelt, undecided
from vibethinker_jax.verify.structure import (
  Chain,
  Part,
  Scalar,
  Set,
  Several,
  Tuple,
  Union,
  balanced,
  read,
  split,
)

_WHOLE = re.compile(r'-?[0-9]{1,300}')  # the common case of a training run
_CHOICE = re.compile(
  r'(?:(?:the\s+)?(?:option|choice|answer)\s*(?:is\b)?\s*:?\s*)?[(\[]?\s*([A-J])\s*[)\]]?\s*'
  r'(?:[.:)\u2013\u2014-]\s*(?=\D).*|[.:)-]\s.*)?',
  re.DOTALL | re.IGNORECASE,
)
_SUBSCRIPT = r'(?:\s*_\s*(?:\w|\{[^{}]*\}|\\text\{[^{}]*\}))?'
_PRIME = r"(?:\s*\^\s*(?:\\prime|\{\s*\\prime\s*\}))?'*"
_FUNCTION = (
  r'\\(?:frac|sqrt|log|ln|exp|sin|cos|tan|arcsin|arccos|arctan|cot|sec|csc|binom|max|min|gcd|lcm|infty|pi)(?![a-zA-Z])'
)
_SYMBOL = rf"(?!{_FUNCTION})(?:\\?[a-zA-Z]+|\\text\{{[^{{}}]*\}})\s*'*{_SUBSCRIPT}{_PRIME}"
_NAME = re.compile(  # words and symbols, f(x), P:Q, (x,y)
  rf'(?:\\text\{{[^{{}}]*\}}\s*)*(?:{_SYMBOL}\s*)+(?:\([^()]*\))?(?:\s*:\s*{_SYMBOL})?'
  rf'|\((?:\s*{_SYMBOL}\s*,)+\s*{_SYMBOL}\s*\)'
)
_BOTH_SIGNS = re.compile(r'\\(pm|mp)(?![a-zA-Z])')
_SUBSCRIPTED = re.compile(r'(.+?)_\s*(?:\d|\{\s*\d+\s*\})')
_SETS = re.compile(r'\\mathbb|\\emptyset|\\setminus|\\cap|\\backslash')
_EQUALS = frozenset({'=', '\\approx', '\\equiv', '\\sim'})
_ABOUT = frozenset({'\\approx', '\\sim'})


def same(gold: str, pred: str, equal: Equal = undecided) -> bool | None:
  """Whether an answer is equal to a reference; both are contents of boxes. equal: the algebra."""
  if _WHOLE.fullmatch(gold) and _WHOLE.fullmatch(pred):
    return int(gold) == int(pred)
  if (letter := _choice_asked(gold)) is not None:
    return _choice(pred) == letter
  gold, pred = latex.tidy(gold), latex.tidy(pred)
  one, other = latex.tight(gold), latex.tight(pred)
  if one == other:
    return bool(one)
  if not one or not other:
    return False
  if is_words(gold):
    return spelt(gold) == spelt(pred)
  if not balanced(pred) or '\\boxed' in pred or '\\fbox' in pred:
    return False
  parts = read(gold), read(pred)
  parts = _as_list(gold, *parts), _as_list(pred, *reversed(parts))
  if _of_sets(*parts, gold, pred):
    return equal(gold, pred, False)
  return _parts(*parts, equal)


def _as_list(text: str, part: Part, other: Part) -> Part:
  """`60,120` is one number, but two numbers if the other side has several values."""
  if isinstance(part, Scalar) and isinstance(other, Several) and re.fullmatch(r'\d{1,3}(?:,\d{3})+', text):
    return Several(tuple(map(Scalar, text.split(','))))
  return part


# ---- words and letters


def _choice_asked(gold: str) -> str | None:
  r"""The letter of a reference that is an option (`B`, `(B)`, `\text{(B)}`), None for any other."""
  match = re.fullmatch(r'[(\[]?([A-J])[)\]]?\.?', latex.tight(latex.tidy(gold)))
  return match[1] if match else None


def _choice(pred: str) -> str | None:
  """The letter of an answer that is an option: `A`, `(A)`, `A.`, `A: text`, `A - text`, `Option A`; else None."""
  text = re.sub(r'\\(?:text|mathrm|mathbf|textbf|boldsymbol|bm)\s*\{([^{}]*)\}', r' \1 ', pred)
  text = re.sub(r'\\[,;:! ]|~|[*`"$]|\\(?:textbf|left|right)(?![a-z])|\{|\}', ' ', text).strip().rstrip('.,;').strip()
  match = _CHOICE.fullmatch(text) or re.fullmatch(r'\(([A-J])\)\s+.*', text, re.DOTALL)
  return match[1].upper() if match and (match[1].isupper() or len(text) == 1) else None


# ---- structures


def _parts(gold: Part, pred: Part, equal: Equal) -> bool | None:
  gold, pred = _simple(gold), _simple(pred)
  match gold, pred:
    case Chain(), _:
      return _to_relation(gold, pred, equal)
    case _, Chain():
      return _to_value(gold, pred, equal)
    case (Several(), Several()):
      return _lists(gold, pred, equal)
    case (Several(), Tuple('(', _, ')')) | (Tuple('(', _, ')'), Several()):
      return _in_order(_values(gold.parts), _values(pred.parts), equal)
    case (Several() | Set(), Several() | Set()):
      if isinstance(gold, Several) and _named(gold.parts):
        return False
      return _in_any_order(_values(gold.parts), _values(pred.parts), equal)
    case Tuple(), Tuple():
      return every((_brackets(gold, pred), _in_order(gold.parts, pred.parts, equal)))
    case Union(), Union():
      return _in_any_order(gold.parts, pred.parts, equal)
    case Scalar(), Scalar():
      return scalars(gold.text, pred.text, equal)
  return False


def _simple(part: Part) -> Part:
  r"""A part in its simplest form: `\{5\}` and `[5,5]` are 5, `1 \pm 2` is two values, nested lists are one list."""
  match part:
    case Set((one,)):
      return _simple(one)
    case Tuple('[', (Scalar(a), Scalar(b)), ']') if latex.tight(a) == latex.tight(b):
      return Scalar(a)
    case Scalar(text) if (both := _both_signs(text)) is not None:
      return Several(tuple(map(Scalar, both)))
    case Several(parts, connectives) if any(_splits(p) for p in parts):
      return Several(tuple(q for p in parts for q in _spread(p)), connectives)
  return part


def _both_signs(text: str) -> tuple[str, str] | None:
  signs = _BOTH_SIGNS.findall(text)
  if len(signs) != 1:
    return None
  return tuple(_BOTH_SIGNS.sub(sign, text).strip() for sign in ('+-' if signs[0] == 'pm' else '-+'))


def _splits(part: Part) -> bool:
  return (isinstance(part, Scalar) and _both_signs(part.text) is not None) or (
    isinstance(part, Chain) and len(part.members) == 2 and _splits(part.members[1])
  )


def _spread(part: Part) -> Sequence[Part]:
  if not _splits(part):
    return (part,)
  if isinstance(part, Scalar):
    return tuple(map(Scalar, _both_signs(part.text)))
  return tuple(
    Chain((part.members[0], value), part.relations, f'{part.members[0]}{part.relations[0]}{value.text}')
    for value in _spread(part.members[1])
  )


def _of_sets(gold: Part, pred: Part, one: str, other: str) -> bool:
  """Whether both are sets that may be written in different ways: `\\mathbb{R}` and `(-\\infty,\\infty)`."""
  kinds = (Tuple, Union, Set, Scalar)
  return (isinstance(gold, kinds) and isinstance(pred, kinds) and bool(_SETS.search(one) or _SETS.search(other))) or (
    isinstance(gold, Chain)
    and not set(gold.relations) & (vocabulary.LOGIC | {'\\in'})
    and isinstance(pred, Tuple | Union)
    and not set(gold.relations) <= _EQUALS
  )


def _brackets(gold: Tuple, pred: Tuple) -> bool:
  """Whether the brackets are of the same kind; next to an infinity the kind does not matter."""
  ends = ((gold.opening, pred.opening, gold.parts[0]), (gold.closing, pred.closing, gold.parts[-1]))
  return all(a == b or (isinstance(at, Scalar) and '\\infty' in at.text) for a, b, at in ends)


def _in_order(golds: Sequence[Part], preds: Sequence[Part], equal: Equal) -> bool | None:
  if len(golds) != len(preds):
    return False
  return every(_parts(gold, pred, equal) for gold, pred in zip(golds, preds))


def _in_any_order(golds: Sequence[Part], preds: Sequence[Part], equal: Equal) -> bool | None:
  # a point that is given twice counts once; a number that is given twice may be meant twice
  preds = [part for i, part in enumerate(preds) if not (isinstance(part, Tuple) and part in preds[:i])]
  if len(golds) != len(preds):
    return False
  left, unknown = list(preds), False
  for gold in golds:
    verdicts = []
    for pred in left:
      verdicts.append(_parts(gold, pred, equal))
      if verdicts[-1]:
        break
    if verdicts and verdicts[-1]:
      del left[len(verdicts) - 1]
    elif None in verdicts:
      unknown = True
    else:
      return False
  return None if unknown else True


def _lists(gold: Several, pred: Several, equal: Equal) -> bool | None:
  names, others = _named(gold.parts), _named(pred.parts)
  if names and others:
    if sorted(names) != sorted(others):
      return False
    by_name = dict(zip(others, pred.parts))
    return every(_parts(part, by_name[name], equal) for name, part in zip(names, gold.parts))
  if names or others:
    return _in_order(_values(gold.parts), _values(pred.parts), equal)
  if gold.connectives and pred.connectives and gold.connectives != pred.connectives and _relational(gold.parts):
    return False
  return _in_any_order(_values(gold.parts), _values(pred.parts), equal)


def _relational(parts: Sequence[Part]) -> bool:
  return any(isinstance(part, Chain) and not set(part.relations) <= _EQUALS for part in parts)


def _name(part: Part) -> str | None:
  """The name to which an assignment gives a value, such as `x`, `f(x)`, `(p,q)`; None for any other part."""
  if not isinstance(part, Chain) or part.relations[0] not in ('=', '\\in', '\\equiv'):
    return None
  text = split(part.text, {part.relations[0]})[0][0]
  return latex.tight(text) if _NAME.fullmatch(text) else None


def _named(parts: Sequence[Part]) -> list[str]:
  """The names in a list in which each value has its own name; `x_1, x_2` and `x, x` are values of the same name."""
  names = [_name(part) for part in parts]
  if None in names:
    return []
  stems = {match[1] if (match := _SUBSCRIPTED.fullmatch(name)) else name for name in names}
  return names if len(stems) == len(names) else []


def _values(parts: Sequence[Part]) -> list[Part]:
  return [_value(part) if _name(part) is not None else part for part in parts]


def _value(chain: Chain) -> Part:
  """The value that an assignment gives to its name."""
  rest, relations = chain.members[1:], chain.relations[1:]
  if not relations:
    return _simple(rest[0])
  text = chain.text[chain.text.index(chain.relations[0]) + len(chain.relations[0]) :].strip()
  return Chain(rest, relations, text)


# ---- relations


def _to_relation(gold: Chain, pred: Part, equal: Equal) -> bool | None:
  """Compares a reference that is a relation."""
  kinds = set(gold.relations)
  if kinds & vocabulary.LOGIC:
    return False  # they could be equal only as texts, and that was checked before
  if gold.members[0] == Scalar('') and kinds <= _ABOUT:
    return _parts(gold.members[-1], _value(pred) if _starts_about(pred) else pred, equal)
  name = _name(gold)
  if name is None:
    if kinds <= _EQUALS and kinds & _ABOUT:  # 2/3 = about 0.67
      return some(_parts(member, pred, equal) for member in gold.members)
    return _both_relations(gold, pred, equal) if isinstance(pred, Chain) else False
  if not isinstance(pred, Chain):
    return _parts(_value(gold), pred, equal)
  other = _name(pred)
  if other is not None:
    return _parts(_value(gold), _value(pred), equal) if other == name else False
  if len(pred.members) == 2 and pred.relations == ('=',) and '\\in' not in kinds:
    if latex.tight(split(pred.text, {'='})[0][1]) == name:
      return _parts(_value(gold), pred.members[0], equal)
    return _both_relations(gold, pred, equal)
  return _parts(_value(gold), pred, equal) if set(pred.relations) <= _EQUALS else False


def _both_relations(gold: Chain, pred: Chain, equal: Equal) -> bool | None:
  """Compares two relations that name no value: by algebra, if their words agree."""
  one, other = quantity(gold.text), quantity(pred.text)
  if set(pred.relations) & vocabulary.LOGIC or one.counting or one.scale != other.scale or not units_agree(one, other):
    return False
  return equal(gold.text, pred.text, False)


def _starts_about(part: Part) -> bool:
  return isinstance(part, Chain) and part.members[0] == Scalar('') and part.relations[0] in _ABOUT


def _to_value(gold: Part, pred: Chain, equal: Equal) -> bool | None:
  """Compares a reference that is a value with an answer that states relations.

  All members that the answer sets equal must be equal to the reference: `1 = 2 = 5` is not 5. A name may come first,
  and after an approximation sign a value that is about the reference.
  """
  if not set(pred.relations) <= _EQUALS | {'\\in'}:
    return False
  if _starts_about(pred):
    decimal = isinstance(gold, Scalar) and re.search(r'\d\.\d', gold.text)
    return _parts(gold, pred.members[1], equal) if decimal and len(pred.members) == 2 else False
  members, relations = list(pred.members), list(pred.relations)
  if '\\in' in relations and (relations.index('\\in') or _name(pred) is None):
    return False
  if _labels(members[0], pred, gold):
    members, relations = members[1:], relations[1:]
  elif relations[-1] == '=' and _is_symbol(members[-1]):
    members, relations = members[:-1], relations[:-1]
  if Scalar('') in members:
    return False
  segments = [[members[0]]]
  for relation, member in zip(relations, members[1:]):
    if relation in _ABOUT:
      segments.append([member])
    else:
      segments[-1].append(member)
  verdicts = [every(_parts(gold, member, equal) for member in segment) for segment in segments]
  exact = some(verdicts)
  if not exact or len(segments) == 1:
    return exact
  return every(
    True if verdict else every(_roughly(gold, member, equal) for member in segment)
    for verdict, segment in zip(verdicts, segments)
  )


def _roughly(gold: Part, pred: Part, equal: Equal) -> bool | None:
  if not isinstance(gold, Scalar) or not isinstance(pred, Scalar):
    return False
  one, other = quantity(gold.text), quantity(pred.text)
  if not units_agree(one, other) or not readable(other.value, one.value):
    return False
  return equal(one.value, other.value, True)


def _is_symbol(part: Part) -> bool:
  return isinstance(part, Scalar) and re.fullmatch(_SYMBOL, part.text) is not None


def _labels(member: Part, chain: Chain, gold: Part) -> bool:
  """Whether the first member of a chain only names the value: `x`, `f(x)`, `m + n`; a number never does."""
  if _name(chain) is not None:
    return not (isinstance(gold, Scalar) and latex.tight(gold.text) == _name(chain))
  if not isinstance(member, Scalar) or member.text.startswith('-') or (isinstance(gold, Scalar) and letters(gold.text)):
    return False
  return bool(letters(member.text) - {'e', 'i'}) and readable(quantity(member.text).value, '')
