r"""Instructions: what a model is told besides the statement of a problem, such as to put its answer into `\boxed{}`.

Published data sets append some of them to the statement. `statement` takes these off, so that the same problem from two
files is the same text; whoever asks a model adds the instruction of its own protocol.
"""

STEP_BY_STEP = 'Please reason step by step, and put your final answer within \\boxed{}.'  # Qwen2.5-Math's
MATH = "Let's think step by step and output the final answer within \\boxed{}."  # the VibeThinker-1.5B report's
CHOICE = 'Please reason step-by-step and put your choice letter without any other text with \\boxed{} in the end.'
PROGRAM = 'Give the whole program in one ```python block.'
COMPLETE = 'Complete the function. Give the whole program, imports included, in one ```python block.'
STDIN = 'Write a Python program that reads stdin and writes stdout. Give it whole, in one ```python block.'
PROGRAMMER = (  # a system prompt
  'You are a programming assistant. Think the problem through, then give the whole program in one ```python block.'
)

APPENDED = (MATH, STEP_BY_STEP, CHOICE)  # those that data sets append to a statement


def statement(prompt: str) -> str:
  """The prompt without the instructions at its end."""
  prompt = prompt.strip()
  for instruction in APPENDED:
    prompt = prompt.removesuffix(instruction).rstrip()
  return prompt
