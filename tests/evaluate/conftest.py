"""A made-up run and its page."""

import numpy as np
import pytest
from run_page import make_metrics, make_samples, make_summary, render, write_workdir


@pytest.fixture
def parts():
  rng = np.random.default_rng(0)
  return make_summary(rng), make_metrics(rng), make_samples()


@pytest.fixture(scope='module')
def whole():
  """Parts that no test changes: the page of all of them takes seconds to draw."""
  rng = np.random.default_rng(0)
  return make_summary(rng), make_metrics(rng), make_samples()


@pytest.fixture(scope='module')
def page(tmp_path_factory, whole):
  return render(write_workdir(tmp_path_factory.mktemp('page'), *whole))


@pytest.fixture
def small(parts):
  """A summary of two domains and one expert."""
  summary = parts[0]
  for model, row in summary['models'].items():
    summary['models'][model] = {domain: row[domain] for domain in ('algebra', 'math')}
  summary['experts'] = {'algebra': summary['experts']['algebra']}
  return summary
