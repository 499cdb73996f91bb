import pytest
import torch
from torch import nn

from videogpa.world.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (64, 192)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    # Newton-Schulz with these coefficients ends between about 0.7 and 1.2, not at 1; what starts close to zero
    # has not arrived after five steps.
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    well_conditioned = u @ torch.diag_embed(s.clamp_min(0.1 * float(s.max()))) @ vh
    y = orthogonalize(well_conditioned)
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.6
    assert values.max() < 1.3
    turned = u.mT @ y @ vh.mT
    torch.testing.assert_close(turned, torch.diag_embed(turned.diagonal(dim1=1, dim2=2)), atol=1e-3, rtol=0)


def test_a_batch_equals_its_matrices_one_by_one():
    x = torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([orthogonalize(m[None]) for m in x])
    torch.testing.assert_close(orthogonalize(x), one_by_one)
    torch.testing.assert_close(orthogonalize(x.mT), one_by_one.mT)


def test_the_scale_of_the_gradient_does_not_matter():
    x = torch.randn(1, 6, 10, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(orthogonalize(1000 * x), orthogonalize(x), atol=1e-4, rtol=1e-4)


def test_updates_have_one_size_whatever_the_shape():
    params = [nn.Parameter(torch.zeros(shape)) for shape in ((32, 32), (16, 64), (64, 16))]
    generator = torch.Generator().manual_seed(3)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    Muon(params, lr=1.0).step()
    for p in params:
        assert float(p.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)


def test_it_fits_a_linear_map_and_leaves_alone_what_has_no_gradient():
    generator = torch.Generator().manual_seed(4)
    target, inputs = torch.randn(6, 8, generator=generator), torch.randn(64, 8, generator=generator)
    weight, idle = nn.Parameter(torch.zeros(6, 8)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight, idle], lr=0.1)
    losses = []
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        loss = (inputs @ (weight - target).T).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    assert torch.equal(idle.detach(), torch.ones(2, 2))


def test_weight_decay_shrinks():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.5, weight_decay=0.2).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.9))
