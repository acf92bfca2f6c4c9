"""Nobody whom a member has seen is scored as held out: by photos' content, by name, and by names that are almost the same."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ensembling.unseen import SEEN_NAME, SEEN_PHOTO, seen_people

PHOTOS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("0123456789")), min_size=1, max_size=30)


@given(PHOTOS, st.sets(st.sampled_from("0123456789")), st.sets(st.sampled_from("abcdef")), st.booleans())
def test_whoever_is_left_shares_no_photo_and_no_name_with_the_training(
    photos: list[tuple[str, str]], hashes: set[str], names: set[str], distinct: bool
) -> None:
    persons = pd.Series([person for person, _ in photos])
    seen = seen_people(persons, [content for _, content in photos], hashes, names, distinct)
    given_away = {person for person, content in photos if content in hashes} | (set() if distinct else names)
    assert seen.rows.tolist() == [person in given_away for person in persons]
    assert {problem.where for problem in seen.problems} == given_away & set(persons)


@pytest.mark.parametrize(("name", "trained"), [
    ("000001", "1"), ("A12", "a12"), ("김철수", "김 철수"), ("kim\u200b", "kim"), ("１２", "12"), ("7.0", "7"),
])  # fmt: skip
def test_names_that_are_almost_those_of_the_training_are_named_with_them(name: str, trained: str) -> None:
    seen = seen_people(pd.Series([name, "somebody else"]), ["x", "y"], set(), {trained})
    (problem,) = seen.problems
    assert seen.rows.tolist() == [True, False]
    assert (problem.kind, f"'{trained}'" in problem.what) == (SEEN_NAME, True)
    assert not seen_people(pd.Series([name]), ["x"], set(), {trained}, distinct=True).problems


def test_one_photo_gives_a_person_away_in_all_others() -> None:
    seen = seen_people(pd.Series(["a", "a", "b"]), ["1", "2", "3"], {"2"}, set(), distinct=True)
    assert seen.rows.tolist() == [True, True, False]
    assert [problem.kind for problem in seen.problems] == [SEEN_PHOTO]
