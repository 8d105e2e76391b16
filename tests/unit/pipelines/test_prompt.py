import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.pipelines.text.syntax import Span, parse, sections


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("a cat", [Span("a cat")], id="plain"),
        pytest.param("16:9 photo", [Span("16:9 photo")], id="colon"),
        pytest.param("a (cat)", [Span("a "), Span("cat", 1.1)], id="round"),
        pytest.param("((cat))", [Span("cat", 1.21)], id="nested"),
        pytest.param("[cat]", [Span("cat", 0.909)], id="square"),
        pytest.param("(a:1.3) dog", [Span("a", 1.3), Span(" dog")], id="number"),
        pytest.param("(a: .5 )", [Span("a", 0.5)], id="number-with-spaces"),
        pytest.param("((a):2)", [Span("a", 2.2)], id="number-multiplies"),
        pytest.param(
            "(a (b:2) c:0.5)", [Span("a ", 0.5), Span("b", 1.0), Span(" c", 0.5)], id="inner"
        ),
        pytest.param(r"\(cat\) \[x\]", [Span("(cat) [x]")], id="escaped"),
        pytest.param("cat)]", [Span("cat)]")], id="stray-closers"),
        pytest.param("(cat", [Span("cat", 1.1)], id="unclosed"),
        pytest.param("(a]", [Span("a]", 1.1)], id="wrong-closer"),
        pytest.param("[a:1.5)", [Span("a:1.5)", 0.909)], id="number-in-square"),
        pytest.param("(a:1e9)", [Span("a:1e9", 1.1)], id="no-exponents"),
        pytest.param("(a:99)", [Span("a", 10.0)], id="bounded"),
    ],
)
def test_parse_weights_as_a1111_does(text: str, spans: list[Span]) -> None:
    found = parse(text)
    assert [span.text for span in found] == [span.text for span in spans]
    assert [span.weight for span in found] == pytest.approx([s.weight for s in spans], abs=1e-3)


@given(st.text(alphabet="ab ()[]:\\.12\n猫"))
def test_parse_any_text_gives_bounded_weights(text: str) -> None:
    assert all(abs(span.weight) <= 10 for span in parse(text))


@given(st.text().filter(lambda text: not set(text) & set("()[]\\")))
def test_parse_text_without_brackets_is_itself(text: str) -> None:
    spans = parse(text)
    assert "".join(span.text for span in spans) == text
    assert all(span.weight == 1 for span in spans)


@pytest.mark.parametrize(
    ("text", "divided"),
    [
        pytest.param("", [[]], id="empty"),
        pytest.param("a cat", [[Span("a cat")]], id="none"),
        pytest.param("a BREAK b", [[Span("a")], [Span("b")]], id="one"),
        pytest.param("BREAK a BREAK BREAK b BREAK", [[Span("a")], [Span("b")]], id="empty-ones"),
        pytest.param("BREAK", [[]], id="nothing-else"),
        pytest.param("a break BREAKFAST", [[Span("a break BREAKFAST")]], id="other-words"),
        pytest.param(
            "a (b BREAK c:1.5) d",
            [[Span("a "), Span("b", 1.5)], [Span("c", 1.5), Span(" d")]],
            id="in-brackets",
        ),
    ],
)
def test_sections_end_at_break(text: str, divided: list[list[Span]]) -> None:
    assert sections(parse(text)) == divided


@pytest.mark.timeout(20)  # took minutes when each bracket went over all that it held
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(:1" * 3300, id="open"),
        pytest.param("[" * 5000 + "a" + "]" * 5000, id="deep"),
        pytest.param("(:" + " " * 9900, id="blanks-before-a-weight"),
        pytest.param("a" + " " * 99_998 + "a", id="blanks"),
        pytest.param("a BREAK" + "\n" * 99_990 + "a", id="blanks-after-a-break"),
    ],
)
def test_prompt_takes_time_in_proportion_to_its_text(text: str) -> None:
    spans = [span for section in sections(parse(text)) for span in section]
    assert all(abs(span.weight) <= 10 for span in spans)
