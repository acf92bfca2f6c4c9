"""Layers that members share are computed once, and every answer stays what it was, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.data.preprocessing import Geometry, Preprocess
from orchestrator.inference.cascade import EXACT
from orchestrator.inference.engines import TOLERANCE, engines_here, open_runners, torch_runners
from orchestrator.inference.export import Exports
from orchestrator.inference.member import AnswerFunction, Member
from orchestrator.inference.predictor import start_predictor
from orchestrator.inference.reader import Prepared, stacked
from orchestrator.inference.shared_backbone import split
from orchestrator.networks.backbones import create, freeze_stages, only_head
from orchestrator.networks.heads import ClassHead
from tests.conftest import HARD, SOFT

SIZE = 64
CONVOLUTIONAL = ("test_byobnet", "test_convnext", "test_efficientnet", "test_efficientnet_gn", "test_resnet")
OTHERS = ("test_vit", "test_mambaout", "test_nfnet")


def member(backbone: str, seed: int, frozen: int | None, task: str = "mask", crop: float = 1.0) -> Member:
    """A network whose frozen layers are those of every other, and whose others are its own; None freezes all but the head."""
    network = create(backbone, len(CLASSES[task]), geometry=Geometry(SIZE, SIZE)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():  # timm starts many at zero, where a difference would not show
            if not any(parameter is weight for weight in network.get_classifier().parameters()):
                parameter.copy_(torch.rand(parameter.shape) * 0.2 - 0.1)
    if frozen is None:
        only_head(network)
    else:
        freeze_stages(network, frozen)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    preprocess = Preprocess(Geometry(SIZE, SIZE, crop), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    head = ClassHead(len(CLASSES[task]))
    sha256 = f"{seed:02d}{task}{backbone}".ljust(64, "0")
    network.requires_grad_(False)
    folder, run = Path(f"{task}-0001/fold-{seed}"), f"{task}-0001"
    return Member(folder, task, run, seed, backbone, "", (), head, preprocess, "auto", sha256, network)


def pixels(count: int = 5) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def answers_of(member: Member, photos: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return AnswerFunction(member)(torch.from_numpy(photos)).numpy()


@pytest.mark.parametrize("backbone", [*CONVOLUTIONAL, *OTHERS])
def test_divided_members_answer_as_whole_ones_bit_for_bit(backbone: str) -> None:
    network = create(backbone, 2, geometry=Geometry(SIZE, SIZE))
    stages = len(timm.models.group_parameters(network, network.group_matcher(coarse=True)))
    assert stages > 2
    for frozen in {1, stages // 2, stages - 1}:
        members = [member(backbone, seed, frozen) for seed in (1, 2, 3)]
        splits = split(members)
        assert [divided.member for divided in splits] == members
        if backbone in CONVOLUTIONAL:
            assert {divided.sharing for divided in splits} == {3}, f"{backbone}, {frozen} stages frozen: nothing shared"
            assert len({id(divided.shared_backbone) for divided in splits}) == 1
        for divided, runner in zip(splits, torch_runners(splits, "cpu"), strict=True):
            assert np.array_equal(runner(pixels()), answers_of(divided.member, pixels()))


@pytest.mark.parametrize(("backbone", "own"), [("test_efficientnet", 2), ("mobilenetv3_small_050", 4)])
def test_heads_alone_share_the_whole_body_over_tasks(backbone: str, own: int) -> None:
    members = [member(backbone, seed, None, task) for task in TASKS for seed in (1, 2)]
    splits = split(members)
    assert len({id(divided.shared_backbone) for divided in splits}) == 1
    # A classifier's weight and bias; MobileNetV3 has a convolution between the pooled features and it.
    assert {len(list(divided.tail.module.parameters())) for divided in splits} == {own}
    for divided, runner in zip(splits, torch_runners(splits, "cpu"), strict=True):
        assert np.array_equal(runner(pixels()), answers_of(divided.member, pixels()))


def test_weights_decide_what_is_shared() -> None:
    same = [member("test_efficientnet", seed, 3) for seed in (1, 2)]
    other_geometry = member("test_efficientnet", 4, 3, crop=0.8)
    trained_whole = [member("test_efficientnet", seed, 0) for seed in (5, 6)]
    alone = split([*same, other_geometry, *trained_whole])
    assert [divided.sharing for divided in alone] == [2, 2, 1, 1, 1]
    assert [divided.shared_backbone is None for divided in alone] == [False, False, True, True, True]
    shorter = [member("test_efficientnet", seed, 1) for seed in range(10, 16)]
    assert [divided.sharing for divided in split([*same, shorter[0]])] == [
        2,
        2,
        1,
    ]  # two deep spare more than three shallow
    assert {divided.sharing for divided in split([*same[:1], *shorter])} == {7}
    with torch.no_grad():
        next(same[1].network.parameters()).add_(1e-3)
    assert [divided.shared_backbone for divided in split(same)] == [None, None]


def test_a_tensor_beside_a_modules_children_counts() -> None:
    members = [member("test_convnext", seed, 2) for seed in (1, 2)]
    assert split(members)[0].shared_backbone is not None
    scales = [name for name, _ in members[1].network.stages[0].named_parameters() if name.endswith("gamma")]
    assert scales, "this network has no layer scale any more: choose another"
    before = split(members)[0].shared_backbone
    with torch.no_grad():
        members[1].network.stages[0].get_parameter(scales[0]).mul_(2)
    splits = split(members)
    after = splits[0].shared_backbone
    assert before is not None
    assert after is None or len(list(after.module.parameters())) < len(list(before.module.parameters()))
    for divided, runner in zip(splits, torch_runners(splits, "cpu"), strict=True):
        assert np.array_equal(runner(pixels()), answers_of(divided.member, pixels()))


def ensemble(frozen: int | None = 2) -> list[Member]:
    return [member("test_efficientnet", seed, frozen, TASKS[seed % 3]) for seed in (3, 6, 9, 1, 4, 7, 2, 5, 8)]


def ready(count: int) -> list[Prepared]:
    return [Prepared({Geometry(SIZE, SIZE): photo}) for photo in pixels(count)]


@pytest.mark.parametrize("frozen", [2, None])
def test_a_predictor_runs_shared_layers_once_a_stretch(frozen: int | None) -> None:
    members = ensemble(frozen)
    predictor = start_predictor(members, SOFT, threads=2)
    calls: list[int] = []
    shared_backbones = {
        id(divided.shared_backbone): divided.shared_backbone
        for divided in predictor.runtime.splits
        if divided.shared_backbone is not None
    }
    assert len(shared_backbones) == 1  # the tasks see the same crop
    for backbone in shared_backbones.values():
        backbone.module.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    answers = predictor.runtime.answers(stacked(ready(40)))
    assert sorted(calls) == [8, 16, 16]
    for task in TASKS:
        of_task = [member for member in members if member.task == task]
        for voter, answer in zip(of_task, answers.of(task).probabilities, strict=True):
            expected = [answers_of(voter, pixels(40)[start : start + 16]) for start in (0, 16, 32)]
            # Without AVX, kernels round by how many threads share a batch: the last bit may differ.
            np.testing.assert_allclose(answer, np.concatenate(expected), rtol=0, atol=1e-6)


def test_a_cascade_asks_the_same_members_with_shared_layers_and_without(tmp_path: Path) -> None:
    members = ensemble()
    shared, alone = (start_predictor(members, HARD, threads=2, sharing=sharing) for sharing in (True, False))
    paths = [tmp_path / f"{number}.png" for number in range(70)]
    for path, photo in zip(paths, pixels(70), strict=True):
        Image.fromarray(photo).save(path)
    answers = []
    for predictor in (shared, alone):
        batches = list(predictor.predict(paths, batch=32, cascade=EXACT))
        counts = np.concatenate([batch.answers.asked() for batch in batches if batch.answers])
        answers.append((counts, np.concatenate([batch.combined.label for batch in batches if batch.combined])))
    assert np.array_equal(answers[0][0], answers[1][0])
    assert np.array_equal(answers[0][1], answers[1][1])
    assert counts.min() >= 6  # two of three members settle a vote when they agree
    assert counts.sum() < 9 * 70


def test_every_engine_runs_divided_members(tmp_path: Path) -> None:
    splits = split(ensemble())
    exports = Exports(tmp_path)
    exports.make(splits)
    assert len(list(tmp_path.glob("*.onnx"))) == 1 + len(splits)
    photos = pixels(20)
    for engine in engines_here("cpu"):
        assert exports.check(splits, engine, lambda _: photos) <= TOLERANCE[engine.precision]
        runners = open_runners(splits, engine, exports.path, "cpu", 2)
        assert len({id(runner.shared_backbone) for runner in runners}) == 1
        features = runners[0].begin(photos)
        exact = torch_runners(splits, "cpu", "fp32")[0].begin(photos)
        assert np.abs(np.asarray(features) - np.asarray(exact)).max() < 1e-4  # in fp32 whatever the engine's precision
        for divided, runner in zip(splits, runners, strict=True):
            expected = answers_of(divided.member, photos)
            assert np.abs(runner.finish(features) - expected).max() <= TOLERANCE[engine.precision]
            few = runner.finish(features[np.array([2, 7])])
            assert np.abs(few - expected[[2, 7]]).max() <= TOLERANCE[engine.precision]


def test_networks_that_cannot_be_divided_stay_whole() -> None:
    members = [member("test_efficientnet", seed, 2) for seed in (1, 2)]
    assert split(members)[0].shared_backbone is not None

    class Twice(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(self.inner(inputs)) if inputs.shape[1] == 3 else self.inner(inputs)

    for whole in members:  # a leaf with weights that runs twice
        stem = nn.Conv2d(3, 3, 1)
        torch.nn.init.constant_(stem.weight, 0.1)
        torch.nn.init.constant_(stem.bias, 0.1)
        whole.network.conv_stem = nn.Sequential(Twice(stem), whole.network.conv_stem)
    splits = split(members)
    assert [divided.shared_backbone for divided in splits] == [None, None]
    assert np.array_equal(torch_runners(splits, "cpu")[0](pixels()), answers_of(members[0], pixels()))


class Borrowing(nn.Module):
    """Uses the weights of a layer that it never calls, as Swin V2 and `nn.MultiheadAttention` do."""

    def __init__(self) -> None:
        super().__init__()
        self.lent, self.act = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.act(nn.functional.conv2d(inputs, self.lent.weight, self.lent.bias))


def test_weights_that_are_used_without_being_called_count() -> None:
    members = [member("test_efficientnet", seed, 2) for seed in (1, 2, 3)]
    torch.manual_seed(5)
    stem = Borrowing()
    for whole in members:
        own = Borrowing()
        own.load_state_dict(stem.state_dict())
        whole.network.conv_stem = nn.Sequential(own, whole.network.conv_stem)
    assert [divided.sharing for divided in split(members)] == [3, 3, 3]
    with torch.no_grad():
        members[2].network.conv_stem[0].lent.weight.mul_(-1)
    splits = split(members)
    assert [divided.sharing for divided in splits] == [2, 2, 1]
    for divided, runner in zip(splits, torch_runners(splits, "cpu"), strict=True):
        assert np.array_equal(runner(pixels()), answers_of(divided.member, pixels()))


class Skipping(nn.Module):
    """A network with a skip over its shared backbone, which a division loses; its gain may be nothing in one member."""

    def __init__(self, inner: nn.Module, gain: float) -> None:
        super().__init__()
        self.inner, self.gain = inner, gain

    def forward_features(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner.forward_features(inputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs) + self.gain * inputs.flatten(1)[:, :3].mean()


def test_every_member_is_proven_for_itself() -> None:
    members = [member("test_efficientnet", seed, frozen) for seed, frozen in ((1, 0), (2, 2), (3, 2), (4, 2))]
    for whole, gain in zip(members, (0.0, 0.0, 1.0, 0.0), strict=True):
        object.__setattr__(whole, "network", Skipping(whole.network, gain).eval())
    splits = split(members)
    for divided, runner in zip(splits, torch_runners(splits, "cpu"), strict=True):
        assert np.array_equal(runner(pixels()), answers_of(divided.member, pixels())), divided.member.name
