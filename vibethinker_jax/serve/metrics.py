"""The metrics of a server for Prometheus."""

import prometheus_client as prometheus

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
  """The metrics of one server, in their own registry. live, queued: set by the worker after each step."""

  def __init__(self):
    self.registry = prometheus.CollectorRegistry()
    self.live = 0  # rows in use after the last step
    self.queued = 0  # samples that waited for one
    name = lambda kind, name, what, *more: kind(f'vibethinker_{name}', what, *more, registry=self.registry)
    self.requests = name(
      prometheus.Counter, 'requests', 'Requests by path and by the status answered', ['path', 'status']
    )
    self.gone = name(prometheus.Counter, 'clients_gone', 'Clients that went away before their answer was complete')
    self.tokens = name(prometheus.Counter, 'tokens', 'Tokens drawn')
    self.prompt_tokens = name(prometheus.Counter, 'prompt_tokens', 'Tokens of prompts')
    self.scored = name(prometheus.Counter, 'scored_tokens', 'Tokens of prompts that were scored (echo with logprobs)')
    self.restarts = name(prometheus.Counter, 'engine_restarts', 'Failures of the engine, each followed by a new run')
    self.first_token = prometheus.Histogram(
      'vibethinker_time_to_first_token_seconds',
      'From a request to its first token',
      buckets=_SECONDS,
      registry=self.registry,
    )

  def watch(self, rows: int, worker) -> None:
    """Adds gauges that ask the worker. rows: of the engine."""
    gauges = {
      'rows': ('Rows there are', lambda: rows),
      'rows_in_use': ('Rows that hold a sample', lambda: self.live),
      'samples_waiting': ('Samples waiting for a row', lambda: self.queued),
      'samples_open': ('Samples asked for and not finished', lambda: worker.open),
      'prompts_open': ('Prompts being scored or waiting for it', lambda: worker.scorer.open),
      'tokens_per_second': ('Tokens drawn a second, over the last ten', lambda: worker.tokens_per_second),
      'warm': ('1 once everything was compiled that is compiled beforehand', lambda: float(worker.warm)),
    }
    for name, (what, ask) in gauges.items():
      prometheus.Gauge(f'vibethinker_{name}', what, registry=self.registry).set_function(ask)

  def text(self) -> bytes:
    """Prometheus' text format."""
    return prometheus.generate_latest(self.registry)
