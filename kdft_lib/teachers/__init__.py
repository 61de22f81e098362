"""A teacher that cannot be trained by accident, and its outputs kept with their samples."""

from kdft_lib.answers import answers, compress, expand, named_answers
from kdft_lib.teachers.cache import cache
from kdft_lib.teachers.ensemble import Ensemble
from kdft_lib.teachers.kept import Answered, ViewData
from kdft_lib.teachers.teacher import Teacher

__all__ = [
    "Answered",
    "Ensemble",
    "Teacher",
    "ViewData",
    "answers",
    "cache",
    "compress",
    "expand",
    "named_answers",
]
