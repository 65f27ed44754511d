"""A real CTranslate2 Whisper model with random weights: it understands nothing, but it loads and decodes.

For the code around faster-whisper, which no mock can stand in for. English only, one layer, 0.5 MB.
"""

import importlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

SIZE = 32
"""Width of the model."""
HEADS = 1
MELS, AUDIO_POSITIONS, TEXT_POSITIONS = 80, 1500, 448
"""As in every Whisper: mel bins, encoder positions (30 s), decoder positions."""

CONTROL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
    *(f"<|{step * 0.02:.2f}|>" for step in range(AUDIO_POSITIONS + 1)),
]


def build(folder: Path) -> Path:
    """Write the model into a folder, in the layout of the ones that faster-whisper downloads."""
    # By name: mypy runs where neither is installed.
    specs, tokenizers = importlib.import_module("ctranslate2.specs"), importlib.import_module("tokenizers")

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *CONTROL]
    random = np.random.default_rng(0)
    spec = specs.WhisperSpec(1, HEADS, 1, HEADS)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [tokens.index("<|en|>")]
    spec.config.alignment_heads = [(0, 0)]

    def weights(*shape: int) -> npt.NDArray[np.float32]:
        return random.normal(0, 0.3, shape).astype(np.float32)

    def linear(layer: object, outputs: int, inputs: int) -> None:
        layer.weight, layer.bias = weights(outputs, inputs), weights(outputs)  # type: ignore[attr-defined]

    def norm(layer: object) -> None:
        layer.gamma, layer.beta = np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)  # type: ignore[attr-defined]

    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = weights(SIZE, MELS, 3), weights(SIZE)
    encoder.conv2.weight, encoder.conv2.bias = weights(SIZE, SIZE, 3), weights(SIZE)
    encoder.position_encodings.encodings = weights(AUDIO_POSITIONS, SIZE)
    decoder.position_encodings.encodings = weights(TEXT_POSITIONS, SIZE)
    decoder.embeddings.weight = weights(len(tokens), SIZE)
    decoder.projection.weight = decoder.embeddings.weight
    for part in (encoder, decoder):
        norm(part.layer_norm)
        layer = part.layer[0]
        linear(layer.self_attention.linear[0], 3 * SIZE, SIZE)
        linear(layer.self_attention.linear[1], SIZE, SIZE)
        linear(layer.ffn.linear_0, 4 * SIZE, SIZE)
        linear(layer.ffn.linear_1, SIZE, 4 * SIZE)
        norm(layer.self_attention.layer_norm)
        norm(layer.ffn.layer_norm)
    across = decoder.layer[0].attention
    linear(across.linear[0], SIZE, SIZE)
    linear(across.linear[1], 2 * SIZE, SIZE)
    linear(across.linear[2], SIZE, SIZE)
    norm(across.layer_norm)

    spec.register_vocabulary(tokens)
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))

    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in CONTROL])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
