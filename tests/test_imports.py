"""The direction of the rooms (docs/architecture.md): no cycle, no upward arrow."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / 'vibethinker_jax'

# rank of each room, or of a file where it differs from its room's
RANKS = {
  'errors': -1,
  'distributed': -1,
  'boxes': 0,
  'fields': 0,
  'runtime': -1,
  'compiled': 0,
  'disk': 0,
  'config_io': 1,
  'shared_files': 1,
  'lock': 1,
  'provenance': 1,
  'model': 1,
  'data': 1,
  'verify': 1,
  'spectrum': 1,
  'train.mgpo': 1,
  'train.alarm': 1,
  'train.metric_writer': 2,
  'train.profile': 1,
  'engine': 2,
  'model_directory': 2,
  'workdir': 2,
  'train.optim': 2,
  'train.state': 2,
  'rollout': 3,
  'train.sft': 3,
  'train.rl_batches': 3,
  'train.rl_loss': 3,
  'train.rl': 4,
  'evaluate': 4,
  'config': 5,
  'serve': 5,
  'run_data': 6,
  'tasks': 6,
  'plan': 6,
  'experts': 6,
  'run_summary': 6,
  'ssp': 7,
  'study': 8,
  'reproduce': 8,
  'api': 8,
  'cli': 9,
  'config_docs': 9,
}


def modules() -> dict[str, pathlib.Path]:
  return {'.'.join(p.relative_to(PACKAGE).with_suffix('').parts): p for p in PACKAGE.rglob('*.py')}


def arrows(path: pathlib.Path, known) -> set[str]:
  """Modules of the package that a file imports, wherever in it the import stands."""
  out = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [a.name for a in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
      names = [node.module, *(f'{node.module}.{a.name}' for a in node.names)]
    else:
      continue
    out |= {n.removeprefix('vibethinker_jax.') for n in names if n.startswith('vibethinker_jax.')}
  return out & set(known)


def place(module: str) -> str:
  """The key of RANKS a module falls under."""
  return module if module in RANKS else module.split('.')[0]


def upward(edges: dict[str, set[str]]) -> list[str]:
  """Arrows that do not point to a lower rank or stay in their own room."""
  bad = []
  for module, targets in edges.items():
    for target in targets:
      own_room = module.split('.')[0] == target.split('.')[0] and RANKS[place(module)] >= RANKS[place(target)]
      if not own_room and RANKS[place(module)] <= RANKS[place(target)]:
        bad.append(f'{module} -> {target}')
  return bad


def cycle(edges: dict[str, set[str]]) -> list[str] | None:
  done: set[str] = set()

  def visit(module, trail):
    if module in trail:
      return [*trail[trail.index(module) :], module]
    if module in done:
      return None
    for target in edges[module]:
      if found := visit(target, [*trail, module]):
        return found
    done.add(module)
    return None

  return next((found for m in edges if (found := visit(m, []))), None)


def edges() -> dict[str, set[str]]:
  known = modules()
  return {m: arrows(p, known) for m, p in known.items() if not m.endswith('__init__')}


def test_imports_point_down():
  assert upward(edges()) == []


def test_no_cycle():
  assert cycle(edges()) is None


def test_every_module_has_a_rank():
  assert [m for m in edges() if place(m) not in RANKS] == []


def test_these_tests_can_fail():
  assert upward({'model.qwen2': {'engine.engine'}, 'engine.engine': set()}) == ['model.qwen2 -> engine.engine']
  assert cycle({'a': {'b'}, 'b': {'a'}}) == ['a', 'b', 'a']
