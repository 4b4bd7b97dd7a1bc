"""Compiled programs on disk: bounded, and never in the way."""

import os

from vibethinker_jax import compiled


def test_the_oldest_are_deleted_beyond_the_size(tmp_path, monkeypatch):
  monkeypatch.setattr(compiled, 'SIZE', 25)
  for i in range(4):
    (tmp_path / f'{i}-cache').write_bytes(b'x' * 10)
    os.utime(tmp_path / f'{i}-cache', (i, i))
  compiled._trim(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['2-cache', '3-cache']
  compiled._trim(tmp_path / 'missing')


def test_without_a_home_there_is_no_cache(monkeypatch):
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr('pathlib.Path.home', lambda: (_ for _ in ()).throw(RuntimeError('no home')))
  assert compiled.default() is None
