"""Names of containers: what may be one (docker's rule), and those that are made up, an adjective and a noun."""

from __future__ import annotations

import random
import re
from collections.abc import Container
from typing import Final

from unionfs.errors import OptionError

_ADJECTIVES: Final = (
    "able agile amber ample austere balmy blithe bold brave breezy brisk calm candid cheery clever cosy crisp curious "
    "dapper daring eager earnest elated fabled fair fleet fond frank gallant gentle glad golden grand happy hardy "
    "honest humble jolly jovial keen kind laughing lively loyal lucid lucky mellow merry mild modest nimble noble "
    "patient placid plucky polite proud quaint quick quiet quirky rapid ready robust rosy serene sharp silent sincere "
    "smooth snug sober sparkling spry stately steady still sturdy sunny supple swift tender tidy trusty upbeat valiant "
    "vivid warm wise witty wry zealous"
).split()
_NOUNS: Final = (
    "abel archimedes babbage bernoulli bohr boole cantor cauchy celsius church copernicus coulomb curie darwin "
    "dijkstra dirac einstein erdos euclid euler faraday fermat fermi feynman fibonacci fourier galileo galois gauss "
    "germain godel goodall hamilton heisenberg hertz hilbert hopper huygens hypatia joule kepler knuth kovalevskaya "
    "lagrange lamarr laplace leibniz lovelace maxwell mccarthy meitner mendel mendeleev napier nash newton noether "
    "ohm pascal pasteur pauling perlman planck poincare ptolemy pythagoras ramanujan ritchie russell sagan shannon "
    "snyder tesla thompson torvalds turing volta watt wiles wing wozniak"
).split()
_is_name = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+").fullmatch


def check(name: str) -> None:
    """OptionError for what is no name."""
    if not _is_name(name):
        raise OptionError(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="at least two characters, of which the first is a letter or a digit",
        )


def choose(taken: Container[str]) -> str:
    """One that nobody has."""
    while True:
        for _ in range(10):
            name = f"{random.choice(_ADJECTIVES)}_{random.choice(_NOUNS)}"
            if name not in taken:
                return name
        name += str(random.randrange(1000))
        if name not in taken:
            return name
