import torch

from kernels.sparse_dictionary import preactivations
from saes.auxiliary import auxiliary_loss, silent, under_used, zipf_densities


def case(seed=0):
    g = torch.Generator().manual_seed(seed)
    x, e = torch.randn(40, 6, generator=g), torch.randn(40, 5, generator=g)
    W_enc = torch.randn(6, 12, generator=g).requires_grad_()
    b_enc = torch.randn(12, generator=g).requires_grad_()
    W_dec = torch.randn(12, 5, generator=g).requires_grad_()
    among = torch.zeros(12, dtype=torch.bool)
    among[[1, 4, 5, 9]] = True
    return x, e, among, W_enc, b_enc, W_dec


def loss_of(x, e, among, W_enc, b_enc, W_dec, k_aux=3):
    with torch.no_grad():
        pre = preactivations(x, W_enc, b_enc)
    return auxiliary_loss(x, pre, e, among, k_aux, W_enc, b_enc, W_dec)[0]


def test_it_is_the_share_of_the_residual_left_by_the_best_silent_latents():
    x, e, among, W_enc, b_enc, W_dec = case()
    names = among.nonzero()[:, 0].tolist()
    left = 0.0
    for t in range(40):
        pre = {i: (x[t] @ W_enc[:, i] + b_enc[i]).item() for i in names}
        best = sorted(names, key=lambda i: -pre[i])[:3]
        left += (e[t] - sum(pre[i] * W_dec[i] for i in best)).square().sum().item()
    expected = left / float((e - e.mean(0)).square().sum())
    assert abs(loss_of(x, e, among, W_enc, b_enc, W_dec).item() - expected) < 1e-5 * expected


def test_its_gradient_reaches_encoder_and_decoder_of_the_silent_latents_and_no_other():
    x, e, among, W_enc, b_enc, W_dec = case()
    loss_of(x, e, among, W_enc, b_enc, W_dec).backward()
    for gradient in (W_enc.grad.norm(dim=0), b_enc.grad.abs(), W_dec.grad.norm(dim=1)):
        assert (gradient[among] > 0).all()
        assert (gradient[~among] == 0).all()


def test_its_gradient_is_that_of_the_dense_formula():
    x, e, among, W_enc, b_enc, W_dec = case()
    loss_of(x, e, among, W_enc, b_enc, W_dec).backward()
    got = [p.grad.clone() for p in (W_enc, b_enc, W_dec)]
    dense = (x @ W_enc + b_enc).masked_fill(~among, float("-inf"))
    chosen = torch.zeros_like(dense).scatter(1, dense.topk(3, dim=1).indices, 1.0)
    z = torch.where(chosen > 0, dense, torch.zeros_like(dense))
    loss = (e - z @ W_dec).square().sum() / (e - e.mean(0)).square().sum()
    expected = torch.autograd.grad(loss, (W_enc, b_enc, W_dec))
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_without_latents_to_teach_it_is_zero():
    x, e, among, W_enc, b_enc, W_dec = case()
    assert loss_of(x, e, torch.zeros_like(among), W_enc, b_enc, W_dec).item() == 0.0


def test_zipf_densities_sum_to_the_total_and_none_is_above_one():
    for n, total, exponent in ((10, 2.0, 0.5), (100, 30.0, 1.0), (50, 49.0, 2.0), (8, 8.0, 1.0), (1000, 0.5, 0.0)):
        p = zipf_densities(n, total, exponent)
        assert abs(float(p.sum()) - total) < 1e-9
        assert float(p.max()) <= 1 + 1e-12
        assert (p[1:] <= p[:-1] + 1e-12).all()
        free = p < 1 - 1e-9
        scaled = p * torch.arange(1, n + 1, dtype=torch.float64) ** exponent
        assert torch.allclose(scaled[free], scaled[free][:1].expand(int(free.sum())))


def test_usage_that_follows_zipfs_line_leaves_no_latent_under_used():
    density = zipf_densities(200, 20.0, 0.7)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    assert not under_used(density, 20.0, 0.7, share=0.99).any()


def test_when_only_silent_latents_fall_below_the_line_aux_zipf_is_aux_k():
    x, e, _, W_enc, b_enc, W_dec = case()
    since = torch.zeros(12, dtype=torch.long)
    since[[2, 3, 8]] = 500
    density = zipf_densities(12, 3.0, 0.5) * (since == 0)
    zipf, k = under_used(density, 3.0, 0.5, share=0.5), silent(since, 500)
    assert torch.equal(zipf, k)
    losses = [loss_of(x, e, among, W_enc, b_enc, W_dec) for among in (zipf, k)]
    gradients = [torch.autograd.grad(loss, (W_enc, b_enc, W_dec)) for loss in losses]
    assert losses[0].item() == losses[1].item() > 0
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
        assert a.abs().sum() > 0


def test_a_latent_that_fires_too_rarely_is_under_used_though_not_silent():
    density = zipf_densities(50, 5.0, 0.5)
    density[49] *= 0.05
    assert under_used(density, 5.0, 0.5, share=0.1).nonzero()[:, 0].tolist() == [49]
