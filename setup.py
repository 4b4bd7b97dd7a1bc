"""Install: `pip install -e .`; with `[test]` for the tests, `[plan]` for ahead-of-time compilation for TPUs."""

from setuptools import find_packages, setup

setup(
  name='vibethinker_jax',
  version='0.1.0',
  description='VibeThinker-1.5B from base model to report: the Spectrum-to-Signal training method in JAX',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=['vibethinker_jax', 'vibethinker_jax.*']),
  package_data={'vibethinker_jax': ['tiny_base/*']},
  install_requires=[
    'absl-py',
    'array-record',
    'datasets',
    'flax>=0.12.8',
    'grain>=0.2.18',
    'jax>=0.10',
    'jinja2',
    'math-verify>=0.9',
    'matplotlib',
    'ml_collections',
    'numpy',
    'optax',
    'orbax-checkpoint>=0.12.8',
    'pyarrow',
    'pylatexenc',
    'rensa',
    'safetensors',
    'scikit-learn',
    'tensorflow-datasets',
    'tokenizers',
    'tqdm',
    'transformers>=5',
  ],
  extras_require={
    'test': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff', 'scipy', 'torch==2.13.0'],
    'cuda': ['jax[cuda12]'],
    'plan': ['libtpu'],
    'tpu': ['jax[tpu]'],
  },
  entry_points={'console_scripts': ['vibethinker = vibethinker_jax.cli:run']},
)
