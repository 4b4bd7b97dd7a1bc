"""argparse with one line for every mistake on a command line, and with defaults in every help."""

import argparse
import difflib
import itertools
import pathlib
import re
from collections.abc import Collection, Sequence

from vibethinker_jax.cli import flags
from vibethinker_jax.errors import BadInput


class Help(argparse.ArgumentDefaultsHelpFormatter):
  """Shows the default of a flag, unless there is none, the flag is off by default, or its help names the default."""

  def _get_help_string(self, action: argparse.Action) -> str | None:
    if 'default' in (action.help or '') or action.default is None or action.default is False or action.default == []:
      return action.help
    return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
  """Raises BadInput where argparse would exit."""

  def error(self, message: str):
    raise BadInput(f'{message} (see {self.prog} --help)')


class VerbParser(Parser):
  """The flags of one verb. An unknown flag is reported, with the nearest known one, before a missing flag is.

  If a flag is given twice, the last one counts. A path may not be an empty text.
  """

  def prepare(self) -> None:
    """Must be called before flags are added."""
    self.register('type', pathlib.Path, flags.path)

  def parse_known_args(self, args: Sequence[str], namespace: argparse.Namespace | None = None):
    known = self._option_string_actions  # there is no public name for it
    if '--set' in known:
      args = _as_set(args)
    for given in itertools.takewhile('--'.__ne__, args):
      name = given.partition('=')[0]
      if _is_flag(given) and name not in known:
        self.error(f'unknown flag {name}{near(name, known)}')
    return super().parse_known_args(args, namespace)


def _as_set(args: Sequence[str]) -> list[str]:
  """--config.a.b=VALUE, as experiments have it, in the form --set a.b=VALUE."""
  out, args = [], [*args]
  while args:
    given = args.pop(0)
    if given == '--':
      return [*out, given, *args]
    if (match := re.fullmatch(r'--config\.([^=]+)(=.*)?', given, re.DOTALL)) is None:
      out.append(given)
    else:
      out.append(f'--set={match[1]}{match[2] or (f"={args.pop(0)}" if args else "")}')
  return out


def _is_flag(given: str) -> bool:
  """Whether argparse takes an argument for a flag: - is stdin, -1 is a number, and a flag contains no space."""
  return given.startswith('-') and re.fullmatch(r'-|-[\d.].*|.*\s.*', given.partition('=')[0]) is None


def near(name: str, known: Collection[str]) -> str:
  """', did you mean ...?' where one of `known` is like `name`, else nothing."""
  found = difflib.get_close_matches(name.lower(), known, 1)
  return f', did you mean {found[0]}?' if found else ''
