import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vibethinker_jax.data.batches import Batch
from vibethinker_jax.engine.engine import Engine, Request
from vibethinker_jax.model.mesh import ACTIVATION, AT_REST, MeshShape, decode_mesh, make_mesh, place, spec
from vibethinker_jax.train import sft

B, T = 8, 16


@jax.jit
@jax.value_and_grad
def loss(model, batch):
  total, count, _ = sft.loss(model, batch)
  return total / count


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(0)
  ids = lambda: rng.integers(0, 48, (B, T), np.int32)
  segments = np.sort(rng.integers(1, 4, (B, T), np.int32), 1)
  positions = np.stack([np.concatenate([np.arange((row == s).sum()) for s in (1, 2, 3)]) for row in segments])
  return Batch(ids(), ids(), positions.astype(np.int32), segments, rng.random((B, T), np.float32))


@pytest.fixture(scope='module')
def unsharded(make_model, batch):
  """Loss and gradient on one device, by whether embeddings are tied."""
  return {tied: loss(make_model(tied=tied, logit_chunk=8), batch) for tied in (True, False)}


@pytest.mark.parametrize(
  'sizes, tied', [((8, 1, 1, 1), True), ((1, 8, 1, 1), False), ((1, 2, 4, 1), True), ((1, 4, 1, 2), False)]
)
def test_a_mesh_changes_no_number(make_model, batch, unsharded, sizes, tied):
  expected, gradient = unsharded[tied]
  mesh = make_mesh(MeshShape(*sizes))
  with jax.set_mesh(mesh):
    model = place(make_model(tied=tied, logit_chunk=8), mesh)
    assert model.layers.wq[...].sharding.spec == P(None, 'fsdp', 'tensor', None, None)
    assert model.layers.wo[...].sharding.spec == P(None, 'tensor', None, None, 'fsdp')
    assert model.layers.w_down[...].sharding.spec == P(None, 'tensor', 'fsdp')
    assert model.embed[...].sharding.spec == P('tensor', 'fsdp')
    piece = model.embed[...].size // (sizes[1] * sizes[3])
    assert {s.data.size for s in model.embed[...].addressable_shards} == {piece}
    value, sharded = loss(model, jax.device_put(batch, NamedSharding(mesh, spec('BT', ACTIVATION))))
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for a, b, p in zip(jax.tree.leaves(sharded), jax.tree.leaves(gradient), jax.tree.leaves(model), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert a.sharding == p.sharding  # a gradient rests where its parameter does


def test_decoding_on_eight_devices(make_model):
  """The trainer's mesh is set and its model handed over: the same tokens as on one device without any mesh."""
  model = make_model(scale=0.3)
  requests = [Request((1, 2, i), 9, samples=2, number=i) for i in range(6)]
  run = lambda m, **where: {
    (c.request, c.sample): c.tokens.tolist()
    for c in Engine(m.config, [0], rows=12, block=8, **where).generate(m, requests)
  }
  alone = run(model)
  mesh = make_mesh(MeshShape(fsdp=4, tensor=2))
  with jax.set_mesh(mesh):
    assert run(place(model, mesh), mesh=decode_mesh(mesh)) == alone
    assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh


def test_layouts_by_letter():
  assert spec('DKGH', AT_REST) == P('fsdp', 'tensor', None, None)
  assert spec('BTD', ACTIVATION) == P(('data', 'fsdp'), 'seq', None)
  with pytest.raises(ValueError, match='wants 4 devices, there are 8'):
    make_mesh(MeshShape(data=4))
