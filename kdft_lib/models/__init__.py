"""Small networks written to be read, pretrained backbones, the weights that ship, and how a model is run and kept."""

from kdft_lib.models.causal import before_head
from kdft_lib.models.characters import CharacterGRU, NGram
from kdft_lib.models.files import fashion_teacher, load, save
from kdft_lib.models.language import language_model
from kdft_lib.models.own import MLP, PictureClassifier, TextClassifier, WordBag
from kdft_lib.models.pretrained import ImageTransform, imagenet_backbone
from kdft_lib.models.running import Inputs, evaluation_mode, logits
from kdft_lib.models.sentences import SentenceEncoder, sentence_encoder
from kdft_lib.models.small import DSCNN, ConvNet, ResNet
from kdft_lib.models.speculative import Speculated, speculative_sample
from kdft_lib.models.speech import Heard, Whisper, whisper
from kdft_lib.models.vocabulary import cut_table, cut_tokenizer, spellings
from kdft_lib.models.writing import sample

__all__ = [
    "DSCNN",
    "MLP",
    "CharacterGRU",
    "ConvNet",
    "Heard",
    "ImageTransform",
    "Inputs",
    "NGram",
    "PictureClassifier",
    "ResNet",
    "SentenceEncoder",
    "Speculated",
    "TextClassifier",
    "Whisper",
    "WordBag",
    "before_head",
    "cut_table",
    "cut_tokenizer",
    "evaluation_mode",
    "fashion_teacher",
    "imagenet_backbone",
    "language_model",
    "load",
    "logits",
    "sample",
    "save",
    "sentence_encoder",
    "speculative_sample",
    "spellings",
    "whisper",
]
