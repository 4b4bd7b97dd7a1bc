"""The token ids of a row of `score` or `generate`, whose field holds ids, a raw text or a conversation."""

from vibethinker_jax.data.problem import field


def ids_of(row: dict, name: str, where: str, V: int, tokenizer) -> list[int]:
  """Ids below `V` of a row's field.

  Args:
    row: one object of a JSON Lines file.
    name: the field: 'tokens' holds ids, 'messages' a conversation, any other raw text.
    where: how messages name the row.
    V: size of the vocabulary.
    tokenizer: a ChatTokenizer; None where the model has none.

  Raises:
    BadInput: the field is of another form, or the model has no tokenizer or chat template for it.
  """
  from vibethinker_jax.data import prompts  # here, since transformers takes seconds to import

  at = f'{where}: "{name}"'
  if name == 'tokens':
    return prompts.token_ids(field(row, name, list, where), V, at)
  if name == 'messages':
    return prompts.chat_ids(field(row, name, list, where), tokenizer, at)
  return prompts.text_ids(field(row, name, str, where), tokenizer, at)
