"""Tests of Jinja in suites: values, missing columns, and limits of time, memory and length."""

import contextlib
import resource
import sys
import threading

import pytest

from bfpo.safehelp.expressions import ExpressionError, expression, template

ROW = {"text": "hi", "n": 3}


def test_values_and_missing_columns():
    assert template("{{ text }}, {% for i in range(n) %}{{ i }}{% endfor %}\n")(ROW) == "hi, 012\n"
    assert expression("[text, n ** 2]")(ROW) == ["hi", 9]
    with pytest.raises(ExpressionError, match=r"'nothing' is undefined; the row has text, n"):
        expression("nothing")(ROW)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ 'a' * 10**9 }}", "512 MiB"),
        ("{{ text * 10**9 }}", "512 MiB"),
        ("{{ text|center(10**9) }}", "512 MiB"),
        ("{{ '%1000000000d' % n }}", "512 MiB"),
        ("{% set ns = namespace(s=text) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "512 MiB"),
        ("{{ text * 10**8 }}", "longer than 10,000,000 characters"),
        ("{{ 9 ** 999999999 }}", "a power has more than"),
        ("{{ n ** 999999999 }}", "a power has more than"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "longer than 1 s"),
        ("{{ lipsum(n=10**7) }}", "longer than 1 s"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ " + "(" * 5000 + "n" + ")" * 5000 + " }}", "no Jinja template"),
    ],
)
def test_time_memory_and_length_are_limited_and_restored(source, says):
    before = resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()
    with pytest.raises(ExpressionError, match=says):
        template(source)(ROW)
    assert (resource.getrlimit(resource.RLIMIT_AS), sys.gettrace()) == before


def test_limits_hold_in_other_threads():
    caught = []

    def run():
        try:
            template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")(ROW)
        except ExpressionError as error:
            caught.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caught) == 2
    assert all("longer than 1 s" in message for message in caught)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("source", "linear"),
    [
        ("text", True),
        ("{'1': 0, 'b': {'c': 1}}[text]", True),
        ("'x' ~ row['text'] if n > 2 and text is defined else [text, n + 1]", True),
        ("text * n", False),
        ("text.strip()", False),
        ("text|upper", False),
        ("range(n)", False),
        ("n ** n", False),
    ],
)
def test_only_sources_that_could_grow_pay_for_limits(source, linear, monkeypatch):
    evaluate, limited = expression(source), []
    monkeypatch.setattr("bfpo.safehelp.expressions._limited", lambda call, *given: limited.append(call) or call(*given))
    with contextlib.suppress(ExpressionError):
        evaluate(ROW)
    assert bool(limited) != linear
