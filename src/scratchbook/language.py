"""The language of what is said to the reader: a message and its values in, the sentence out.

English is written in the code; other languages are catalogs in locale/, read as they are edited
(gettext's .po). Outside `speaking` everything is said in English.
"""

from __future__ import annotations

import gettext
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "scratchbook"

# Set by `speaking` alone and undone at its end: what renders says once which language it speaks.
_SPOKEN: ContextVar[tuple[str, gettext.NullTranslations]] = ContextVar(
    "spoken", default=("en", gettext.NullTranslations())
)


@contextmanager
def speaking(language: str) -> Iterator[gettext.NullTranslations]:
    """Within it `tr` speaks `language`: `en`, or one that has a catalog."""
    token = _SPOKEN.set((language, translations(language)))
    try:
        yield _SPOKEN.get()[1]
    finally:
        _SPOKEN.reset(token)


def tr(message: str, **values: Any) -> str:
    """The message in the language that is spoken, its `{name:format}` fields filled in."""
    told = _SPOKEN.get()[1].gettext(message)
    return told.format(**values) if values else told


def tr_n(one: str, many: str, n: int, **values: Any) -> str:
    """`one` or `many` as the language counts `n`, which is a field as well."""
    return _SPOKEN.get()[1].ngettext(one, many, n).format(n=n, **values)


def mark(message: str) -> str:
    """The message as it is: a table's entry that `tr` is called with later."""
    return message


def date(moment: datetime) -> str:
    """`21 November 2026`, as the language writes it."""
    from babel.dates import format_date

    language = _SPOKEN.get()[0]
    return format_date(moment, "long", locale="en_GB" if language == "en" else language)


def translations(language: str) -> gettext.NullTranslations:
    """A language's catalog for gettext; English needs none."""
    if language == "en":
        return gettext.NullTranslations()
    # Here, since comparing and diagnosing speak English without Babel.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with (LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    return gettext.GNUTranslations(io.BytesIO(compiled.getvalue()))
