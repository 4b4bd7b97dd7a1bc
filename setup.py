"""Install: `pip install -e .`; with `[test]` for the tests, `[plan]` for ahead-of-time compilation for TPUs."""

import pathlib
import re

from setuptools import find_packages, setup

# read, not imported: a build has none of the package's dependencies
PACKAGE = pathlib.Path(__file__).parent / 'vibethinker_jax' / '__init__.py'
VERSION = re.search(r"^__version__ = '([^']+)'", PACKAGE.read_text(encoding='utf-8'), re.MULTILINE)[1]

setup(
  name='vibethinker_jax',
  version=VERSION,
  description='VibeThinker-1.5B from base model to report: the Spectrum-to-Signal training method in JAX',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=['vibethinker_jax', 'vibethinker_jax.*']),
  package_data={'vibethinker_jax': ['tiny_base/*']},
  install_requires=[
    'absl-py',
    'annotated-types',
    'array-record',
    'datasets',
    'fastapi>=0.110',
    'flax>=0.12.8',
    'gguf>=0.19',
    'gradio>=6',
    'grain>=0.2.18',
    'httptools',
    'jax>=0.10',
    'jinja2',
    'math-verify>=0.9',
    'matplotlib',
    'ml_collections',
    'numpy',
    'optax',
    'orbax-checkpoint>=0.12.8',
    'prometheus-client',
    'pyarrow',
    'pydantic>=2',
    'pylatexenc',
    'rensa',
    'safetensors',
    'scikit-learn',
    'scipy',
    'tensorboardX',
    'tensorflow-datasets',
    'tokenizers',
    'tqdm',
    'transformers>=5',
    'uvicorn>=0.29',
    'uvloop; sys_platform != "win32"',
  ],
  extras_require={
    'test': [
      'accelerate',
      'httpx',
      'hypothesis',
      'ipykernel',
      'nbclient',
      'nbformat',
      'openai',
      'playwright',
      'pytest',
      'pytest-xdist',
      'ruff',
      'schemathesis>=4',
      'torch==2.13.0',
    ],
    'wandb': ['wandb'],
    'cuda': ['jax[cuda12]'],
    'plan': ['libtpu'],
    'tpu': ['jax[tpu]'],
  },
  entry_points={'console_scripts': ['vibethinker = vibethinker_jax.cli.__main__:main']},
)
