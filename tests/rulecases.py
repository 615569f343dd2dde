"""One case or more for every torch function that has a Taylor rule."""

from typing import Any

import torch
import torch.nn.functional as F
from rulecheck import Case

M, V, C, S = (3, 4), (4,), (2, 3, 4), (2, 4, 6)
POSITIVE = (0.5, 3.0)
GENERATOR = torch.Generator().manual_seed(7)


def _constant(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def of(name: str, *shapes: Any, args: tuple[Any, ...] = (), **options: Any) -> list[Case]:
    """Cases of torch.name and torch.Tensor.name, whichever exist; several names by spaces."""
    settings = {k: options.pop(k) for k in ("domain", "series", "order", "tags") if k in options}
    label = f"{args or ''}{options or ''}"
    cases = []
    for one in name.split():
        if hasattr(torch, one):
            cases.append(
                Case(
                    f"torch.{one}{label}",
                    lambda *x, n=one: method(torch, n)(*x, *args, **options),
                    shapes,
                    **settings,
                )
            )
        if hasattr(torch.Tensor, one):
            cases.append(
                Case(
                    f"Tensor.{one}{label}",
                    lambda x, *y, n=one: method(x, n)(*y, *args, **options),
                    shapes,
                    **{**settings, "series": settings.get("series", (0,) if len(shapes) > 1 else None)},
                )
            )
    return cases


def method(x: Any, name: str) -> Any:
    return getattr(x, name)


def one(name: str, call: Any, *shapes: Any, **settings: Any) -> list[Case]:
    return [Case(name, call, shapes, **settings)]


def each(functions: dict[str, Any], *shapes: Any, **settings: Any) -> list[Case]:
    return [Case(name, f, shapes, **settings) for name, f in functions.items()]


def activations() -> list[Case]:
    smooth = "tanh sigmoid sin cos tan atan arctan sinh cosh asinh arcsinh exp expm1 erf erfc"
    smooth += " square relu abs absolute"
    cases = of(smooth, M, domain=(-1.2, 1.2)) + of("negative neg positive clone", M)
    cases += of("log log1p sqrt rsqrt reciprocal log2 log10", M, domain=POSITIVE)
    cases += of("asin arcsin acos arccos atanh arctanh erfinv", M, domain=(-0.7, 0.7))
    cases += (
        of("acosh arccosh", M, domain=(1.5, 4.0)) + of("exp2 sinc", M) + of("logit", M, domain=(0.2, 0.8))
    )
    cases += of("logit", M, args=(0.3,), domain=(0.1, 0.9)) + of("sinc", M, domain=(1.5, 4.0))
    cases += of("hardshrink selu celu", M, domain=(-2, 2))
    functional = (
        "tanh sigmoid relu relu6 silu mish logsigmoid tanhshrink gelu leaky_relu elu selu softplus softsign"
    )
    functional += " hardtanh hardswish celu hardshrink softshrink"
    cases += each({f"F.{n}": getattr(F, n) for n in functional.split()}, (6, 4), domain=(-5.0, 5.0))
    special = "expit expm1 log1p erf erfc exp2 sinc entr logit erfinv"
    cases += each({f"special.{n}": getattr(torch.special, n) for n in special.split()}, M, domain=(0.2, 0.8))
    return cases + each(
        {
            "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
            "softplus beta": lambda x: F.softplus(x, beta=2.0),
            "softplus beta as int": lambda x: F.softplus(x, 3),
            "celu 2": lambda x: F.celu(x, 2.0),
            "elu 0.5": lambda x: F.elu(x, 0.5),
            "leaky 0.2": lambda x: F.leaky_relu(x, 0.2),
            "hardtanh bounds": lambda x: F.hardtanh(x, -0.3, 1.5),
            "softshrink 1": lambda x: F.softshrink(x, 1.0),
            "hardshrink 1": lambda x: F.hardshrink(x, 1.0),
            "threshold": lambda x: F.threshold(x, 0.5, 2.0),
            "torch.threshold": lambda x: torch.threshold(x, 0.5, 2.0),
            "rrelu": lambda x: F.rrelu(x) + torch.rrelu(x, 0.1, 0.2),
            "glu": lambda x: F.glu(x, -1),
            "glu 0": lambda x: F.glu(x, 0),
            "dropout": lambda x: F.dropout(x, 0.5, training=False),
            "mod": lambda x: x % 0.7,
        },
        (6, 4),
        domain=(-2.0, 2.0),
    )


def arithmetic() -> list[Case]:
    cases = of("add sub subtract mul multiply", M, V) + of("rsub", M, V)
    cases += of("div divide true_divide", M, V, domain=POSITIVE) + of("pow", M, args=(3,))
    cases += of("pow", M, args=(-1.5,), domain=POSITIVE) + of("add", M, V, alpha=2.0)
    cases += of("maximum minimum", M, M) + of("remainder fmod", M, args=(0.7,)) + of("remainder fmod", M, M)
    cases += of("hypot", M, M) + of("atan2 arctan2", M, M) + of("clamp clip", M, args=(-0.5, 0.5))
    cases += (
        of("clamp", M, M, M, domain=(-1, 1))
        + of("clamp", M, max=0.3)
        + of("clamp_min clamp_max", M, args=(0.2,))
    )
    cases += of("addcmul", M, M, V, value=0.5) + of("addcdiv", M, M, V, value=2.0, domain=POSITIVE)
    cases += of("lerp", M, M, V) + of("lerp", M, M, args=(0.3,)) + of("xlogy", M, M, domain=POSITIVE)
    cases += of("prelu", C, (3,)) + of("prelu", C, (1,)) + of("frac", M)
    mask = torch.tensor([[True, False, True, False]])
    cases += of("masked_fill", C, args=(mask, 2.0)) + of("masked_fill", M, args=(mask, -1))
    return cases + each(
        {
            "where": lambda x, y: torch.where(mask, x, y),
            "where scalar": lambda x, y: torch.where(x > 0, y, 2.0) + torch.where(y > x, 1.0, x),
            "Tensor.where": lambda x, y: x.where(mask, y),
            "operators": lambda x, y: (x + 1) * (2 - y) / (3 + x * x) + 1 / (y * y + 1) - (-x) + abs(y),
            "powers": lambda x, y: x**2 + 2.0**y + (x * x + 1) ** 0.5 + (x * x + 1) ** y,
            "dunder": lambda x, y: (
                torch.Tensor.__add__(x, y) if isinstance(x, torch.Tensor) else x.__add__(y)
            ),
            "xlogy special": lambda x, y: torch.special.xlogy(x * x + 1, y * y + 1),
            "matmul operator": lambda x, y: x @ y.T + (x * y) @ x.mT,
            "constants on the left": lambda x, y: (
                _LEFT + x - _LEFT * y - (_LEFT / (4 + x)) + _LEFT ** y.abs() + (_LEFT @ x.T).sum()
            ),
            "reversed": lambda x, y: _LEFT - x + 2 / (3 + y),
        },
        M,
        M,
    )


_LEFT = _constant(3, 4).abs() + 0.5


def linear() -> list[Case]:
    cases = of("sum mean", C) + of("sum mean", C, args=((0, -1),), keepdim=True) + of("sum mean", C, dim=1)
    cases += of("sum mean", ()) + of("sum", C, axis=1, keepdims=True) + of("sum", C, dim=())
    cases += of("sum mean", M, dim=0, dtype=torch.float64)
    cases += of("cumsum", C, dim=1) + of("diff", C) + of("diff", C, n=2, dim=1) + of("trace", M)
    cases += of("reshape", C, args=((4, 6),)) + of("reshape", C, args=((-1,),)) + of("flatten ravel", C)
    cases += of("flatten", C, args=(1, 2)) + of("flatten", ()) + of("unflatten", M, args=(1, (2, 2)))
    cases += of("unsqueeze", M, dim=-1) + of("unsqueeze", M, dim=0) + of("unsqueeze", (), dim=-1)
    cases += (
        of("squeeze", (1, 3, 1)) + of("squeeze", (1, 3, 1), dim=-1) + of("squeeze", (1, 3, 1), args=((0, 2),))
    )
    cases += of("transpose swapaxes swapdims", C, args=(0, -1)) + of("t", M) + of("t", V)
    cases += of("permute", C, args=((2, 0, 1),)) + of("movedim moveaxis", C, args=(0, -1))
    cases += of("movedim", C, args=((0, 1), (1, 2))) + of("broadcast_to", M, args=((2, 3, 4),))
    cases += (
        of("tile", M, args=((2,),)) + of("tile", M, args=((2, 1, 2),)) + of("repeat_interleave", M, args=(2,))
    )
    cases += of("repeat_interleave", M, args=(torch.tensor([1, 2, 0]),), dim=0) + of("chunk", C, args=(2, -1))
    cases += (
        of("split", C, args=(2, -1)) + of("split", C, args=([1, 3], 2)) + of("tensor_split", C, args=(3, 2))
    )
    cases += (
        of("unbind", C)
        + of("unbind", C, dim=-1)
        + of("narrow", C, args=(-1, 1, 2))
        + of("select", C, args=(1, -1))
    )
    index = torch.tensor([2, 0, 0])
    cases += of("index_select", C, args=(1, index)) + of("gather", M, args=(0, torch.tensor([[2, 1, 0, 1]])))
    cases += of("take_along_dim", M, args=(torch.tensor([[1], [0], [3]]), 1))
    cases += of("take_along_dim", M, args=(torch.tensor([5, 2]),)) + of("masked_select", M, args=(_LEFT > 1,))
    cases += of("roll", M, args=(1,)) + of("roll", C, args=((1, -1), (0, 2))) + of("flip", C, args=((0, 2),))
    cases += (
        of("fliplr flipud rot90 tril triu", M)
        + of("rot90", C, args=(3, (0, -1)))
        + of("tril triu", C, args=(-1,))
    )
    cases += of("diagonal", C) + of("diagonal", C, args=(1, -1, 0)) + of("diag_embed", M) + of("diag", M)
    cases += each(
        {
            "view": lambda x: x.view(4, 6) + x.view((4, -1)).view_as(x.reshape(4, 6)),
            "reshape sizes": lambda x: x.reshape(6, 4) + x.reshape_as(x.reshape(6, 4)),
            "permute sizes": lambda x: x.permute(1, 2, 0),
            "expand": lambda x: x.expand(5, -1, 3, 4) + x.unsqueeze(0).expand_as(torch.zeros(5, 2, 3, 4)),
            "repeat": lambda x: (x.repeat(2, 1, 1, 2), x.repeat((1, 2, 1))),
            "flip sizes": lambda x: x.flip(0, 1),
            "unfold": lambda x: x.unfold(-1, 2, 1),
            "T": lambda x: x[0].T @ x[1] + x.mT[0] @ x[1],
            "index": lambda x: (
                x[0],
                x[..., 1],
                x[:, None, 1:],
                x[:, index, 0],
                x[index[:2] - index[:2]],
                x[-1, 2, 3],
            ),
            "index masks": lambda x: (x[x.detach() > 0] if isinstance(x, torch.Tensor) else x[x > 0],),
            "iterate": lambda x: sum(row for row in x),
            "types": lambda x: (x.to(torch.float64) + x.double() + x.type_as(x) + x.cpu() + x.contiguous(),),
            "through float": lambda x: x.to(x.dtype) + x.to(x),
            "pads": lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 1), value=3.0), F.pad(x, (-1, 1))),
            "pad modes": lambda x: (
                F.pad(x, (1, 2), "circular"),
                F.pad(x, (1, 1), "reflect"),
                F.pad(x, (2, 0), "replicate"),
            ),
        },
        C,
    )
    return cases + each(
        {
            "cat": lambda x, y: torch.cat([x, y], -1) + torch.cat((x, y), dim=1),
            "cat constant": lambda x, y: torch.concat([x, _LEFT, y]) * torch.concatenate([y, _LEFT, x]),
            "stack": lambda x, y: torch.stack([x, y], -1) + torch.stack([y, x], dim=2),
            "stacks": lambda x, y: (
                torch.hstack([x, y]),
                torch.vstack([x, y]),
                torch.dstack((x, y)),
                torch.column_stack([x, y]),
                torch.row_stack([x, y]),
            ),
            "broadcast_tensors": lambda x, y: torch.broadcast_tensors(x[None], y),
            "diff ends": lambda x, y: torch.diff(x, prepend=y, append=y[:, :1]),
        },
        M,
        M,
    )


def products() -> list[Case]:
    cases = of("matmul", C, (2, 4, 3)) + of("mm", M, (4, 2)) + of("bmm", C, (2, 4, 2)) + of("mv", M, V)
    cases += of("dot vdot", V, V) + of("outer ger", V, (3,)) + of("inner", M, M)
    cases += (
        of("cross", (3, 3), (3, 3), dim=-1)
        + of("matmul", V, V)
        + of("matmul", M, V)
        + of("matmul", V, (4, 3))
    )
    cases += (
        of("addmm", (3, 2), M, (4, 2), beta=0.5, alpha=2.0) + of("addmv", (3,), M, V) + of("addr", M, (3,), V)
    )
    cases += (
        of("baddbmm", (2, 3, 2), C, (2, 4, 2))
        + of("addbmm", (3, 2), C, (2, 4, 2))
        + of("addmm", (3, 2), M, (4, 2), beta=0)
    )
    cases += of("prod", C) + of("prod", C, dim=1, keepdim=True) + of("cumprod", C, dim=-1) + of("prod", ())
    equations = {
        "ij,jk->ik": (M, (4, 2)),
        "ij,jk": (M, (4, 2)),
        "...i,ij->...j": (C, (4, 2)),
        "ii->i": ((3, 3),),
        "bij,bjk,kl->bil": (C, (2, 4, 2), (2, 3)),
        "i,i,i->": (V, V, V),
        "i,j,k,ij->k": ((3,), (4,), (2,), M),
        "bi, bi -> b": (M, M),
        "...ij->...ji": (C,),
    }
    for equation, shapes in equations.items():
        cases += one(f"einsum {equation}", lambda *x, e=equation: torch.einsum(e, *x), *shapes)
    cases += each(
        {
            "linear": lambda x, w: F.linear(x, w),
            "linear bias": lambda x, w: F.linear(x, w, w[:, 0]),
            "linalg.cross": lambda x, y: torch.linalg.cross(x[:, :3], y[:, :3]),
            "vecdot": lambda x, y: torch.linalg.vecdot(x, y),
            "tensordot": lambda x, y: (
                torch.tensordot(x, y, dims=([0, 1], [0, 1])) + torch.tensordot(x.T, y, 1)
            ),
            "multi_dot": lambda x, y: torch.linalg.multi_dot([x, y.T, x]),
            "products": lambda x, y: x @ y.T @ x,
            "cosine": lambda x, y: F.cosine_similarity(x, y),
            "mse": lambda x, y: (F.mse_loss(x, y), F.mse_loss(x, y, reduction="none")),
            "pairwise": lambda x, y: F.pairwise_distance(x, y),
            "addmm method": lambda x, y: _LEFT[:, :3].addmm(x, y.T),
            "constant matmul": lambda x, y: torch.matmul(_LEFT, x.T) @ y,
        },
        M,
        M,
    )
    return cases + one(
        "bilinear",
        lambda x, y, w, b: F.bilinear(x, y, w, b),
        (5, 3),
        (5, 2),
        (4, 3, 2),
        (4,),
        tags=frozenset({"slow"}),
    )


def layers() -> list[Case]:
    cases = of("softmax log_softmax logsumexp", C, dim=1) + of("softmax", M, dim=-1, dtype=torch.float64)
    cases += (
        of("logsumexp", C, args=((0, 2),), keepdim=True) + of("var std", C) + of("var std", C, dim=(0, 1))
    )
    cases += of("var std", C, dim=1, unbiased=False) + of("var", C, dim=-1, correction=0, keepdim=True)
    cases += of("amax amin", C) + of("amax amin", C, dim=(0, 2), keepdim=True) + of("max min", C)
    cases += of("max min", C, dim=1) + of("max min", C, dim=-1, keepdim=True) + of("max min", M, M)
    cases += of("sort", C) + of("sort", C, dim=0, descending=True) + of("topk", C, args=(2,), dim=-1)
    cases += of("norm", C) + of("norm", C, dim=1) + of("norm", M, args=(3,)) + of("norm", M, args=(1, 0))
    cases += each(
        {
            "F.softmax": lambda x: F.softmax(x, dim=-1) + F.softmin(x, dim=0) + F.log_softmax(x, dim=1),
            "special": lambda x: (
                torch.special.softmax(x, 1),
                torch.special.log_softmax(x, 0),
                torch.special.logsumexp(x, 1),
            ),
            "vector_norm": lambda x: (
                torch.linalg.vector_norm(x, dim=-1),
                torch.linalg.vector_norm(x, 4),
                torch.linalg.vector_norm(x, float("inf"), dim=0),
                torch.linalg.vector_norm(x, -float("inf")),
            ),
            "linalg.norm": lambda x: (
                torch.linalg.norm(x),
                torch.linalg.norm(x, dim=1),
                torch.linalg.norm(x, 1, dim=1),
                torch.linalg.norm(x, "fro"),
            ),
            "normalize": lambda x: F.normalize(x, dim=-1),
            "rms_norm": lambda x: F.rms_norm(x, (4,), _LEFT[0], 1e-5) + torch.rms_norm(x, (3, 4)),
        },
        M,
    )
    mean, var = _constant(4), _constant(4).abs() + 0.5
    # The third and higher derivatives that torch's autograd gives for these two are wrong (2.13).
    cases += one(
        "layer_norm",
        lambda x: F.layer_norm(x, (4,), _LEFT[0], _LEFT[1]) + torch.layer_norm(x, (3, 4)),
        M,
        oracle=lambda x: _standard(x, -1) * _LEFT[0] + _LEFT[1] + _standard(x, (0, 1)),
    )
    cases += one(
        "instance_norm",
        lambda x: F.instance_norm(x, weight=mean, bias=var),
        S,
        oracle=lambda x: _standard(x, -1) * mean[:, None] + var[:, None],
    )
    cases += one(
        "hardsigmoid",
        lambda x: F.hardsigmoid(x),
        S,
        domain=(-5.0, 5.0),
        oracle=lambda x: F.relu6(x + 3) / 6,
    )
    cases += each(
        {
            "group_norm": lambda x: F.group_norm(x, 2, mean, var) + torch.group_norm(x, 4),
            "instance_norm eval": lambda x: F.instance_norm(x, mean, var, use_input_stats=False),
            "batch_norm": lambda x: F.batch_norm(x, mean, var, var, mean),
            "conv1d": lambda x: (
                F.conv1d(x, _CONV1, _CONV1[:, 0, 0], padding=1, stride=2, dilation=1)
                + F.conv1d(x, _CONV1, stride=2, padding=1)
            ),
            "conv1d same": lambda x: F.conv1d(x, _CONV1, padding="same"),
            "conv groups": lambda x: F.conv1d(x, _CONV1[:, :2], groups=2),
            "conv1d unbatched": lambda x: F.conv1d(x[0], _CONV1, _CONV1[:, 0, 0]),
            "conv transposed": lambda x: F.conv_transpose1d(
                x, _CONV1[:4], _CONV1[0, :, 0], stride=2, output_padding=1
            ),
            "avg_pool1d": lambda x: (F.avg_pool1d(x, 2), F.adaptive_avg_pool1d(x, 3)),
            "max_pool1d": lambda x: (
                F.max_pool1d(x, 2),
                torch.max_pool1d(x, 3),
                F.max_pool1d(x, 2, return_indices=True)[0],
                F.max_pool1d(x[0], 3, stride=1, padding=1),
            ),
            "interpolate": lambda x: (
                F.interpolate(x, 9),
                F.interpolate(x, scale_factor=2.0, mode="linear", align_corners=True),
            ),
        },
        S,
    )
    cases += each(
        {
            "conv2d": lambda x: F.conv2d(x, _CONV2, _CONV2[:, 0, 0, 0], padding=1),
            "conv2d transposed": lambda x: F.conv_transpose2d(x, _CONV2[:2]),
            "circular": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), _CONV2),
            "pools": lambda x: (
                F.avg_pool2d(x, 2, count_include_pad=False),
                F.adaptive_avg_pool2d(x, (2, 1)),
                F.max_pool2d(x, 2),
                torch.max_pool2d(x, 2),
                F.max_pool2d(x, 2, return_indices=True)[0],
            ),
            "resize": lambda x: (
                F.interpolate(x, (5, 3), mode="bilinear"),
                F.interpolate(x, (5, 3), mode="bicubic"),
            ),
            "patches": lambda x: (
                F.unfold(x, 2),
                F.pixel_unshuffle(x, 2),
                F.pixel_shuffle(x.repeat(1, 2, 1, 1), 2),
            ),
            "fold": lambda x: F.fold(F.unfold(x, 2), (4, 4), 2),
        },
        (1, 2, 4, 4),
        tags=frozenset({"slow"}),
    )
    cases += each(
        {
            "conv3d": lambda x: F.conv3d(x, _CONV3) + F.conv3d(x[0], _CONV3)[None],
            "conv3d transposed": lambda x: F.conv_transpose3d(x, _CONV3[:, :2]),
            "pools 3d": lambda x: (
                F.avg_pool3d(x, 2),
                F.adaptive_avg_pool3d(x, 2),
                F.max_pool3d(x, 2),
                torch.max_pool3d(x, 2),
                F.max_pool3d(x, 2, return_indices=True)[0],
            ),
        },
        (1, 2, 3, 3, 3),
        tags=frozenset({"slow"}),
    )
    return cases + attention()


def _standard(x: torch.Tensor, dim: Any) -> torch.Tensor:
    c = x - x.mean(dim, keepdim=True)
    return c / torch.sqrt((c * c).mean(dim, keepdim=True) + 1e-5)


_CONV1, _CONV2, _CONV3 = _constant(6, 4, 3), _constant(3, 2, 3, 3), _constant(2, 2, 2, 2, 2)


def attention() -> list[Case]:
    mask = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    sdpa = F.scaled_dot_product_attention
    shape = (2, 3, 4)
    cases = each(
        {
            "sdpa": lambda q, k, v: sdpa(q, k, v),
            "sdpa causal": lambda q, k, v: sdpa(q, k, v, is_causal=True, scale=0.7),
            "sdpa mask": lambda q, k, v: sdpa(q, k, v, attn_mask=mask),
            "sdpa bias": lambda q, k, v: sdpa(q, k, v, attn_mask=_LEFT[:, :3]),
        },
        shape,
        shape,
        shape,
        order=3,
        tags=frozenset({"slow"}),
    )
    cases += one(
        "sdpa gqa",
        lambda q, k, v: sdpa(q, k, v, enable_gqa=True),
        (1, 4, 3, 2),
        (1, 2, 3, 2),
        (1, 2, 3, 2),
        order=3,
        tags=frozenset({"slow"}),
    )
    torch.manual_seed(0)
    plain = torch.nn.MultiheadAttention(4, 2, dtype=torch.float64).eval()
    batch = torch.nn.MultiheadAttention(4, 2, batch_first=True, bias=False, dtype=torch.float64).eval()
    other = torch.nn.MultiheadAttention(4, 2, kdim=3, vdim=5, dtype=torch.float64)
    pad = torch.tensor([[False, False, True], [False, True, False]])
    return cases + each(
        {
            "mha": lambda x: plain(x, x, x),
            "mha batch first": lambda x: batch(x, x, x, average_attn_weights=False),
            "mha no weights": lambda x: plain(x, x, x, need_weights=False)[0],
            "mha masks": lambda x: batch(
                x, x, x, key_padding_mask=pad, attn_mask=~mask & ~torch.eye(3, dtype=torch.bool)
            )[0],
            "mha unbatched": lambda x: plain(x[0], x[0], x[0], attn_mask=_LEFT[:, :3]),
            "mha other sizes": lambda x: other(x, x[..., :3], torch.cat([x, x[..., :1]], -1))[0],
        },
        shape,
        order=3,
        tags=frozenset({"slow"}),
    )


CASES = {
    "activations": activations(),
    "arithmetic": arithmetic(),
    "linear": linear(),
    "products": products(),
    "layers": layers(),
}
