"""A step's arithmetic is counted, and matrices give a rate."""

import torch

from orchestrator.bench.arithmetic import count_flops, matrix_rate


def test_a_steps_arithmetic_is_counted_and_matrices_give_a_rate() -> None:
    left, right = torch.ones(8, 16), torch.ones(16, 32, requires_grad=True)
    assert count_flops(lambda: left @ right) == 2 * 8 * 16 * 32
    assert count_flops(lambda: (left @ right).sum().backward()) == 2 * 2 * 8 * 16 * 32  # `left` needs no gradient
    photos = torch.ones(2, 6, 10, 10, requires_grad=True)
    for groups in (1, 2, 6):
        layer = torch.nn.Conv2d(6, 12, 3, groups=groups)  # 8 x 8 places, 12 x 9 x 6 / groups weights
        once = 2 * 2 * 64 * 12 * 9 * 6 // groups
        assert count_flops(lambda layer=layer: layer(photos)) == once
        assert count_flops(lambda layer=layer: layer(photos).sum().backward()) == 3 * once
        layer.weight.requires_grad_(False)
        assert count_flops(lambda layer=layer: layer(photos).sum().backward()) == 2 * once
    turned = torch.nn.ConvTranspose2d(6, 4, 2, stride=2)
    assert count_flops(lambda: turned(photos).sum().backward()) == 3 * 2 * 2 * 100 * 6 * 4 * 4
    threads = torch.get_num_threads()
    assert 1e8 < matrix_rate("cpu", torch.float32, 1) < 1e15
    assert torch.get_num_threads() == threads
