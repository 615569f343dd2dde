"""Networks that train where a plain multilayer perceptron does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ntangent._base.check import check_positive
from ntangent._base.errors import ArgumentError
from ntangent.nn._build import Making, activation_module, check_sizes
from ntangent.nn.embeddings import FourierFeatures


class ModifiedMLP(nn.Module):
    """A perceptron whose hidden layers are gated by two encodings U and V of the input.

        U = σ(W_U x + b_U),  V = σ(W_V x + b_V),  H_1 = σ(W_1 x + b_1),
        Z_k = σ(W_k H_k + b_k),  H_{k+1} = (1 - Z_k) ⊙ U + Z_k ⊙ V,  f = W H + b.

    Source: Wang, Teng & Perdikaris (2021), SIAM J. Sci. Comput. 43(5), section 2.6, equations 2.39-2.43
    (arXiv 2001.04536).

    Args:
        inputs: dimension of the points.
        outputs: number of fields.
        width: neurons in each layer and encoding.
        depth: number of hidden layers, H_1 included.
        activation: name of an activation.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (N, inputs) → (N, outputs).

    Cost: that of a perceptron, and one product of series for each gated layer.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 4,
        activation: str = "tanh",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        making = Making(dtype, device, generator)
        self.activation = activation_module(activation)
        self.encoders = nn.ModuleList([making.linear(inputs, width) for _ in range(2)])
        self.first = making.linear(inputs, width)
        self.hidden = nn.ModuleList([making.linear(width, width) for _ in range(depth - 1)])
        self.last = making.linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fields."""
        u, v = (self.activation(encode(x)) for encode in self.encoders)
        h = self.activation(self.first(x))
        for layer in self.hidden:
            h = u + self.activation(layer(h)) * (v - u)
        return self.last(h)  # type: ignore[no-any-return]


class PirateNet(nn.Module):
    """Physics-informed residual adaptive network: gated blocks that start as the identity.

    With features Φ(x) and gates U = σ(W_U Φ + b_U), V = σ(W_V Φ + b_V), a block is
        f = σ(W_1 x + b_1),  z = f ⊙ U + (1 - f) ⊙ V,
        g = σ(W_2 z + b_2),  y = g ⊙ U + (1 - g) ⊙ V,
        h = σ(W_3 y + b_3),  x ← α h + (1 - α) x,
    with x = Φ at the start and one trainable α per block, 0 at the start, so that the untrained
    network is linear in Φ and every block comes in only as far as training wants it.

    Source: Wang, Li, Chen & Perdikaris (2024), arXiv 2402.00326, equations 4.1-4.6 (the initialisation
    of the last layer by least squares, section 4.2, is left to the caller).

    Args:
        inputs: dimension of the points.
        outputs: number of fields.
        width: number of features and of neurons; even with the default embedding.
        depth: number of blocks, of three layers each.
        activation: name of an activation.
        embedding: a module with ``width`` features; random Fourier features by default.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (N, inputs) → (N, outputs).

    Cost: three matrix products of width² and two products of series for each block.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 3,
        activation: str = "tanh",
        embedding: nn.Module | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        making = Making(dtype, device, generator)
        if embedding is None:
            if width % 2:
                raise ArgumentError(
                    f"width is {width}, an odd number",
                    "Fourier features come in pairs of a sine and a cosine",
                    f"width={width + 1}",
                )
            embedding = FourierFeatures(
                inputs, width // 2, dtype=dtype, device=device, generator=making.generator
            )
        self.embedding = embedding
        self.activation = activation_module(activation)
        self.gates = nn.ModuleList([making.linear(width, width) for _ in range(2)])
        self.blocks = nn.ModuleList([_PirateBlock(width, self.activation, making) for _ in range(depth)])
        self.last = making.linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fields."""
        features = self.embedding(x)
        u, v = (self.activation(gate(features)) for gate in self.gates)
        for block in self.blocks:
            features = block(features, u, v)
        return self.last(features)  # type: ignore[no-any-return]


class _PirateBlock(nn.Module):
    def __init__(self, width: int, activation: nn.Module, making: Making) -> None:
        super().__init__()
        self.layers = nn.ModuleList([making.linear(width, width) for _ in range(3)])
        self.activation = activation
        self.alpha = nn.Parameter(torch.zeros_like(self.layers[0].bias[:1]))  # type: ignore[index]

    def forward(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        first, second, third = self.layers
        z = v + self.activation(first(x)) * (u - v)
        y = v + self.activation(second(z)) * (u - v)
        h = self.activation(third(y))
        return x + self.alpha * (h - x)  # type: ignore[no-any-return]


class SIREN(nn.Module):
    """A perceptron with sines: h ↦ sin(ω₀(W h + b)), initialised so that all layers have one spread.

    The first weights are uniform in ±1/inputs, the others in ±sqrt(6/width)/ω₀, so that the
    arguments of all sines but the first are standard normal for any depth; biases are uniform in
    ±1/sqrt(fan in). A derivative of order n grows like ω₀^n.

    Source: Sitzmann et al. (2020), arXiv 2006.09661, section 3.2 and supplement 1.5.

    Args:
        inputs: dimension of the points.
        outputs: number of fields.
        width: neurons in each hidden layer.
        depth: number of hidden layers.
        frequency: ω₀, for all layers.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (N, inputs) → (N, outputs).

    Cost: that of a perceptron.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 3,
        frequency: float = 30.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        check_positive(frequency, "frequency")
        making = Making(dtype, device, generator)
        self.frequency = float(frequency)
        layers = []
        for k in range(depth + 1):
            fan_in, fan_out = (width if k else inputs), (width if k < depth else outputs)
            bound = (6.0 / fan_in) ** 0.5 / self.frequency if k else 1.0 / fan_in
            weight = making.uniform(fan_out, fan_in, bound=bound)
            layers.append(making.affine(weight, making.uniform(fan_out, bound=fan_in**-0.5)))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fields."""
        *hidden, last = self.layers
        for layer in hidden:
            x = torch.sin(self.frequency * layer(x))
        return last(x)  # type: ignore[no-any-return]


class ResidualMLP(nn.Module):
    """Blocks with a skip: h ← h + W_2 σ(W_1 h + b_1) + b_2, between two affine layers.

    The second weights of the blocks start divided by sqrt(depth), so that the spread of h does not
    grow with the number of blocks.

    Source: He, Zhang, Ren & Sun (2016), CVPR, equation 1 (the block); Zhang, Dauphin & Ma (2019), arXiv
    1901.09321 (scaling with the depth).

    Args:
        inputs: dimension of the points.
        outputs: number of fields.
        width: neurons in each layer.
        depth: number of blocks, of two layers each.
        activation: name of an activation.
        dtype, device, generator: see :mod:`ntangent.nn`.

    Shape: (N, inputs) → (N, outputs).

    Cost: two matrix products of width² and one activation for each block.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 64,
        depth: int = 3,
        activation: str = "tanh",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        making = Making(dtype, device, generator)
        self.activation = activation_module(activation)
        self.first = making.linear(inputs, width)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(
                    making.linear(width, width),
                    self.activation,
                    making.linear(width, width, scale=depth**-0.5),
                )
                for _ in range(depth)
            ]
        )
        self.last = making.linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fields."""
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(self.activation(h))  # type: ignore[no-any-return]
