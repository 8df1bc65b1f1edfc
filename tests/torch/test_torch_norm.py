"""The norm that zenith.torch measures: of any gradient, and right on any processor."""

import math

import pytest
import torch

from zenith.torch._norm import _LARGE, _ROW, _flat, norm_of, norm_or_number, partial_norms

INF = math.inf


def global_norm(gradients):
    norm = norm_of(partial_norms(gradients))
    assert norm_or_number(partial_norms(gradients)) == pytest.approx(norm.item(), rel=1e-6)
    return norm


@pytest.mark.parametrize(
    ("gradient", "expected", "dtype"),
    [
        (torch.full((4, 25), 40_000.0, dtype=torch.float16), 400_000.0, torch.float32),
        (torch.ones(1_000_000, dtype=torch.bfloat16), 1000.0, torch.float32),
        (torch.ones(1_000_000, dtype=torch.float32), 1000.0, torch.float32),
        (torch.ones(1_000_000, dtype=torch.float64), 1000.0, torch.float64),
        (torch.full((4,), 3 + 4j, dtype=torch.complex64), 10.0, torch.float32),
        (torch.full((4,), 3 + 4j, dtype=torch.complex128), 10.0, torch.float64),
        (torch.ones(128, 64, 8, 16).to(memory_format=torch.channels_last), 1024.0, torch.float32),
        (torch.ones(200_000)[::2], 316.22776, torch.float32),
        (torch.ones(4_000_000, dtype=torch.bfloat16), 2000.0, torch.float32),
        (torch.ones(2_000_000, 2, dtype=torch.float16).t(), 2000.0, torch.float32),
        (torch.ones(8_000_000)[::2], 2000.0, torch.float32),
        (torch.full((500_000,), 3 + 4j, dtype=torch.complex64), 3535.5339, torch.float32),
        (torch.tensor(-3.0), 3.0, torch.float32),
        (torch.zeros(3), 0.0, torch.float32),
        (torch.empty(0), 0.0, torch.float32),
        (torch.tensor([INF, 1.0]), INF, torch.float32),
        (torch.tensor([1e38, 1e38]), INF, torch.float32),  # a sum of squares that overflows
    ],
)
def test_norm_of_any_dense_gradient(gradient, expected, dtype):
    norm = global_norm([gradient])
    assert norm.dtype == dtype
    assert norm.shape == ()
    assert norm.item() == pytest.approx(expected, rel=1e-6)


def test_norm_of_many_kinds_together():
    kinds = [
        torch.full((4,), 1.0),
        torch.full((4,), 1.0, dtype=torch.float64),
        torch.full((4,), 1.0, dtype=torch.bfloat16),
        torch.full((2,), 1 + 1j, dtype=torch.complex64),
        torch.full((250, 250), 1.0),
        torch.sparse_coo_tensor(
            torch.tensor([[1, 1]]), torch.tensor([0.5, 0.5]), (3,), check_invariants=True
        ),
    ]
    norm = global_norm(kinds)
    assert norm.item() == pytest.approx(math.sqrt(4 + 4 + 4 + 4 + 62500 + 1), rel=1e-7)
    assert norm.dtype == torch.float64


# --- long gradients: right within 1e-5, and within 1e-4 where all entries are equal -------------


def exact(gradient):
    """The norm in float64, without a copy of all of a long gradient."""
    wide = torch.complex128 if gradient.is_complex() else torch.float64
    pieces = gradient.reshape(-1).resolve_conj().split(1 << 20)
    return math.sqrt(math.fsum(p.to(wide).abs().square().sum().item() for p in pieces))


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_norm_of_a_long_vector_is_exact_to_float32():
    """2.4 million normal entries: torch's own norm kernel is off by 4e-5 on some processors."""
    gradient = normal(2_359_296)
    assert global_norm([gradient]).item() == pytest.approx(exact(gradient), rel=2e-6)


@pytest.mark.parametrize("size", [_LARGE - 1, _LARGE, _LARGE + _ROW + 1, 20_000_003])
@pytest.mark.parametrize("value", [0.37, 0.697, 1e-15, 3e14])
def test_norm_of_equal_entries(value, size):
    """The worst case: every rounding of a sum goes the same way. 1e-4 is what DESIGN allows."""
    gradient = torch.full((size,), value)
    norm = gradient[0].item() * math.sqrt(size)
    assert global_norm([gradient]).item() == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "gradient",
    [
        normal(300, 1000).t(),
        normal(70, 60, 50).permute(1, 2, 0),
        normal(8, 64, 40, 20).to(memory_format=torch.channels_last),
        normal(4, 4, 16, 40, 20).to(memory_format=torch.channels_last_3d),
        normal(300, 1000)[:, ::2],
        normal(300, 1).expand(300, 1000),
        normal(70_001, 2, dtype=torch.complex64).t(),
        torch.view_as_complex(normal(200_001, 2)).conj(),
        torch.view_as_complex(normal(200_001, 2)).conj().imag,
        normal(300_001, dtype=torch.float64),
        normal(3, 300_001, dtype=torch.float16).t(),
        normal(700_001, dtype=torch.bfloat16),
    ],
    ids=lambda gradient: f"{gradient.dtype}-{tuple(gradient.shape)}",
)
def test_norm_of_a_long_gradient_however_it_lies_in_memory(gradient, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert global_norm([gradient]).item() == pytest.approx(exact(gradient), rel=2e-6)
    finally:
        torch.set_num_threads(before)


def test_a_gradient_that_is_dense_in_another_order_is_not_copied():
    for gradient in (normal(300, 1000).t(), normal(70, 60, 50).permute(1, 2, 0)):
        assert _flat(gradient).data_ptr() == gradient.data_ptr()


# --- many gradients, and a compiled step --------------------------------------------------------


def test_norms_of_thousands_of_equal_gradients():
    gradients = [torch.full((3,), 0.37)] * 20_000
    norm = gradients[0][0].item() * math.sqrt(60_000)
    assert norm_or_number(partial_norms(gradients)) == pytest.approx(norm, rel=1e-6)
    assert norm_of(partial_norms(gradients)).item() == pytest.approx(norm, rel=1e-5)


def test_squares_of_several_gradients_that_overflow_together_are_infinite():
    """1.5e19 squared is 2.3e38, and two of them are beyond 3.4e38; float64 has room for them."""
    gradients = [torch.tensor([1.5e19]), torch.tensor([1.5e19])]
    assert norm_or_number(partial_norms(gradients)) == norm_of(partial_norms(gradients)) == INF
    assert global_norm([g.double() for g in gradients]).item() == pytest.approx(2.1213203e19)


@pytest.mark.parametrize("size", [10, _LARGE + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_norm_of_any_gradient_compiles_without_a_break(dtype, size):
    compiled = torch.compile(
        lambda gradient: norm_of(partial_norms([gradient])), fullgraph=True, backend="eager"
    )
    gradient = normal(size, 2, dtype=dtype).t()
    assert compiled(gradient).item() == pytest.approx(exact(gradient), rel=2e-6)
