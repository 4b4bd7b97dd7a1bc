"""The clients that docs/serving.md names, each as its users use it, against the tiny base.

A client is looked for among what is installed here, and else as a virtual environment of its name in the folder that
VIBETHINKER_CLIENTS names (`python -m venv DIR/llm && DIR/llm/bin/pip install llm`).
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vibethinker_jax.config import TINY_BASE
from vibethinker_jax.data import synthetic
from vibethinker_jax.engine.engine import Engine
from vibethinker_jax.engine.score import score
from vibethinker_jax.serve.service import Service
from vibethinker_jax.serve.worker import Worker

pytestmark = pytest.mark.slow
QUESTION = 'Solve 7x + 12 = 61.'


@pytest.fixture(scope='module')
def site(tiny, graders, served):
  """A server with all positions of the model, since some clients have long prompts."""
  _, model, tokenizer = tiny
  engine = Engine(model.config, tokenizer.stop_ids, rows=8, block=8)
  engine.row_sizes = [8]
  with served(Service('vibethinker', tokenizer, Worker(engine, model, 8), graders)) as live:
    yield live


@pytest.fixture(scope='module')
def said(site):
  """said(text): what the server answers to a user, greedily."""

  def said(text: str) -> str:
    messages = [{'role': 'user', 'content': text}]
    answer = site.client().chat.completions.create(model='vibethinker', messages=messages, temperature=0)
    return answer.choices[0].message.content

  return said


@pytest.fixture
def run(site, tmp_path):
  """run(client, *arguments): what a module of a client, as `python -m`, or a program of it writes."""

  def run(client: str, *arguments: str, **more: str) -> str:
    command = [python_of(client), *arguments]
    environment = {
      **{k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'OPENAI_', 'LLM_', 'AIDER_'))},
      **{'HOME': str(tmp_path), 'URL': f'{site.url}/v1', 'OPENAI_API_KEY': 'none', 'QUESTION': QUESTION},
      **{'HF_HUB_OFFLINE': '1', 'HF_DATASETS_OFFLINE': '1', 'LITELLM_LOCAL_MODEL_COST_MAP': 'True'},
      **more,
    }
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout

  return run


def python_of(client: str) -> str:
  """An interpreter that has the client; skips where there is none."""
  if importlib.util.find_spec(client) is not None:
    return sys.executable
  own = pathlib.Path(os.environ.get('VIBETHINKER_CLIENTS', '/nonexistent')) / client / 'bin' / 'python'
  if not own.exists():
    pytest.skip(f'{client} is installed neither here nor in a virtual environment in VIBETHINKER_CLIENTS')
  return str(own)


def answers(run, client: str, program: str) -> list:
  """What the program of a client prints as JSON; some clients print other lines too."""
  return [json.loads(line)[0] for line in run(client, '-c', program).splitlines() if line.startswith('[')]


OPENAI = """
import json, os, openai
client = openai.OpenAI(base_url=os.environ['URL'])
say = lambda value: print(json.dumps([value]))
user = {'role': 'user', 'content': os.environ['QUESTION']}
ask = lambda *messages, **more: client.chat.completions.create(
    model='vibethinker', messages=messages, temperature=0, **more)
first = ask(user).choices[0].message
say(first.content)
say(''.join(c.choices[0].delta.content or '' for c in ask(user, stream=True)))
say(ask(user, first, user).usage.prompt_tokens)
with client.chat.completions.stream(model='vibethinker', messages=[user], temperature=0) as stream:
    stream.until_done()
    say(stream.get_final_completion().choices[0].message.content)
say(client.completions.create(model='vibethinker', prompt='7', max_tokens=0, echo=True, logprobs=1).choices[0].text)
tool = {'type': 'function', 'function': {'name': 'f'}}
for more in ({'tools': [tool]}, {'response_format': {'type': 'json_object'}}):
    try:
        ask(user, **more)
    except openai.BadRequestError as error:
        say(error.param)
"""

LANGCHAIN = """
import json, os
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI
say = lambda value: print(json.dumps([value]))
at = dict(base_url=os.environ['URL'], model='vibethinker', temperature=0, max_retries=0)
model, question = ChatOpenAI(**at), os.environ['QUESTION']
first = model.invoke(question)
say(first.content)
say(''.join(chunk.content for chunk in model.stream(question)))
say([answer.content for answer in model.batch([question] * 3)])
parts = HumanMessage([{'type': 'text', 'text': question}])
history = [SystemMessage('Be brief.'), HumanMessage(question), first, parts]
say(model.invoke(history).usage_metadata['output_tokens'] > 0)
told = model.bind(logprobs=True, top_logprobs=2).invoke(question).response_metadata['logprobs']
say(told['content'][0]['token'])
say(OpenAI(**at).invoke('Solve') != '')
try:
    model.bind_tools([{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]).invoke(question)
except Exception as error:
    say('tools: not supported' in str(error))
"""

LITELLM = """
import json, os, litellm
say = lambda value: print(json.dumps([value]))
at = dict(api_base=os.environ['URL'], temperature=0)
user = {'role': 'user', 'content': os.environ['QUESTION']}
ask = lambda *messages, **more: litellm.completion('openai/vibethinker', [*messages], **at, **more)
first = ask(user).choices[0].message
say(first.content)
chunks = ask(user, stream=True, stream_options={'include_usage': True})
say(''.join(c.choices[0].delta.content or '' for c in chunks if c.choices))
say(ask(user, first, user).choices[0].message.content == ask(user, first.model_dump(), user).choices[0].message.content)
raw = litellm.text_completion(model='text-completion-openai/vibethinker', prompt='Solve', max_tokens=5, **at)
say(raw.choices[0].text != '')
try:
    ask(user, tools=[{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}])
except litellm.BadRequestError as error:
    say('tools: not supported' in str(error))
"""


def test_openai(run, said):
  text = said(QUESTION)
  first, streamed, prompt, final, echo, *refused = answers(run, 'openai', OPENAI)
  assert first == streamed == final == text
  assert prompt > 22 and echo == '7' and refused == ['tools', 'response_format.type']


def test_langchain(run, said):
  text = said(QUESTION)
  out = answers(run, 'langchain_openai', LANGCHAIN)
  assert out == [text, text, [text] * 3, True, text[: len(out[4])], True, True]


def test_litellm(run, said):
  text = said(QUESTION)
  assert answers(run, 'litellm', LITELLM) == [text, text, True, True, True]


def test_llm(run, said, site, tmp_path):
  model = {'model_id': 'vibethinker', 'model_name': 'vibethinker', 'api_base': f'{site.url}/v1', 'api_key_name': 'none'}
  (tmp_path / 'extra-openai-models.yaml').write_text(json.dumps([model]))
  ask = lambda *more: run('llm', '-m', 'llm', *more, LLM_USER_PATH=str(tmp_path)).removesuffix('\n')
  greedy = ('-m', 'vibethinker', '-o', 'temperature', '0')
  assert ask('prompt', *greedy, QUESTION) == ask('prompt', *greedy, '--no-stream', QUESTION) == said(QUESTION)
  assert ask('prompt', '-c', QUESTION), 'the conversation goes on'


def test_aider(run, site, tmp_path):
  flags = '--model openai/vibethinker --no-git --yes-always --no-check-update --analytics-disable --no-pretty'
  flags += ' --no-show-model-warnings --no-show-release-notes --map-tokens 0 --no-stream --edit-format ask'
  out = run('aider', '-m', 'aider', *flags.split(), '--openai-api-base', f'{site.url}/v1', '--message', QUESTION)
  assert ' sent, ' in out and 'received' in out and 'BadRequest' not in out


def tasks(directory: pathlib.Path) -> None:
  """A multiple-choice task and a generation task, on problems of the embedded world."""
  problems = [p for p in synthetic.problems('algebra', 'test', 8, seed=0) if p.answer.isdigit()]
  rows = [
    {'question': p.prompt, 'answer': p.answer, 'choices': [f'\\boxed{{{int(p.answer) + i}}}' for i in range(3)]}
    for p in problems
  ]
  (directory / 'rows.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  shared = {
    'dataset_path': 'json',
    'dataset_kwargs': {'data_files': {'test': str(directory / 'rows.jsonl')}},
    'test_split': 'test',
    'doc_to_text': '{{question}}',
  }
  # a line's end is a token by itself, wherever a text is cut
  choice = {
    'output_type': 'multiple_choice',
    'target_delimiter': '\n',
    'doc_to_choice': '{{choices}}',
    'doc_to_target': 0,
  }
  until = {'until': ['<|im_end|>'], 'max_gen_toks': 80, 'temperature': 0, 'do_sample': False}
  free = {'output_type': 'generate_until', 'doc_to_target': '{{answer}}', 'generation_kwargs': until}
  free['metric_list'] = [{'metric': 'exact_match', 'aggregation': 'mean', 'higher_is_better': True}]
  for name, own in (('tiny_choice', choice), ('tiny_free', free)):
    (directory / f'{name}.yaml').write_text(json.dumps({'task': name, **shared, **own}))  # JSON is YAML


def evaluated(run, directory: pathlib.Path, model: str, task: str, arguments: str, *more: str) -> list[dict]:
  """lm_eval's samples of a task."""
  where = ['--include_path', str(directory), '--output_path', str(directory / model), '--log_samples']
  run('lm_eval', '-m', 'lm_eval', '--model', model, '--model_args', arguments, '--tasks', task, *where, *more)
  (samples,) = (directory / model).glob(f'**/samples_{task}_*.jsonl')
  return [json.loads(line) for line in samples.read_text().splitlines()]


@pytest.mark.parametrize('more', ['num_concurrent=1', 'num_concurrent=3,tokenized_requests=False'])
def test_lm_eval_multiple_choice(run, site, tiny, tmp_path, more):
  """The log-likelihoods are those of scoring the same tokens here."""
  tasks(tmp_path)
  arguments = f'model=vibethinker,base_url={site.url}/v1/completions,tokenizer={TINY_BASE},{more}'
  samples = evaluated(run, tmp_path, 'local-completions', 'tiny_choice', arguments, '--batch_size', '4')
  encode = lambda text: tiny[2].hf.encode(text, add_special_tokens=False)
  assert len(samples) >= 4
  for sample in samples:
    for (((logp, greedy),),), argument in zip(zip(sample['resps']), sample['arguments'].values(), strict=True):
      context, ids = encode(argument['arg_0']), encode(argument['arg_0'] + argument['arg_1'])
      ((_, scored),) = score(tiny[1], [ids], top=True)
      np.testing.assert_allclose(float(logp), scored.logps[len(context) - 1 :].sum(), atol=1e-3)
      own = scored.top_ids[len(context) - 1 :, 0].tolist() == ids[len(context) :]
      assert str(greedy) == str(own)


def test_lm_eval_generation(run, site, said, tmp_path):
  tasks(tmp_path)
  arguments = f'model=vibethinker,base_url={site.url}/v1/chat/completions'
  samples = evaluated(run, tmp_path, 'local-chat-completions', 'tiny_free', arguments, '--apply_chat_template')
  assert len(samples) >= 4
  for sample in samples:
    assert sample['resps'] == [[said(sample['doc']['question'])]]
