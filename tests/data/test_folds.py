from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import DamagedError, PlanError
from orchestrator.data.folds import FoldPlan, plan_folds

BANDS = ((18, 29), (30, 59), (60, 80))


def table(sizes: list[int], seed: int = 0) -> pd.DataFrame:
    """People of the six gender x age classes, `sizes` of each."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind, size in enumerate(sizes):
        for _ in range(size):
            low, high = BANDS[kind % 3]
            rows.append((f"p{len(rows):05d}", float(rng.integers(low, high + 1)), ("male", "female")[kind // 3]))
    return pd.DataFrame(rows, columns=["person", "age", "gender"]).set_index("person")


sizes_of = st.lists(st.integers(5, 40), min_size=6, max_size=6)


@given(sizes_of, st.integers(2, 5), st.integers(0, 1000))
def test_folds_partition_people_and_keep_the_classes_shares(sizes: list[int], k: int, seed: int) -> None:
    people = table(sizes)
    plan = plan_folds(people, k, seed)
    assert set(plan.fold_of) == set(people.index)
    assert set(plan.fold_of.values()) == set(range(k))
    kinds = people["gender"] + np.digitize(people["age"], [30, 60]).astype(str)
    counts = pd.crosstab(kinds, pd.Series(plan.fold_of)).to_numpy()
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
anybody = st.tuples(st.one_of(st.just(30.0), st.just(60.0), st.floats(0, 120)), st.sampled_from(["male", "female"]))


@given(
    st.dictionaries(names, anybody, min_size=2, max_size=60),
    st.sampled_from([("age", "gender"), ("age",), ("gender",), ()]), st.integers(2, 12), st.integers(0, 1000),
)  # fmt: skip
def test_any_table_of_people_is_partitioned_or_refused(
    everyone: dict[str, tuple[float, str]], columns: tuple[str, ...], k: int, seed: int
) -> None:
    index = pd.Index(list(everyone), name="person")
    people = pd.DataFrame(list(everyone.values()), index=index, columns=["age", "gender"])[list(columns)]
    kinds = [people["gender"]] if "gender" in people else []
    kinds += [pd.Series(np.digitize(people["age"], [30, 60]), index)] if "age" in people else []
    smallest = min(len(group) for _, group in people.groupby(kinds)) if kinds else len(people)
    if k > smallest:
        with pytest.raises(PlanError, match=f"--folds {k} is larger than the smallest class|has a single person"):
            plan_folds(people, k, seed)
        return
    plan = plan_folds(people, k, seed)
    assert set(plan.fold_of) == set(everyone)
    assert set(plan.fold_of.values()) == set(range(k))


@given(sizes_of, st.integers(2, 5), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_rows_decides_nothing(sizes: list[int], k: int, seed: int, random: object) -> None:
    people = table(sizes)
    order = list(people.index)
    random.shuffle(order)
    assert plan_folds(people.loc[order], k, seed).digest == plan_folds(people, k, seed).digest


@given(sizes_of, st.integers(2, 5), st.integers(1, 7))
def test_a_split_holds_all_photos_of_a_person_on_one_side(sizes: list[int], k: int, photos: int) -> None:
    people = table(sizes)
    plan = plan_folds(people, k)
    persons = pd.Series(np.repeat(people.index.to_numpy(), photos)).sample(frac=1, random_state=0, ignore_index=True)
    held = []
    for fold in range(k):
        train, held_out = plan.split(persons, fold)
        assert not set(persons[train]) & set(persons[held_out])
        assert sorted([*train, *held_out]) == list(range(len(persons)))
        held += list(held_out)
    assert sorted(held) == list(range(len(persons)))


def test_another_seed_is_another_plan_and_the_same_seed_the_same() -> None:
    people = table([20] * 6)
    assert plan_folds(people, 5, 1).digest != plan_folds(people, 5, 2).digest
    assert plan_folds(people, 5, 1).digest == plan_folds(people, 5, 1).digest


def test_more_folds_than_the_smallest_class_has_people_names_the_class() -> None:
    people = table([20, 20, 4, 20, 20, 20])
    with pytest.raises(PlanError, match=r"--folds 5 is larger than the smallest class: 'male >=60' has 4 people"):
        plan_folds(people, 5)
    assert plan_folds(people, 4).k == 4
    with pytest.raises(PlanError, match="'male >=60' has a single person"):
        plan_folds(table([20, 20, 1, 20, 20, 20]), 2)
    with pytest.raises(PlanError, match="at least 2 folds"):
        plan_folds(people, 1)


def test_a_table_without_ages_or_genders_is_split_by_what_it_has() -> None:
    people = table([10] * 6)
    assert plan_folds(people[["gender"]], 5).strata == ("gender",)
    assert plan_folds(people[[]], 5).strata == ()
    with pytest.raises(PlanError, match="'people' has 3 people"):
        plan_folds(people[[]].head(3), 5)


def test_a_saved_plan_comes_back_and_an_edited_one_is_refused(tmp_path: Path) -> None:
    plan = plan_folds(table([10] * 6), 5)
    path = tmp_path / "plan.json"
    plan.save(path)
    assert FoldPlan.load(path, plan.name, "make it anew.") == plan
    other = plan_folds(table([10] * 6), 4)
    with pytest.raises(DamagedError, match=f"holds the plan '{plan.name}', and must hold the plan '{other.name}'"):
        FoldPlan.load(path, other.name, "make it anew.")
    path.write_text(path.read_text().replace('"p00000": ', '"p00000": 1'))
    with pytest.raises(DamagedError, match="do not match the digest in it"):
        FoldPlan.load(path, plan.name, "make it anew.")


def test_unknown_people_are_refused() -> None:
    plan = plan_folds(table([10] * 6), 5)
    with pytest.raises(PlanError, match="does not know 1 people of this data"):
        plan.folds(pd.Series(["p00000", "stranger"]))
    with pytest.raises(PlanError, match="allowed: 0 to 4"):
        plan.split(pd.Series(["p00000"]), 5)


@given(sizes_of, st.integers(2, 5), st.integers(0, 1000), st.data())
def test_a_plan_that_grows_keeps_everybodys_fold_and_the_classes_shares(
    sizes: list[int], k: int, seed: int, data: st.DataObject
) -> None:
    everybody = table(sizes)
    first = data.draw(st.integers(3 * k, len(everybody)), label="people of the first table")
    order = np.random.default_rng(seed).permutation(len(everybody))
    known = everybody.iloc[order[:first]]
    try:
        plan = plan_folds(known, k, seed)
    except PlanError:  # too few of a class
        return
    corrected = everybody.assign(age=everybody["age"].sample(frac=1, random_state=seed).to_numpy())
    grown = plan.extended(corrected)
    assert {person: grown.fold_of[person] for person in known.index} == dict(plan.fold_of)
    assert set(grown.fold_of) == set(everybody.index)
    assert grown.ancestors == ((plan.digest,) if first < len(everybody) else ())
    assert plan.extended(corrected.iloc[::-1]).fold_of == grown.fold_of
    assert grown.extended(corrected.head(5)) is grown  # whoever leaves stays known
    newcomers = everybody.index.difference(known.index)
    kinds = corrected["gender"] + np.digitize(corrected["age"], [30, 60]).astype(str)
    before, after = (
        pd.crosstab(kinds[part], pd.Series(grown.fold_of)[part]) for part in (known.index, everybody.index)
    )
    before = before.reindex(index=after.index, columns=range(k), fill_value=0)
    after = after.reindex(columns=range(k), fill_value=0)
    for kind in kinds[newcomers].unique():  # a class is filled up where it has the fewest
        spread = after.loc[kind].max() - after.loc[kind].min()
        assert spread <= max(1, before.loc[kind].max() - before.loc[kind].min())
    again = FoldPlan(grown.k, grown.seed, grown.fold_of, grown.strata, grown.ancestors)
    assert again.digest == grown.digest
