"""The linear probe: a row for each new label, and the old rows as they were."""

from __future__ import annotations


def test_a_new_label_is_found_on_the_encoder_as_it_is_and_the_old_rows_stay() -> None:
    import torch

    from models.training.linear_probe import probe

    draw = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(3, 16)
    truth = torch.arange(3).repeat(40)
    features = centres[truth] + torch.randn(120, 16, generator=draw)
    head = torch.nn.Linear(16, 3)
    with torch.no_grad():  # knows the first and the last, and was never shown the one between them
        head.weight.copy_(centres)
        head.weight[1] = 0
        head.bias.copy_(torch.tensor([-8.0, 0.0, -8.0]))
    before = head.weight[[0, 2]].clone()
    probe(head, features, truth, [1], torch.zeros(3), 0.0)
    assert (head(features).argmax(1) == truth).float().mean() > 0.98
    assert torch.equal(head.weight[[0, 2]], before)
