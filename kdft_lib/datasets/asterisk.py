"""Words that people recorded for telephone systems, in Debian's packages: one second each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdft_lib.audio.sound import centered, read_wav
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets.alphabet import SPELLING_ALPHABET
from kdft_lib.datasets.voices import SAMPLE_RATE
from kdft_lib.files import read_whole

SOUNDS = Path("/usr/share/asterisk/sounds")
_DIGITS = "en_US_f_Allison/digits"
_DIGITS_SHA256 = "d96284e2b926f17dd074447e877dd20634127a6cfd5853b93d6b100df429506a"
_PEOPLE = {
    "English": (
        "en_US_f_Allison/phonetic",
        "asterisk-core-sounds-en-wav",
        "5257513584101eac7b6c9b51abd755c52a112d615f05fb6e7664db7a74d593a4",
    ),
    "French": (
        "fr_CA_f_June/phonetic",
        "asterisk-core-sounds-fr-wav",
        "5179490a2b9052a423aad4b35333d128baa07df7f6185117105cf1bf8a5cafc2",
    ),
    "Italian": (
        "it_IT_f_Menardi/phonetic/ICAO",
        "asterisk-prompt-it-menardi-wav",
        "3e095e0b1eebe70a6876dba3b9aaa7306ea01614b8c7e5e71064308e6ac22482",
    ),
    "Russian": (
        "ru_RU_f_IvrvoiceRU/phonetic",
        "asterisk-core-sounds-ru-wav",
        "e3a8e7cb50c5dd624fe0e731dbb741f9460484dd0bfa52d5f9dcbe1fc980b68f",
    ),
}
"""Of each person, by the language of the other prompts, the folder, the package and the SHA-256 of its 26 files."""


def asterisk_digits(root: str | Path | None = None) -> TensorData:
    """The ten digits as Allison Smith recorded them for telephone systems: ten clips of a person.

    Args:
        root: A folder with ``0.wav`` to ``9.wav``; by default where Debian's package
            ``asterisk-core-sounds-en-wav`` puts them (CC BY-SA 3.0).

    Returns:
        Inputs as those of :func:`spoken_digits`, ``(10, 8000)``, and the digits.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If they are others.

    Example:
        >>> asterisk_digits()  # doctest: +SKIP
        TensorData(inputs (10, 8000), targets (10,))
    """
    folder = Path(root) if root is not None else SOUNDS / _DIGITS
    names = [str(digit) for digit in range(10)]
    return TensorData(_recorded(folder, names, _DIGITS_SHA256, "asterisk-core-sounds-en-wav"), torch.arange(10))


def asterisk_alphabet(root: str | Path | None = None) -> dict[str, TensorData]:
    """The spelling alphabet, alpha to zulu, as four people recorded it for telephone systems: 26 clips of each.

    Each of them speaks another language otherwise: Allison Smith English, June Wallack French, Paola Dal Zot Italian,
    and one whom Debian's package does not name Russian. Four people are few: say how each of them fares.

    Args:
        root: The folder with all prompts; by default where Debian's packages ``asterisk-core-sounds-en-wav``,
            ``asterisk-core-sounds-fr-wav``, ``asterisk-core-sounds-ru-wav`` and ``asterisk-prompt-it-menardi-wav`` put
            them (CC BY-SA 3.0; the Russian ones CC BY 3.0).

    Returns:
        For ``"English"``, ``"French"``, ``"Italian"`` and ``"Russian"``, inputs as those of
        :func:`spelling_alphabet`, ``(26, 8000)``, and the words.

    Raises:
        FileNotFoundError: If files are not there; the message says what to install.
        ValueError: If they are others.

    Example:
        >>> asterisk_alphabet()["Italian"]  # doctest: +SKIP
        TensorData(inputs (26, 8000), targets (26,))
    """
    sounds = Path(root) if root is not None else SOUNDS
    names = [f"{word[0]}_p" for word in SPELLING_ALPHABET]
    return {
        language: TensorData(_recorded(sounds / folder, names, sha256, package), torch.arange(len(names)))
        for language, (folder, package, sha256) in _PEOPLE.items()
    }


def _recorded(folder: Path, names: Sequence[str], sha256: str, package: str) -> Tensor:
    """Recordings, ``(N, 8000)``, if they are those of the package."""
    paths = [folder / f"{name}.wav" for name in names]
    try:
        found = hashlib.sha256(b"".join(read_whole(path, 100_000) for path in paths)).hexdigest()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} does not exist; apt install {package} brings the recordings on Debian and Ubuntu"
        ) from None
    if found != sha256:
        raise ValueError(
            f"{folder} holds other recordings than expected: the SHA-256 of {paths[0].name} to {paths[-1].name} is"
            f" {found}, wanted {sha256}; apt install --reinstall {package} brings them anew"
        )
    return torch.stack([centered(read_wav(path, SAMPLE_RATE), SAMPLE_RATE) for path in paths])
