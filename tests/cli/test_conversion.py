"""Values of options are what Typer alone would make of them; wrong numbers are refused in words of our own."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.core import TyperOption

from orchestrator.cli import conversion
from orchestrator.cli.conversion import METHOD, plain_conversion
from tests.conftest import ROOT

got: dict[str, Any] = {}
program = typer.Typer(add_completion=False)


@program.command()
def options(
    rest: Annotated[list[Path] | None, typer.Argument()] = None,
    flag: bool = False,
    text: str = "t",
    maybe: str | None = None,
    texts: Annotated[list[str], typer.Option()] = ["a", "b"],  # noqa: B006  (as Typer takes them)
    path: Path = Path("p"),
    nowhere: Path | None = None,
    paths: Annotated[list[Path] | None, typer.Option()] = None,
    there: Annotated[Path | None, typer.Option(exists=True)] = None,
    folder: Annotated[Path, typer.Option(file_okay=False)] = Path(),
    unread: Annotated[list[Path] | None, typer.Option(readable=False)] = None,
    whole: int = 7,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    clamped: Annotated[int, typer.Option(min=0, max=9, clamp=True)] = 3,
    wholes: Annotated[list[int], typer.Option(min=1)] = [],  # noqa: B006  (as Typer takes them)
    rate: float = 1,
    share: Annotated[float, typer.Option(min=0.3, max=1)] = 0.9,
    ceiling: Annotated[float, typer.Option(max=5)] = 0.0,
    parsed: Annotated[str, typer.Option(parser=lambda text: text.upper())] = "x",
) -> None:
    """Every kind of option that our commands have, and some that they do not."""
    got.update(locals())


VALUED = [name for name in options.__annotations__ if name not in ("rest", "flag", "return")]
PATHS = {"", "path", "nowhere", "paths", "there", "folder", "unread"}
"""Options of paths, and the arguments, which are paths too."""
TEXTS = st.one_of(
    st.sampled_from([
        "", "-", "0", "-0", "007", "1_000", " 5", "5 ", "5\n", "+5", "1e3", "1.", ".5", "0.3", "0.29999999999999999", "nan",
        "inf", "\u0663", "true", "NO", "1.0", "9" * 15, "9" * 16, "9" * 400, "4294967295", "4294967296", ".", "..", "~", "/",
        "/dev/null", "a//b", "a/../b", "/nothing/here",
    ]),
    st.integers().map(str), st.floats().map(str), st.text(st.characters(exclude_characters="\0", codec="utf-8")),
)  # fmt: skip


NUMBER = re.compile(
    r"Input should be .*(number|integer|equal to|less than|greater than).*|(?<=: )'.*'; allowed: .*", re.DOTALL
)
"""What Typer and we say of a wrong number."""


def outcome_of(words: list[str]) -> list[object]:
    """What the command got, as types and representations (NaN equals nothing), or what it was refused with."""
    got.clear()
    try:
        typer.main.get_command(program).main(words, standalone_mode=False)
    except typer.BadParameter as error:
        return [type(error), NUMBER.sub("...", error.format_message())]
    return [(name, type(value), repr(value)) for name, value in got.items()]


@given(st.lists(st.tuples(st.sampled_from([*VALUED, ""]), TEXTS), max_size=4), st.booleans())
@example([], False)
@example([("paths", "a"), ("paths", "/dev/null"), ("", "/")], True)
@example([("rate", "nan")], False)
@example([("path", "9" * 400)], False)  # longer than a name of a file may be
def test_values_are_what_typer_alone_makes_of_them(pairs: list[tuple[str, str]], flag: bool) -> None:
    assume(not any(not text and name in PATHS for name, text in pairs))  # ours alone are refused
    words = [*["--flag"] * flag, *(f"--{name}={text}" for name, text in pairs if name)]
    words += ["--", *(text for name, text in pairs if not name)]
    alone = outcome_of(words)
    with plain_conversion():
        assert outcome_of(words) == alone


@pytest.mark.parametrize(("word", "message"), [
    ("--whole=x", "'x'; allowed: a whole number."), ("--whole=0.5", "'0.5'; allowed: a whole number."),
    ("--whole=5x", "'5x'; allowed: a whole number."), ("--seed=-1", "'-1'; allowed: a whole number, 0 to 4294967295."),
    ("--wholes=0", "'0'; allowed: a whole number, 1 or more."), ("--rate=many", "'many'; allowed: a number."),
    ("--share=0.2", "'0.2'; allowed: a number, 0.3 to 1."), ("--share=nan", "'nan'; allowed: a number, 0.3 to 1."),
    ("--clamped=x", "'x'; allowed: a whole number, 0 to 9."), ("--wholes=", "''; allowed: a whole number, 1 or more."),
    ("--ceiling=-2.5", None), ("--ceiling=6", "'6'; allowed: a number, 5 or less."),
])  # fmt: skip
def test_a_wrong_number_is_named_with_the_allowed_ones(word: str, message: str | None) -> None:
    with plain_conversion():
        if message is None:
            typer.main.get_command(program).main([word], standalone_mode=False)
            return
        with pytest.raises(typer.BadParameter) as refused:
            typer.main.get_command(program).main([word], standalone_mode=False)
    assert refused.value.format_message() == f"Invalid value for '{word.partition('=')[0]}': {message}"


@pytest.mark.parametrize("words", [[""], ["a", ""], *([f"--{name}="] for name in sorted(PATHS - {""}))])
def test_an_empty_path_is_not_the_current_folder(words: list[str]) -> None:
    with plain_conversion(), pytest.raises(typer.BadParameter, match=r"an empty path; '\.' is the current folder"):
        typer.main.get_command(program).main(words, standalone_mode=False)


def test_a_file_that_may_not_be_read_is_refused_as_by_typer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != closed)  # root may read everything
    for option, path in (("path", closed), ("path", tmp_path / "nowhere"), ("folder", closed), ("unread", closed)):
        words = [f"--{option}={path}"]
        alone = outcome_of(words)
        with plain_conversion():
            assert outcome_of(words) == alone
    with plain_conversion():
        assert "is not readable" in str(outcome_of([f"--path={closed}"])[1])


def test_a_typer_that_describes_its_parameters_in_another_way_converts_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["--whole=5", "--path=a", "--wholes=2"]
    alone = outcome_of(words)
    monkeypatch.setattr(conversion, "DESCRIPTION", "of_another_version")
    with plain_conversion():
        assert outcome_of(words) == alone
    assert len(alone) > 3


def test_typer_is_its_own_again_afterwards() -> None:
    before = getattr(TyperOption, METHOD)
    with pytest.raises(ZeroDivisionError), plain_conversion():
        assert getattr(TyperOption, METHOD) is not before
        _ = 1 / 0
    assert getattr(TyperOption, METHOD) is before


@pytest.mark.parametrize("words", [
    ["--version"], ["predict", ".", "--device", "gpu"], ["recipes", "show", "age", "qick"], ["runs", "list"],
    ["runs", "show", "age-1", "--workspace", "nowhere", "--json"],
    ["predict", "--starategy", "soft"], ["demo", "--people", "many"], ["bench", "--rounds", "0"],
    ["submissions", "diff", "one.csv", "other.csv"],
])  # fmt: skip
def test_plain_values_are_not_typers_to_convert(words: list[str], tmp_path: Path) -> None:
    """Fails where Typer has moved what is replaced: its values would be right, and slower to get."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['orch', *sys.argv[1:]]\n"
        "from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('typer._adapters' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
