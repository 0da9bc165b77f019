"""The dialogue of a prompt's message as plain values."""

from pairloop.data.v1.rollout_pb2 import Prompt


def plain_messages(prompt: Prompt) -> list[dict[str, str]]:
    """role and content of each message, in order: the form that data sets and functions have."""
    return [{"role": each.role, "content": each.content} for each in prompt.messages]
