"""VibeThinker's training in JAX: from a base model through SFT, fusion and MGPO to a report, and its parts by name.

  import vibethinker_jax as vt

  model, tokenizer = vt.load('runs/tiny/final')
  question = [{'role': 'user', 'content': 'Solve 3x + 12 = 69.'}]
  samples = vt.generate(model, tokenizer, [question], n=4, max_tokens=80)[0]
  vt.grade([sample.text for sample in samples], ['19'] * 4)

A name is loaded when it is first used, so `import vibethinker_jax` is quick and does not start JAX. docs/api.md lists
the names. The command `vibethinker` does the same on files; `experiments/ssp.py --config` runs the whole method.
"""

import importlib
import sys
import types

__version__ = '0.1.0'  # setup.py reads it here

# each public name, and the module that defines it
_DEFINED_IN = {
  'load': 'vibethinker_jax.api',
  'save': 'vibethinker_jax.api',
  'generate': 'vibethinker_jax.api',
  'score': 'vibethinker_jax.api',
  'grade': 'vibethinker_jax.api',
  'fuse': 'vibethinker_jax.api',
  'maxent_weight': 'vibethinker_jax.train.mgpo',
  'advantages': 'vibethinker_jax.train.mgpo',
  'policy_loss': 'vibethinker_jax.train.mgpo',
  'evaluate': 'vibethinker_jax.api',
  'pass_at_k': 'vibethinker_jax.spectrum.passk',
  'plan': 'vibethinker_jax.api',
}
__all__ = ['__version__', *_DEFINED_IN]


def __getattr__(name: str):
  """The public name, loaded (PEP 562). Raises AttributeError for any other."""
  if name not in _DEFINED_IN:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(_DEFINED_IN[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
  """This package. Its public names stay functions when a subpackage of the same name (evaluate, plan) is imported.

  Python would otherwise set the attribute `evaluate` to the subpackage as soon as anything of it is imported, and
  whether `vt.evaluate` can be called would depend on the order of imports.
  """

  def __setattr__(self, name: str, value) -> None:
    if not (name in _DEFINED_IN and isinstance(value, types.ModuleType)):
      super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
