"""Closed configurations: one sentence names every wrong key and value, at any depth."""

from dataclasses import dataclass

import pytest
from pydantic import Field, field_validator

from bfpo.config import Closed, validated
from bfpo.errors import BfpoError
from bfpo.generation.protocol import Decoding


@dataclass(frozen=True)
class Plain:
    slope: float = 1.0


class Inner(Closed):
    color: str = "red"
    plain: Plain = Plain()


class Outer(Closed):
    name: str
    count: int = Field(1, ge=1)
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()

    @field_validator("name")
    @classmethod
    def _short(cls, name):
        if len(name) > 5:
            raise ValueError("Name too long; shorten it")
        return name


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "the key 'name' is missing"),
        ({"name": "a", "cuont": 1}, "unknown key 'cuont' (did you mean 'count'?)"),
        ({"name": "a", "x": 1}, "unknown key 'x'"),
        ({"name": "a", "count": 0}, "count: input should be greater than or equal to 1, not 0"),
        ({"name": "a", "inner": {"colr": "x"}}, "unknown key 'inner.colr' (did you mean 'color'?)"),
        ({"name": "a", "many": [{}, {"colr": "x"}]}, "unknown key 'many.1.colr' (did you mean 'color'?)"),
        ({"name": "a", "inner": {"plain": {"slop": 2}}}, "unknown key 'inner.plain.slop' (did you mean 'slope'?)"),
        # The sentence of a validator stays as it is written, and what was given, perhaps a secret, isn't repeated.
        ({"name": "too long"}, "name: Name too long; shorten it"),
        ({"cuont": 1, "count": "x"}, "the key 'name' is missing; count: input should be a valid integer, unable to "
         "parse string as an integer, not 'x'; unknown key 'cuont' (did you mean 'count'?)"),
    ],
)  # fmt: skip
def test_the_sentence(values, sentence):
    with pytest.raises(BfpoError) as caught:
        validated(Outer, values, "file.yaml")
    assert str(caught.value) == f"file.yaml: {sentence}"


def test_what_is_right_passes():
    made = validated(Outer, {"name": "a", "inner": {"plain": {"slope": 2}}}, "file.yaml")
    assert made.inner is not None
    assert made.inner.plain == Plain(2.0)


def test_no_other_file_closes_a_configuration():
    import pathlib

    import bfpo

    root = pathlib.Path(bfpo.__file__).parent
    found = [path.name for path in root.rglob("*.py") if "ValidationError" in path.read_text(encoding="utf-8")]
    assert found == ["config.py"]


def test_a_part_that_checks_itself_is_named_with_the_file():
    class Sampled(Closed):
        decoding: Decoding = Decoding()

    with pytest.raises(BfpoError, match=r"^suite.yaml: top-p 0.0: write a probability above 0, up to 1$"):
        validated(Sampled, {"decoding": {"top_p": 0}}, "suite.yaml")
