"""The linear probe: a row for each new label, and the old rows as they were."""

from __future__ import annotations

import pytest


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


def test_texts_are_read_in_parts_and_the_solution_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from models.training.linear_probe import probe

    features, truth = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 4
    solutions = []
    for batch in (60, 7):
        monkeypatch.setattr("models.training.linear_probe._BATCH", batch)
        head = torch.nn.Linear(8, 4)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        probe(head, features, truth, [1, 3], torch.zeros(4), 0.1)
        solutions.append(head.weight.detach().clone())
    assert torch.allclose(*solutions, atol=1e-3)
    assert solutions[0][1].abs().max() > 0.1
