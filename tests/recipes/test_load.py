"""Recipes: layers of settings, and every mistake reported at once with the way out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.data.augmentation import Augment, Augmenter
from orchestrator.recipes.load import choices_of, load_recipes, recipe_as_toml, recipe_files
from orchestrator.recipes.schema import Recipe
from orchestrator.specialists import SPECIALISTS, TRAINABLE

RECIPES = [
    "b0-plateau", "b0-steplr", "b3-border58", "b4-plateau", "demo", "probe", "quick", "resnext50-plateau", "standard", "strong",
    "v2l-focal-sam",
]  # fmt: skip


def problems(choices: list[str], changes: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipes(SPECIALISTS, choices, changes)
    return str(caught.value)


def test_layers_defaults_then_recipe_then_set() -> None:
    recipes = load_recipes(SPECIALISTS, ["quick"], ["epochs=9", "age.epochs=7", "age.augment.flip=0.25"])
    assert recipes["age"].epochs == 7
    assert recipes["mask"].epochs == recipes["gender"].epochs == 9
    assert recipes["age"].augment.flip == 0.25
    assert recipes["gender"].augment.flip == 0.5
    assert recipes["age"].sampling == recipes["gender"].sampling == "per_person"
    assert recipes["mask"].sampling == "per_photo"


def test_a_recipe_can_be_chosen_for_one_task_and_from_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(recipe_as_toml(load_recipes(SPECIALISTS, ["quick"], ["lr=0.5"])["age"]))
    recipes = load_recipes(SPECIALISTS, ["demo", f"age={mine}"])
    assert recipes["age"].lr == 0.5
    assert recipes["mask"] == load_recipes(SPECIALISTS, ["demo"])["mask"]


@pytest.mark.parametrize("task", TRAINABLE)
def test_every_named_recipe_is_valid_and_survives_copying(task: str, tmp_path: Path) -> None:
    names = list(recipe_files(TRAINABLE[task]))
    assert names == (RECIPES if task in SPECIALISTS else ["probe", "quick", "standard", "strong"])
    for name in names:
        recipe = load_recipes({task: TRAINABLE[task]}, [name])[task]
        assert recipe.about
        copy = tmp_path / f"{name}.toml"
        copy.write_text(recipe_as_toml(recipe))
        assert load_recipes({task: TRAINABLE[task]}, [str(copy)])[task] == recipe


def test_all_mistakes_are_told_at_once_with_the_way_out() -> None:
    message = problems(["quick", "mask=qick", "hat=quick"], [
        "age.lerning_rate=1", "age.epochs=many", "gender.loss=cross-entropy", "agee.lr=1", "nonsense", "age.augment.flp=1",
        "gender.train_border=58",
    ])  # fmt: skip
    assert "mask recipe: no recipe 'qick'; allowed: b0-plateau, " in message
    assert "Did you mean 'quick'?" in message
    assert "'hat' is not a task of this command" in message
    assert "unknown key 'lerning_rate'" in message
    assert "epochs = 'many'" in message
    assert (
        "'cross-entropy' is not a loss; allowed: cross_entropy, focal, f1, corn, soft_age. Did you mean 'cross_entropy'?"
        in message
    )
    assert "'agee.lr' is not a setting" in message
    assert "nonsense: has no '='" in message
    assert "unknown key 'augment.flp'. Did you mean 'augment.flip'?" in message


def test_settings_of_one_task_are_refused_for_others() -> None:
    assert "train_border = 58 is for the age specialist" in problems(["quick"], ["gender.train_border=58"])
    assert "loss = soft_age is for the age specialist" in problems(["quick"], ["mask.loss=soft_age"])
    assert "soft_age trains on exact years" in problems(["quick"], ["age.loss=soft_age", "age.train_border=58"])
    assert "train_border = 30; allowed: 31 to 100" in problems(
        ["quick"], ["age.loss=cross_entropy", "age.train_border=30"]
    )


def test_what_a_head_alone_would_ignore_is_refused() -> None:
    message = problems(["quick"], ["train=head", "age.augment.flip=0.2"])
    assert "frozen_stages changes how a network trains, and train = head does not train the network" in message
    assert "Use --set frozen_stages=0, or --set train=network" in message
    assert "drop_rate changes" in message
    assert message.count("--set age.augment.flip=0.2: train = head augments nothing") == 1
    assert "augments nothing" not in problems(["quick"], ["mask.train=head", "age.augment.flip=0.2"])
    assert load_recipes(SPECIALISTS, ["probe"])["age"].train == "head"


def test_values_are_read_as_toml_and_plain_words_as_text() -> None:
    recipe = load_recipes(SPECIALISTS, ["quick"], ["age.weights=none", "age.lr=1e-4", "age.backbone=resnet18"])["age"]
    assert (recipe.weights, recipe.lr, recipe.backbone) == ("none", 1e-4, "resnet18")


def test_a_missing_or_broken_file_is_told(tmp_path: Path) -> None:
    assert "No such file" in problems([str(tmp_path / "no.toml")], [])
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    assert "not valid TOML" in problems([str(tmp_path / "bad.toml")], [])
    (tmp_path / "few.toml").write_text('backbone = "resnet18"')
    assert "'epochs' is missing. It means: passes over the sampled photos" in problems([str(tmp_path / "few.toml")], [])


def test_a_files_name_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/x.toml` is a file at home; `./~x.toml`, and `~x` where nobody is called x, are files here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = recipe_as_toml(load_recipes(SPECIALISTS, ["quick"], ["lr=0.5"])["age"])
    for name in ("home/a=b/x.toml", "~x.toml", "~no_such_user/x.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(recipe)
    for name in ("~/a=b/x.toml", "./~x.toml", "~x.toml", "~no_such_user/x.toml", "./~no_such_user/x.toml"):
        for choice in (name, f"age={name}"):
            assert load_recipes({"age": SPECIALISTS["age"]}, [choice])["age"].lr == 0.5, choice
    assert "~no_such_user/no.toml: No such file" in problems(["~no_such_user/no.toml"], [])


def test_the_digest_is_of_what_changes_results() -> None:
    recipe = load_recipes(SPECIALISTS, ["quick"])["age"]
    assert recipe.digest() == recipe.model_copy(update={"about": "other", "workers": 3}).digest()
    for key in set(Recipe.model_fields) - {"about", "workers"}:
        others = {
            Augment: Augment(flip=0.9), bool: True, str: "other", dict: {"<30": 2.0}, tuple: ("one",), float: 0.987,
        }  # fmt: skip
        other = others.get(type(getattr(recipe, key)), 4)
        assert recipe.digest() != recipe.model_copy(update={key: other}).digest(), key


def test_every_number_has_a_meaning() -> None:
    for model in (Recipe, Augment):
        assert len(model.model_fields) > 10
        assert all(field.description for field in model.model_fields.values())


def test_a_recipe_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"lr = 1e-3 # \xff\xfe")
    assert "mine.toml: is not a text file (UTF-8)" in problems([str(tmp_path / "mine.toml")], [])


def test_losses_have_one_spelling_and_mistakes_are_told() -> None:
    for text in ("0.4 f1 + 0.6 focal", "0.40  f1+0.6 focal"):
        assert load_recipes(SPECIALISTS, ["quick"], [f"loss={text}"])["mask"].loss == "0.4 f1 + 0.6 focal"
    assert load_recipes(SPECIALISTS, ["quick"], ["loss=1 focal"])["age"].loss == "focal"
    assert load_recipes(SPECIALISTS, ["quick"], ["loss=ce"])["age"].loss == "cross_entropy"
    for text, message in (
        ("focl", "'focl' is not a loss; allowed: cross_entropy, focal, f1, corn, soft_age. Did you mean 'focal'?"),
        ("f1 + f1", "f1 appears twice"),
        ("-1 f1", "write a positive weight before f1"),
        ("much f1", "write a positive weight before f1"),
        ("f1 +", "'' is not a loss"),
        ("0.5 soft_age + f1", "soft_age takes no weight and no other terms"),
        ("2 corn", "corn takes no weight and no other terms"),
    ):
        assert message in problems(["quick"], [f"age.loss={text}"]), text
    assert "loss = corn is for the age specialist" in problems(["quick"], ["mask.loss=corn"])
    refusal = problems(["quick"], ["age.loss=corn", "age.label_smoothing=0.1"])
    assert "label_smoothing = 0.1 is for cross_entropy and focal; loss = corn ignores it" in refusal


@pytest.mark.parametrize(("changes", "message"), [
    (["age.step_every=3"], "step_every = 3 is for schedule = step; cosine ignores it. Use --set step_every=1."),
    (["age.lr_factor=0.1"], "lr_factor = 0.1 is for schedule = step and plateau; cosine ignores it"),
    (["age.plateau_patience=4"], "plateau_patience = 4 is for schedule = plateau"),
    (["age.focal_gamma=3"], "focal_gamma = 3 is for focal; loss = soft_age ignores it"),
    (["age.frozen_stages=0", "age.unfreeze_after=2"], "unfreeze_after = 2 is for frozen_stages, and this recipe freezes none"),
    (["age.small_size=0.7"], "small_size = 0.7 is for small_epochs"),
    (["age.layer_decay=0.8", "age.backbone_lr_scale=0.5"], "layer_decay and backbone_lr_scale both set the backbone's"),
    (["age.small_epochs=24"], "small_epochs = 24; the recipe has 24 epochs, so at most 23"),
    (["age.sample_factor={old = 2}"], "'old' is not a class; allowed: <30, 30-59, >=60"),
    (['age.sample_factor={">=60" = 0}'], "sample_factor of '>=60' = 0; allowed: above 0"),
    (["mask.crop=0.4", "mask.anchor=0.0"], "crop = 0.4 at anchor = 0 shows 0.00 to 0.40: it cuts away the rows from 0.5 to 0.7"),
    (["mask.augment.resized_crop=0.7"], "resized_crop, shift and scale together can cut away the rows from 0.5 to 0.7"),
    (["mask.augment.shift=0.4"], "resized_crop, shift and scale together can cut away"),
    (["mask.crop=0.3", "mask.anchor=0.58", "mask.views=['zoom']", "mask.augment={}"], "cut"),
    (["augment.vertical_flip=0.5"], "there is no 'augment.vertical_flip'. Faces are upright"),
    (["age.test_height=256"], "there is no 'test_height'. height, width, crop and anchor are one geometry"),
    (["age.augment.blur_size=4"], "a kernel has a middle pixel: odd sizes only"),
    (["age.optimiser=adanm"], "Did you mean 'adan'"),
    (["age.views=['flip', 'turn']"], "views"),
    (["age.train=head", "age.views=['flip']"], "views changes how a network trains"),
])  # fmt: skip
def test_what_is_ignored_impossible_or_removes_the_answer_is_refused(changes: list[str], message: str) -> None:
    assert message in problems(["quick"], changes)


@given(
    st.floats(0.3, 1),
    st.floats(0, 1),
    st.floats(0, 0.6),
    st.floats(0, 0.2),
    st.floats(0, 0.3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)  # the first imports albumentations
def test_no_accepted_crop_ever_removes_what_the_mask_specialist_keeps(
    crop: float, anchor: float, area: float, shift: float, scale: float, seed: int
) -> None:
    """Rows of a photo are numbered by their brightness; what a lint accepts shows both ends of the kept rows."""
    specialist = SPECIALISTS["mask"]
    changes = [
        f"crop={crop}",
        f"anchor={anchor}",
        f"augment={{resized_crop = {area}, shift = {shift}, scale = {scale}}}",
    ]
    try:
        recipe = load_recipes({"mask": specialist}, ["quick"], changes)["mask"]
    except ConfigError:
        return
    photo = np.repeat(np.tile(np.linspace(0, 255, 512)[:, None], (1, 384))[:, :, None], 3, axis=2).astype(np.uint8)
    pixels = np.stack([recipe.geometry.apply(photo)] * 16)
    shown = Augmenter(recipe.augment, recipe.height, recipe.width)(pixels, seed) / 255
    assert specialist.keeps is not None
    low, high = specialist.keeps
    assert (shown.min(axis=(1, 2, 3)) < low + 0.03).all()
    assert (shown.max(axis=(1, 2, 3)) > high - 0.03).all()


def test_toml_is_read_however_an_editor_saved_it(tmp_path: Path) -> None:
    text = recipe_as_toml(load_recipes(SPECIALISTS, ["quick"])["age"])
    wanted = load_recipes({"age": SPECIALISTS["age"]}, ["quick"])["age"]
    mine = tmp_path / "mine.toml"
    for content in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode(), text.encode()):
        mine.write_bytes(content)
        assert load_recipes({"age": SPECIALISTS["age"]}, [str(mine)])["age"] == wanted
    for name in ("utf-16", "utf-16-le", "utf-32"):
        mine.write_bytes(("\ufeff" if name.endswith("le") else "").encode(name) + text.encode(name))
        assert f"is text in {name[:6].upper()}, and TOML is UTF-8. Save it as UTF-8." in problems([str(mine)], [])
    for content, message in (
        (b"a = 1\nb = '\xe9'\n", "is not a text file (UTF-8): line 2"), (b"a = " + b"[" * 20_000, "nested too deeply"),
        (b"a = " + b"1" * 9_000, "not valid TOML"), (b"a = 1\ra = 2", "not valid TOML"),
    ):  # fmt: skip
        mine.write_bytes(content)
        assert message in problems([str(mine)], [])
    (tmp_path / "folder.toml").mkdir()
    assert "Is a directory" in problems([str(tmp_path / "folder.toml")], [])


def test_paths_of_recipes_may_hold_equals_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = recipe_as_toml(load_recipes(SPECIALISTS, ["quick"], ["lr=0.5"])["age"])
    Path("a=b.toml").write_text(text)
    Path("x=y=z.toml").write_text(text)
    both = {task: SPECIALISTS[task] for task in ("age", "gender")}
    assert load_recipes({"age": SPECIALISTS["age"]}, ["a=b.toml"])["age"].lr == 0.5
    assert load_recipes(both, ["age=x=y=z.toml"])["age"].lr == 0.5 != load_recipes(both, ["age=a=b.toml"])["gender"].lr
    assert choices_of(("age",), ["quick", "gender=x", "age=x=y=z.toml"])[0] == {"age": "x=y=z.toml"}
    assert choices_of(("age",), ["age=demo", "a=b.toml"])[0] == {"age": "a=b.toml"}
    with pytest.raises(ConfigError, match=r"--recipe c=d.toml: 'c' is not a task.*There is no file 'c=d.toml' either."):
        load_recipes(both, ["c=d.toml"])
    with pytest.raises(
        ConfigError, match=r"--recipe mask=quick: 'mask' is not a task of this command; allowed: age, gend"
    ):
        load_recipes(both, ["mask=quick"])


def test_numbers_are_finite() -> None:
    for change in ("clip_norm=inf", "weight_decay=nan", "augment.scale=nan", "age.sample_factor={'<30' = inf}"):
        assert "finite number" in problems(["quick"], [change]), change


@pytest.mark.parametrize("task", ["mask", "joint"])
def test_a_margin_that_can_cut_the_chin_is_refused(task: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipes({task: TRAINABLE[task]}, ["quick"], ["face=0.1"])
    (problem,) = caught.value.problems
    assert "shows -0.10 to 1.10: it cuts away the rows from 0.45 to 1.15 of the height of a face's box" in str(problem)


def test_a_margin_that_augmentation_can_eat_up_is_refused() -> None:
    plain = "augment={resized_crop=0, shift=0, scale=0}"
    assert load_recipes({"mask": SPECIALISTS["mask"]}, ["quick"], ["face=0.16", plain])
    assert load_recipes({"mask": SPECIALISTS["mask"]}, ["quick"], ["face=0.5"])
    assert load_recipes({"age": SPECIALISTS["age"]}, ["quick"], ["face=0.01"])
    with pytest.raises(ConfigError, match="resized_crop"):
        load_recipes({"mask": SPECIALISTS["mask"]}, ["quick"], ["face=0.2"])
