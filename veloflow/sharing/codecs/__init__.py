"""Codecs: how the vector of an update travels. What a user writes after ``--codec``."""

from __future__ import annotations

from veloflow.sharing.codecs.base import Codec, Factors, Parts, Range
from veloflow.sharing.codecs.factors import Factors as SufficientFactors
from veloflow.sharing.codecs.factors import is_smaller
from veloflow.sharing.codecs.halves import BFloat16, Float16
from veloflow.sharing.codecs.int8 import Int8
from veloflow.sharing.codecs.lossless import LZ4, ZLib, ZStandard
from veloflow.sharing.codecs.onebit import OneBit
from veloflow.sharing.codecs.plain import Plain
from veloflow.sharing.codecs.topk import TopK
from veloflow.sharing.words import known_words, read_word, write_word

__all__ = [
    "LZ4",
    "BFloat16",
    "Codec",
    "Factors",
    "Float16",
    "Int8",
    "OneBit",
    "Parts",
    "Plain",
    "Range",
    "SufficientFactors",
    "TopK",
    "ZLib",
    "ZStandard",
    "is_smaller",
    "known_codecs",
    "parse_codec",
    "text_of",
]

#: others add to these by an entry point whose name is the codec's and whose object is its class
GROUP = "veloflow.codecs"

_OWN: tuple[type[Codec], ...] = (
    Plain, Float16, BFloat16, Int8, OneBit, TopK, SufficientFactors, ZLib, ZStandard, LZ4,
)  # fmt: skip


def known_codecs() -> dict[str, type[Codec]]:
    """Return all codecs by name: veloflow's own, and those of installed packages.

    Raises:
        DefinitionError: an installed package's codec cannot be loaded.
    """
    return known_words(_OWN, GROUP, "codec")


def parse_codec(text: str) -> Codec:
    """Read ``onebit``, ``topk:0.001``, ``int8:feedback=off``.

    Raises:
        OptionError: the text is no codec; the message says which there are.
    """
    codec: Codec = read_word(text, known_codecs(), "--codec", "codec")  # type: ignore[type-var]
    return codec


def text_of(codec: Codec) -> str:
    """Return the text that :func:`parse_codec` makes the codec of."""
    return write_word(codec.name, codec)  # type: ignore[arg-type]
