"""A small run of the whole pipeline: what the tests of the pipeline share."""

import dataclasses
import os
import pathlib

import jax
from shrunken import ROOT, config, shrink

from vibethinker_jax.config import RunConfig
from vibethinker_jax.config_io import freeze

TWO = jax.devices()[:2]  # the session has eight
DATA = pathlib.Path(os.environ.get('VIBETHINKER_DATA', ROOT.parent / 'shared' / 'data'))


def small_settings() -> RunConfig:
  return freeze(RunConfig, shrink(config('tiny')))


def with_(settings, **parts):
  """RunConfig with fields of their parts replaced: with_(s, rl=dict(prompts=3))."""
  return dataclasses.replace(
    settings, **{part: dataclasses.replace(getattr(settings, part), **fields) for part, fields in parts.items()}
  )
