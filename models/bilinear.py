"""A bilinear MLP: products of two linear maps and no activation (Pearce et al. 2024, arXiv 2410.08417).

f(x) = W_out (W x ⊙ V x). Unit: a row of W and V together; its coefficient (w·x)(v·x), of either sign, its write vector
its column of W_out. A coefficient is practically never 0: read sparsity off strengths, not off L0.
"""

from torch import Tensor, nn

from models import Codes, FixedWrites, TrunkConfig, register


class BilinearConfig(TrunkConfig):
    """d_ff: units of a layer; None: 8·d_model / 3, so that the three matrices hold what a dense layer's two do."""

    d_ff: int | None = None

    def check(self) -> None:
        super().check()
        self.d_ff = self.d_ff or max(8, 8 * round(self.d_model / 3))


class Bilinear(FixedWrites):
    def __init__(self, config: BilinearConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.n_units = config.d_ff or 0
        self.w = nn.Linear(config.d_model, self.n_units, bias=False)
        self.v = nn.Linear(config.d_model, self.n_units, bias=False)
        self.w_out = nn.Linear(self.n_units, config.d_model, bias=False)

    def fused(self, x: Tensor) -> Tensor:
        return self.w_out(self.w(x) * self.v(x))

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        return Codes.from_dense(self.w(x) * self.v(x), rows)

    def write_vectors(self) -> Tensor:
        return self.w_out.weight.T


register("bilinear", BilinearConfig, Bilinear)
