"""The shipped file of Japanese Vowels, made from the one that pip's ``aeon`` carries.

``pip download --no-deps aeon==1.6.0``, then ``python tools/japanese_vowels.py aeon-1.6.0-py3-none-any.whl``
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kdft_lib.files import written_whole

FOLDER = Path(__file__).parents[1] / "kdft_lib/assets/data"
PARTS = {
    "TRAIN": (487_971, "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
    "TEST": (649_132, "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
}
"""Bytes and SHA-256 of both files."""
STEP = 1e-4
CARD = {
    "data": "Japanese Vowels: two vowels, /ae/, said by nine men; 12 LPC cepstrum coefficients a frame",
    "authors": "Mineichi Kudo, Jun Toyama, Masaru Shimbo, Hokkaido University",
    "source": "UCI Machine Learning Repository, dataset 128, https://doi.org/10.24432/C5NS47",
    "licence": "CC BY 4.0",
    "changes": "rounded to four decimals and stored as 16-bit integers in steps of 0.0001, by"
    " tools/japanese_vowels.py from the files that aeon 1.6.0 carries",
    "paper": "M. Kudo, J. Toyama and M. Shimbo, Multidimensional curve classification using passing-through"
    " regions, Pattern Recognition Letters 20 (11-13), pages 1103-1111, 1999",
    "step": STEP,
}


def main(wheel: str) -> None:
    """Of each line after ``@data``: frames ``(length, 12)``, how many, and the speaker, from 0."""
    tensors: dict[str, Tensor] = {}
    for part, (size, wanted) in PARTS.items():
        name = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as file:
            content = file.read(size + 1)
        if (found := hashlib.sha256(content).hexdigest()) != wanted:
            sys.exit(f"{name} has the SHA-256 {found}, wanted {wanted}")
        lines = [line.split(":") for line in content.decode("ascii").split("@data")[1].split()]
        said = [
            torch.tensor([[float(value) for value in row.split(",")] for row in coefficients], dtype=torch.float64).T
            for *coefficients, _ in lines
        ]
        tensors |= {
            f"{part.lower()}.frames": (torch.cat(said) / STEP).round().to(torch.int16),
            f"{part.lower()}.lengths": torch.tensor([len(frames) for frames in said], dtype=torch.uint8),
            f"{part.lower()}.speakers": torch.tensor([int(speaker) - 1 for *_, speaker in lines], dtype=torch.uint8),
        }
    with written_whole(FOLDER / "japanese_vowels.safetensors") as temporary:
        save_file(tensors, str(temporary))
    with written_whole(FOLDER / "japanese_vowels.json") as temporary:
        temporary.write_text(json.dumps(CARD, indent=2) + "\n", encoding="utf-8")
    print(hashlib.sha256((FOLDER / "japanese_vowels.safetensors").read_bytes()).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
