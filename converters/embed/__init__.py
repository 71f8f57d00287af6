"""EMBED (docs/embed.md)."""

from mammodet.converters.embed.converter import Embed, EmbedOptions

ARCHIVE = Embed

__all__ = ["ARCHIVE", "Embed", "EmbedOptions"]
