r"""Words, quotes and variables of Dockerfile instructions, as BuildKit reads them (frontend/dockerfile/{parser,shell}).

    split_words   white space outside of quotes separates; quotes and backslashes stay in the words
    expand        one word: quotes and backslashes resolved, $NAME and ${NAME…} replaced
    expand_words  the same, and what the variables brought is split at white space once more

It is a shell's language in small: '…' is literal; in "…" a backslash escapes only `"`, `$` and itself; ${NAME} takes
the modifiers :-  -  :+  +  :?  ?  #  ##  %  %%  /  //. An unset variable is empty. Text in, text out; faults are a
ChangeError in BuildKit's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from unionfs.errors import ChangeError

_ESCAPE: Final = "\\"
_END: Final = ""
#: POSIX 2.5.2; they are never set here.
_SPECIAL: Final = frozenset("@*#?-$!0")


def split_words(text: str) -> list[str]:
    """`a="b c" d` is two words. An open quote ends with the text."""
    words: list[str] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at].isspace():
            at += 1
        if at == end:
            return words
        word, quote = "", ""
        while at < end and (quote or not text[at].isspace()):
            char = text[at]
            if char == _ESCAPE and quote != "'":
                word += text[at : at + 2] if at + 1 < end else ""  # one at the very end is dropped
                at += 2
                continue
            if quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            word += char
            at += 1
        if word:
            words.append(word)


def expand(text: str, env: Mapping[str, str]) -> str:
    """The word's value. ChangeError for an open quote or a substitution that does not exist."""
    return _Reader(text, env).run()[0]


def expand_words(text: str, env: Mapping[str, str]) -> list[str]:
    return _Reader(text, env).run()[1]


class _Reader:
    """One text, read from the left. `run` gives its value, and the words that value splits into."""

    def __init__(self, text: str, env: Mapping[str, str]) -> None:
        self._text, self._env, self._at = text, env, 0

    def run(self) -> tuple[str, list[str]]:
        try:
            return self._until(_END, keep_escapes=False)
        except ChangeError as error:
            raise ChangeError(f'failed to process "{self._text}": {error}') from None

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _until(self, stop: str, *, keep_escapes: bool) -> tuple[str, list[str]]:
        value = ""
        words = _Words()
        while (char := self._peek()) != _END:
            if char == stop:
                self._at += 1
                return value, words.finish()
            if char == "$":
                part = self._variable()
                words.add(part)
            elif char in "'\"":
                part = self._single_quoted() if char == "'" else self._double_quoted(keep_escapes)
                words.add_quoted(part)
            elif char == _ESCAPE:
                self._at += 1
                part = (_ESCAPE if keep_escapes else "") + self._next()
                words.add_quoted(part)
            else:
                part = self._next()
                words.add(part)
            value += part
        if stop != _END:
            raise ChangeError(f"unexpected end of statement while looking for matching {stop}")
        return value, words.finish()

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise ChangeError("unexpected end of statement while looking for matching single-quote")
        part = self._text[self._at + 1 : end]
        self._at = end + 1
        return part

    def _double_quoted(self, keep_escapes: bool) -> str:
        self._at += 1
        value = ""
        while (char := self._peek()) != '"':
            if char == _END:
                raise ChangeError("unexpected end of statement while looking for matching double-quote")
            if char == "$":
                value += self._variable()
                continue
            self._at += 1
            if char == _ESCAPE:
                following = self._peek()
                value += _ESCAPE if keep_escapes else ""
                if following == _END:
                    continue
                if following in '"$\\':
                    char = self._next()
            value += char
        self._at += 1
        return value

    def _variable(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return self._env.get(name, "") if name else "$"
        self._at += 1
        if self._peek() == _END:
            raise ChangeError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise ChangeError("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == _END:
            raise ChangeError("syntax error: missing '}'")
        if operator == "}":
            return self._env.get(name, "")
        if operator == "/":
            return self._replaced(self._env.get(name, ""))
        empty_is_unset = operator == ":"
        shown = operator
        if empty_is_unset:
            operator = self._next()
            shown += operator
        if operator not in ("+", "-", "?", "#", "%"):
            raise ChangeError(f"unsupported modifier ({shown}) in substitution")
        word = self._rest("}", keep_escapes=operator in "#%")
        return _modified(self._env, name, operator, word, empty_is_unset)

    def _replaced(self, value: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._at += 1
        pattern = self._rest("/", keep_escapes=True)
        replacement = self._rest("}", keep_escapes=True)
        # A function, since a text may hold backslashes that re would read.
        return re.sub(_pattern(pattern, greedy=True), lambda _: replacement, value, count=0 if everywhere else 1)

    def _rest(self, stop: str, *, keep_escapes: bool) -> str:
        try:
            return self._until(stop, keep_escapes=keep_escapes)[0]
        except ChangeError:
            if self._peek() != _END:
                raise
            missing = "missing '/' in ${}" if stop == "/" else "missing '}'"
            raise ChangeError(f"syntax error: {missing}") from None

    def _name(self) -> str:
        first = self._peek()
        if first.isdigit():
            start = self._at
            while self._peek().isdigit():
                self._at += 1
            return self._text[start : self._at]
        if first != _END and first in _SPECIAL:
            return self._next()
        start = self._at
        while (char := self._peek()) and (char.isalpha() or char.isdigit() or char == "_"):
            self._at += 1
        return self._text[start : self._at]


class _Words:
    """Characters on their way into words."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word = ""

    def add(self, text: str) -> None:
        for char in text:
            if not char.isspace():
                self._word += char
            elif self._word:
                self._words.append(self._word)
                self._word = ""

    def add_quoted(self, text: str) -> None:
        self._word += text

    def finish(self) -> list[str]:
        self.add(" ")
        return self._words


def _modified(env: Mapping[str, str], name: str, operator: str, word: str, empty_is_unset: bool) -> str:
    value = env.get(name)
    missing = value is None or (empty_is_unset and not value)
    if operator == "-":
        return word if value is None or missing else value
    if operator == "+":
        return "" if missing else word
    if operator == "?":
        if value is None or missing:
            reason = "is not allowed to be " + ("unset" if value is None else "empty")
            raise ChangeError(f"{name}: {word or reason}")
        return value
    value = value or ""
    greedy = word.startswith(operator)
    pattern = _pattern(word[1:] if greedy else word, greedy=greedy)
    if operator == "#":
        found = re.match(pattern, value)
        return value[found.end() :] if found else value
    # The shortest suffix begins latest: starts are tried from the end, or from the beginning for the longest.
    starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
    whole = re.compile(pattern)
    return next((value[:start] for start in starts if whole.fullmatch(value, start)), value)


def _pattern(text: str, *, greedy: bool) -> str:
    """A shell's pattern (`*`, `?`, backslash; no brackets) as a regular expression."""
    out = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            out += "(?s:.*)" if greedy else "(?s:.*?)"
        elif char == "?":
            out += "(?s:.)"
        elif char == _ESCAPE:
            following = text[at : at + 1]
            at += 1
            if following not in ("*", "?", "\\", "}", "/"):
                raise ChangeError(f"invalid pattern ({text}) in substitution: invalid escape '\\{following}'")
            out += re.escape(following)
        else:
            out += re.escape(char)
    return out
