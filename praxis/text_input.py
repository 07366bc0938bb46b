"""Text for language models, gathered under its public path."""

from praxis.input.text.columnar import ArrayRecords, Parquet
from praxis.input.text.plain import JsonLines, TextFiles, Unit
from praxis.input.text.reader import Packing, TextInput
from praxis.input.text.source import TextSource
from praxis.input.text.tokenizer import (
    ByteTokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
)

__all__ = [
    "ArrayRecords",
    "ByteTokenizer",
    "HuggingFaceTokenizer",
    "JsonLines",
    "Packing",
    "Parquet",
    "SentencePieceTokenizer",
    "TextFiles",
    "TextInput",
    "TextSource",
    "Tokenizer",
    "Unit",
]
