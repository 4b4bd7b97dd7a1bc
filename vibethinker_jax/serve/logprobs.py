"""Log-probabilities as OpenAI's clients expect them: of chats, of completions, and of an echoed prompt."""

import dataclasses
from collections.abc import Sequence

from vibethinker_jax.data.tokenizer import ChatTokenizer
from vibethinker_jax.engine.score import Score
from vibethinker_jax.serve.detokenizer import CUT, Token, token_of


@dataclasses.dataclass(frozen=True)
class Echo:
  """A prompt at the beginning of its completion. tokens: [] without log-probabilities; the first token has none."""

  text: str
  tokens: list[Token]


def echo(tokenizer: ChatTokenizer, prompt: str | list[int], ids: Sequence[int], score: Score | None, top: int) -> Echo:
  """The echo of a prompt.

  prompt: a text or token ids. ids: its token ids. score: of these, None for no log-probabilities. top: likeliest tokens
  beside each token.
  """
  said = prompt if isinstance(prompt, str) else tokenizer.hf.decode(ids)
  if score is None:
    return Echo(said, [])
  logps, tokens = [None, *score.logps.tolist()], []
  begin, cut = 0, []  # cut: tokens of a character that is not complete
  for n, (i, logp) in enumerate(zip(ids, logps)):
    top_here = [] if n == 0 or not top else zip(*(x[n - 1, :top].tolist() for x in likeliest_of(score)))
    tokens.append(token_of(tokenizer, i, logp, begin, top_here))
    cut.append(i)
    word = tokens[-1].text if len(cut) == 1 else tokenizer.hf.decode(cut)
    if not word.endswith(CUT):
      begin, cut = begin + len(word), []
  return Echo(said, tokens)


def likeliest_of(score: Score):
  """Ids and ln p of the likeliest tokens, as TokenChunk has them."""
  return score.top_ids, score.top_logps


def of_chat(tokens: Sequence[Token]) -> dict:
  """The `logprobs` of a chat: one object for each token."""
  alone = lambda t: {'token': t.text, 'logprob': t.logprob, 'bytes': t.bytes}
  return {'content': [{**alone(t), 'top_logprobs': list(map(alone, t.top))} for t in tokens], 'refusal': None}


def of_completion(tokens: Sequence[Token], top: int, before: int) -> dict:
  """The `logprobs` of a completion: parallel lists.

  tokens: of the completion. top: the likeliest tokens are a dict for each token, which also has the token itself; 0 for
  none. before: characters of the text before the first token.
  """
  return {
    'tokens': [_name(t) for t in tokens],
    'token_logprobs': [t.logprob for t in tokens],
    'top_logprobs': [_likeliest(t) for t in tokens] if top else None,
    'text_offset': [before + t.begin for t in tokens],
  }


def _likeliest(token: Token) -> dict[str, float] | None:
  if token.logprob is None:
    return None
  out: dict[str, float] = {}
  for other in (token, *token.top):  # the token comes first: its two values may differ in the last bit
    out.setdefault(_name(other), other.logprob)
  return out


def _name(token: Token) -> str:
  """The text of a token, or its bytes if the text is half a character: so no two tokens have the same name."""
  if CUT not in token.text or token.bytes is None:
    return token.text
  return 'bytes:' + ''.join(f'\\x{b:02x}' for b in token.bytes)
