"""What is written beside metrics.jsonl: TensorBoard's events, and the profile of one step."""

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event

from vibethinker_jax.errors import BadInput
from vibethinker_jax.train.metric_writer import MetricWriter
from vibethinker_jax.train.profile import Profile


def events(folder):
  """Events of a TensorBoard directory in the order of its files: length, its checksum, the event, its checksum."""
  out = []
  for path in sorted(folder.glob('events*')):
    data = path.read_bytes()
    while data:
      length = int.from_bytes(data[:8], 'little')
      event = Event()
      event.ParseFromString(data[12 : 12 + length])
      out.append(event)
      data = data[16 + length :]
  return out


def test_tensorboard_gets_the_same_numbers_and_forgets_what_was_taken_back(tmp_path):
  writer = MetricWriter(tmp_path / 'metrics.jsonl')
  for step in (1, 2, 3):
    writer.write('rl/math', step, {'reward': step / 8, 'kl': float('nan')})
  writer.close()
  again = MetricWriter(tmp_path / 'metrics.jsonl')
  again.rewind('rl/math', 1)
  again.write('rl/math', 2, {'reward': 0.5})
  again.close()
  assert [(row['step'], row['reward']) for row in again.rows('rl/math')] == [(1, 0.125), (2, 0.5)]
  kept = {}
  for event in events(tmp_path / 'tensorboard' / 'rl' / 'math'):
    if event.HasField('session_log'):  # TensorBoard drops what came from this step on
      kept = {at: value for at, value in kept.items() if at[1] < event.step}
    for value in event.summary.value:
      kept[value.tag, event.step] = value.simple_value
  assert kept == {('reward', 1): 0.125, ('reward', 2): 0.5}


def test_weights_and_biases_is_asked_for_and_absent(tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(BadInput, match='pip install wandb'):
    MetricWriter(tmp_path / 'metrics.jsonl', 'project')


def test_one_step_is_profiled(tmp_path):
  profile = Profile('rl/math:2', tmp_path)
  for step in (1, 2, 3):
    profile('rl/math', step)
    jax.numpy.ones(3).sum().block_until_ready()
  profile.end()
  folder = tmp_path / 'profile' / 'rl' / 'math' / '2'
  assert list(folder.rglob('*.xplane.pb')) and (folder / 'memory.prof').stat().st_size > 0
  assert [p.name for p in (tmp_path / 'profile' / 'rl' / 'math').iterdir()] == ['2']
  for wrong in ('3', 'rl/math', 'rl/math:x', ':3'):
    with pytest.raises(BadInput, match='expected STAGE:STEP'):
      Profile(wrong, tmp_path)
