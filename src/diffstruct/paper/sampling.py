"""Text from a trained network."""

from __future__ import annotations

import math

import torch

from diffstruct.errors import ConfigurationError
from diffstruct.paper.network import CharRNN

WARM_UP = 100
"""Characters that are thrown away where there is no prompt, so that the text is not at its beginning."""


@torch.no_grad()
def sample(model: CharRNN, length: int, *, seed: int = 0, temperature: float = 1.0, prompt: str = "") -> str:
    """Let a network write: each character is drawn as likely as the network expects it, and read next.

    Args:
        model: of `load_run`.
        length: characters to write.
        seed: the same seed gives the same text.
        temperature: 1 for the network's own probabilities; below, likely characters are likelier still.
        prompt: what the network reads first. Without one, it starts in the middle of a text.

    Returns:
        What it has written, without the prompt.

    Raises:
        ConfigurationError: a parameter that cannot work.
        DataError: the prompt has a character that is not in the network's alphabet.

    Example:
        >>> import tempfile
        >>> import diffstruct as ds
        >>> folder = tempfile.mkdtemp()
        >>> summary = ds.paper.Run("easy", cycles=200).go(folder, overwrite=True)
        >>> len(ds.paper.sample(ds.paper.load_run(folder), 50, prompt="(ab"))
        50
    """
    if length < 0:
        raise ConfigurationError(f"length must be at least 0 characters, got {length}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigurationError(f"temperature must be a number above 0, got {temperature}")
    if not 0 <= seed < 1 << 64:
        raise ConfigurationError(f"seed must be at least 0 and below 2**64, got {seed}")
    generator, alphabet = torch.Generator().manual_seed(seed), model.known_alphabet
    warm_up = 0 if prompt else WARM_UP
    start = torch.randint(len(alphabet), (1,), generator=generator).item()
    inputs, state, written = model.encode(prompt or alphabet[int(start)]), None, []
    one_hot = model.encode(alphabet)
    for _ in range(warm_up + length):
        logits, state = model(inputs, state)
        chances = torch.softmax(logits[-1].double().cpu() / temperature, 0)
        symbol = int(torch.multinomial(chances, 1, generator=generator))
        written.append(alphabet[symbol])
        inputs = one_hot[symbol : symbol + 1]
    return "".join(written[warm_up:])
