"""Records' values are of the types that are declared, all the way down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator.core.typed import check_types


@dataclass(frozen=True)
class Inner:
    name: str
    share: float


@dataclass(frozen=True)
class Outer:
    text: str = "t"
    whole: int = 1
    flag: bool = True
    share: float = 1
    maybe: str | None = None
    either: int | list[str] = 3
    path: Path = Path()
    kind: Literal["a", "b"] = "a"
    rows: tuple[tuple[int, ...], ...] = ((1, 2), ())
    folds: list[int | None] = field(default_factory=lambda: [0, None])
    counts: dict[str, int] = field(default_factory=dict)
    inner: Inner | None = None
    all_of: Mapping[str, tuple[Inner, ...]] = field(default_factory=dict)
    anything: Any = None
    names: Sequence[str] = ()
    pair: tuple[int, str] = (1, "a")
    fixed: Literal[1] = 1


@pytest.mark.parametrize("changes", [
    {}, {"share": 0.5, "maybe": "x", "either": ["a"]}, {"inner": Inner("n", 1), "all_of": {"k": (Inner("m", 0.5),)}},
    {"counts": {"a": 1}, "anything": {1: object()}}, {"kind": "b", "folds": []}, {"names": ["a", "b"]}, {"pair": (2, "")},
])  # fmt: skip
def test_what_is_declared_passes(changes: dict[str, Any]) -> None:
    check_types(Outer(**changes))


@pytest.mark.parametrize(("changes", "message"), [
    ({"text": None}, "text is None, and must be str"), ({"text": 5}, "text is 5, and must be str"),
    ({"whole": "1"}, "whole is '1', and must be int"), ({"whole": True}, "whole is True, and must be int"),
    ({"whole": 1.0}, "whole is 1.0, and must be int"), ({"flag": 1}, "flag is 1, and must be bool"),
    ({"share": False}, "share is False, and must be float"), ({"share": "x"}, "share is 'x', and must be float"),
    ({"maybe": 3}, "maybe is 3, and must be str | None"), ({"either": None}, "either is None, and must be int"),
    ({"either": [1]}, "either[0] is 1, and must be str"), ({"path": "p"}, "path is 'p', and must be Path"),
    ({"kind": "c"}, "kind is 'c', and must be Literal"), ({"rows": [1]}, "rows is [1], and must be tuple"),
    ({"rows": ((1, "2"),)}, "rows[0][1] is '2', and must be int"), ({"folds": ["a"]}, "folds[0] is 'a', and must be int"),
    ({"counts": []}, "counts is [], and must be dict"), ({"counts": {"a": None}}, "counts.a is None, and must be int"),
    ({"counts": {1: 1}}, "a key of counts is 1, and must be str"), ({"inner": {}}, "inner is {}, and must be "),
    ({"inner": Inner("n", None)}, "inner.share is None, and must be float"),  # type: ignore[arg-type]  # what is tested
    ({"all_of": {"k": (Inner(3, 1),)}}, "all_of.k[0].name is 3, and must be str"),  # type: ignore[arg-type]  # likewise
    ({"names": "ab"}, "names is 'ab', and must be Sequence[str]"),
    ({"names": [1]}, "names[0] is 1, and must be str"), ({"pair": (1, 2)}, "pair[1] is 2, and must be str"),
    ({"pair": (1, "a", 2)}, "pair is (1, 'a', 2), and must be tuple"), ({"fixed": True}, "fixed is True, and must be Literal[1]"),
])  # fmt: skip
def test_what_is_not_is_named_with_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as refused:
        check_types(replace(Outer(), **changes))
    assert str(refused.value).startswith(message)
