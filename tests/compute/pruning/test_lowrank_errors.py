"""The errors that results report of decomposed layers: what ALDS estimates, and the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from luigi_prune import api, registry
from luigi_prune.compute.pruning import restore
from luigi_prune.compute.pruning.low_rank import structure_of
from luigi_prune.compute.pruning.low_rank.bounds import first_grams, least_dropped
from luigi_prune.compute.pruning.low_rank.chunk_grams import ChunkGrams
from luigi_prune.compute.pruning.low_rank.decomposed import square
from luigi_prune.compute.pruning.low_rank.factors import LARGE, SINGLE_FLOOR, Basis, basis_of, short_side
from luigi_prune.compute.pruning.low_rank.foldings import fold, fold_chunks
from luigi_prune.compute.pruning.low_rank.norms import largest_eigenvalue, operator_norm
from luigi_prune.compute.pruning.low_rank.spectra import chunk_values, spectra_of
from tests.compute.pruning.test_contract import prune_like
from tests.compute.pruning.zoo import trained_like

RANK_METHODS = [name for name, row in registry.METHODS.items() if row.granularity == "rank"]


def norm(matrix: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.double(), 2))


@pytest.mark.parametrize("kind", ["mlp", "convnet", "residual"])
@pytest.mark.parametrize("method", RANK_METHODS)
def test_the_operator_error_is_that_of_the_network_returned(method: str, kind: str) -> None:
    network, example = trained_like(kind)
    pruned = prune_like(network, method, 0.4, example)
    assert pruned.structure
    for entry in pruned.structure:
        before, after = network.get_submodule(entry["layer"]), pruned.network.get_submodule(entry["layer"])
        weight, folding = square(before), entry["folding"]
        difference = weight - after.weight.detach().reshape(weight.shape)  # type: ignore[operator]
        truth = norm(fold(difference, folding)) / norm(fold(weight, folding))
        if method == "PCANet":
            assert "error_operator" not in entry
            continue
        assert entry["error_operator"] == pytest.approx(truth, rel=1e-4, abs=1e-6)
        if method.startswith("Messi"):
            assert entry["error_estimate"] is None
            continue
        chunks = fold_chunks(weight, folding, entry["groups"])
        values = torch.linalg.svdvals(chunks.double())
        dropped = float(values[:, entry["rank"]].max()) if entry["rank"] < values.shape[1] else 0.0
        assert entry["error_estimate"] == pytest.approx(dropped / norm(fold(weight, folding)), rel=1e-4, abs=1e-6)
        assert entry["error_operator"] <= entry["error_estimate"] * entry["groups"] ** 0.5 * (1 + 1e-6)


def test_the_estimate_for_several_chunks_is_too_small() -> None:
    weight = torch.randn(24, 24, 1, 1, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(24, 24, bias=False)
    layer.weight.data = weight[:, :, 0, 0]
    entry = prune_like(nn.Sequential(layer), "ALDSNetSimple", 0.4, torch.randn(4, 24)).structure[0]
    assert entry["groups"] == 3
    assert 1.05 < entry["error_operator"] / entry["error_estimate"] <= 3**0.5


def test_errors_are_in_results_and_survive_files(tmp_path: Path) -> None:
    network, example = trained_like("convnet")
    pruned = api.prune(network, "ALDSNet", keep_ratio=0.4, example_input=example)
    decomposed = [layer for layer in pruned.layers if layer.rank is not None]
    assert decomposed
    for layer in decomposed:
        assert layer.error_operator is not None
        assert layer.error_estimate is not None
        assert 0 < layer.error_estimate <= layer.error_operator * (1 + 1e-6) < 1.5
    pruned.save(tmp_path / "small.h5")
    again = api.load(tmp_path / "small.h5", trained_like("convnet", seed=1)[0])
    assert [(la.error_estimate, la.error_operator) for la in again.layers] == [
        (la.error_estimate, la.error_operator) for la in pruned.layers
    ]
    assert structure_of(restore(trained_like("convnet", seed=1)[0], pruned.structure)) == pruned.structure


def steep(rows: int, columns: int, last: float) -> torch.Tensor:
    """Return a matrix of single precision whose singular values fall evenly (as powers) from 1 to `last`."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(columns, rows, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, float(torch.tensor(last).log10()), rows, dtype=torch.float64)
    return ((left * values) @ right.T).float()


@pytest.mark.parametrize(("last", "rank"), [(SINGLE_FLOOR * 1.5, 150), (1e-4, 60), (1e-4, 200)])
def test_large_layers_are_as_exact_as_a_singular_value_decomposition(last: float, rank: int) -> None:
    """Single precision where it is enough, double where smaller singular values are read."""
    matrix = steep(LARGE, 2 * LARGE, last)
    exact = torch.linalg.svdvals(matrix.double())
    left, right = Basis(lambda: matrix[None]).factors(rank)
    left_out = norm(matrix.double() - left[0].double() @ right[0].double())
    assert left_out == pytest.approx(float(exact[rank]), rel=2e-3, abs=1e-6)
    weight = matrix[:, :, None, None]
    values = chunk_values(weight, 0, 1, basis_of(weight, 0, 1))[0]
    assert abs(torch.from_numpy(values[:171]) / exact[:171] - 1).max() < 1e-4  # 170 is the largest rank that saves


SHAPES = [(LARGE, 8, 6, 6), (40, 12, 3, 3), (300, 12, 2, 2), (6, 36, 3, 1)]


def all_pairs(shape: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    return [(folding, k) for folding in range(4) for k in range(1, shape[1] + 1) if shape[1] % k == 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_first_chunks_share_gram_matrices(shape: tuple[int, int, int, int]) -> None:
    """Those of chunks are summed from finer ones or cut from coarser ones: as if each were computed by itself."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for folding in range(4):
        for k, lower in first_grams(weight, folding, [k for at, k in all_pairs(shape) if at == folding]).items():
            first = fold_chunks(weight, folding, k)[0].double()
            exact = first @ first.T if len(first) <= first.shape[1] else first.T @ first
            assert lower.shape == exact.shape
            assert float((lower.double() - exact).tril().abs().max()) < 1e-5 * float(exact.max())


@pytest.mark.parametrize("shape", [(48, 96, 1, 1), (40, 12, 3, 3), (300, 12, 2, 2)])
def test_chunks_share_gram_matrices(shape: tuple[int, int, int, int]) -> None:
    """Those of narrow chunks are cut from wider ones: as if each were computed by itself."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for folding in range(4):
        counts = [k for at, k in all_pairs(shape) if at == folding]
        grams = ChunkGrams(weight, folding, counts)
        for k in reversed(counts):
            chunks = short_side(fold_chunks(weight, folding, k).double())
            assert torch.allclose(grams.of(k, torch.float64).tril(), (chunks @ chunks.mT).tril(), rtol=1e-12)


def test_a_gram_matrix_does_not_depend_on_what_was_read_before() -> None:
    for seed in range(8):
        weight = torch.randn(40, 48, 3, 3, generator=torch.Generator().manual_seed(seed))
        for folding in range(4):
            counts = [k for at, k in all_pairs(tuple(weight.shape)) if at == folding]
            one, other = ChunkGrams(weight, folding, counts), ChunkGrams(weight, folding, counts)
            assert 1 in other.first
            assert torch.equal(one.whole, other.whole)


@pytest.mark.parametrize("steepness", [0.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_close_in_on_the_errors(shape: tuple[int, int, int, int], steepness: float) -> None:
    """What several spectra of a layer lose is bounded from below ever better, and read exactly in the end."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(0, -steepness, shape[0])[:, None, None, None]
    for spectrum in spectra_of(weight, all_pairs(shape)):
        exact = torch.linalg.svdvals(fold_chunks(weight, spectrum.folding, spectrum.groups).double())
        whole = norm(fold(weight, spectrum.folding))
        errors = torch.cat([exact[:, 1:].amax(0), exact.new_zeros(1)]).numpy() / whole
        while not spectrum.is_measured:
            bound = spectrum.least_errors()
            assert bound.shape == errors.shape
            assert (bound <= errors + 2e-5).all()
            if not spectrum.refine():
                break
            assert (spectrum.least_errors() >= bound - 2e-5).all()
        assert abs(spectrum.least_errors() - errors).max() < 2e-5
        assert spectrum.values.shape == exact.shape == (spectrum.groups, spectrum.full)
        assert abs(torch.from_numpy(spectrum.values) - exact).max() < 2e-5 * whole
        assert spectrum.norm == pytest.approx(whole, rel=1e-5)


def test_moments_bound_any_spectrum() -> None:
    """Equal eigenvalues are known exactly; of others what is dropped is never more than the truth."""
    assert least_dropped(4 * torch.eye(5)) == pytest.approx([2, 2, 2, 2, 0], rel=2e-3)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        values = torch.rand(30, generator=generator, dtype=torch.float64) ** (seed / 3)
        values = values.sort(descending=True)[0]
        turn = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))[0]
        found = least_dropped((turn * values @ turn.T).tril())
        assert (found[:-1] <= values[1:].sqrt().numpy() + 1e-9).all()
        assert found[-1] == 0


@pytest.mark.parametrize("kind", ["flat", "steep", "equal", "zero", "low", "one"])
def test_the_largest_eigenvalue_is_found_in_a_few_products(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(200, 200, generator=generator, dtype=torch.float64))[0]
    values = {
        "flat": torch.linspace(1, 2, 200),
        "steep": torch.logspace(0, -9, 200),
        "equal": torch.ones(200),
        "zero": torch.zeros(200),
        "low": (torch.arange(200) < 2) * 3.0,
        "one": torch.cat([torch.tensor([1.01]), torch.ones(199)]),
    }[kind].double()
    for dtype in (torch.float32, torch.float64):
        lower = (turn * values @ turn.T).tril().to(dtype)
        assert largest_eigenvalue(lower) == pytest.approx(float(values.max()), rel=2e-5, abs=1e-9)
        assert operator_norm((turn * values).to(dtype)) == pytest.approx(float(values.max()), rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("folding", [0, 1, 2, 3])
def test_what_is_residual_has_the_norm_of_the_difference(folding: int, groups: int) -> None:
    weight = torch.randn(5, 12, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = basis_of(weight, folding, groups)
    left, right = basis.factors(2)
    difference = (fold_chunks(weight, folding, groups) - left @ right).movedim(0, 1).flatten(1)
    assert operator_norm(basis.residual(2)) == pytest.approx(norm(difference), rel=1e-6)
    assert operator_norm(basis.residual(0)) == pytest.approx(norm(fold(weight, folding)), rel=1e-9)
