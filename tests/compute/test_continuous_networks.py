"""Networks of continuous depth: sizes, densities that integrate to one, gradients, and pruning."""

import math

import pytest
import torch
from torch import nn

from luigi_prune import api, registry
from luigi_prune.compute.metrics.likelihoods import log_likelihoods
from luigi_prune.compute.networks import build
from luigi_prune.compute.networks.densities import Flow
from luigi_prune.compute.networks.image_flow import ConvolutionalField, ImageFlow
from luigi_prune.compute.networks.ode import Solver, SolverFailure, integrate
from luigi_prune.errors import ConfigError

pytest.importorskip("torchdiffeq")
LAYERS_AND_UNITS = {
    (2, 3): 17, (2, 32): 162, (2, 64): 322, (2, 128): 642, (2, 400): 2_002, (2, 1700): 8_502, (3, 23): 669,
    (3, 43): 2_109, (3, 90): 8_642, (4, 17): 699, (4, 30): 2_012, (4, 32): 2_274, (4, 64): 8_642, (4, 128): 33_666,
    (6, 12): 686, (6, 22): 2_136, (6, 45): 8_507, (8, 10): 712, (8, 18): 2_144, (8, 37): 8_623, (8, 64): 25_282,
}  # fmt: skip
OTHERS = {
    "ffjord_l3_hm10_f5_tanh": ((6,), 43_325, 20, 39_600),
    "ffjord_l3_hm20_f5_tanh": ((8,), 278_565, 20, 268_800),
    "ffjord_l2_hm10_f10_softplus": ((21,), 546_850, 30, 529_200),
    "ffjord_l2_hm20_f1_softplus": ((43,), 820_613, 3, 813_560),
    "ffjord_l3_hm20_f2_softplus": ((63,), 6_698_666, 8, 6_667_920),
    "ffjord_multiscale_mnist": ((1, 28, 28), 800_646, 40, 798_678),
    "ffjord_multiscale_cifar": ((3, 32, 32), 1_358_882, 56, 1_355_922),
}


def parameters_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def narrow(flow):
    """Return a flow for images of one channel with fields of 8 instead of 64 filters."""
    torch.manual_seed(0)
    for block in flow.blocks:
        block.field = ConvolutionalField(1, hidden=8, layers=3)
    return flow


def small(name, features=2):
    return build(name, (features,), features, seed=1)


@pytest.mark.parametrize("kind", ["node", "ffjord", "cnf"])
def test_vector_networks_have_the_sizes_of_the_reference(kind):
    sizes = {at: parameters_of(small("{}_l{}_h{}_tanh_da".format(kind, *at))) for at in LAYERS_AND_UNITS}
    assert sizes == LAYERS_AND_UNITS


@pytest.mark.parametrize("name", OTHERS)
def test_flows_of_tables_and_images_have_the_sizes_of_the_reference(name):
    from luigi_prune.compute.pruning import layer_budgets

    shape, parameters, layers, weights = OTHERS[name]
    with torch.device("meta"):
        network = registry_build(name, shape)
    assert parameters_of(network) == parameters
    budgets = layer_budgets(network)
    assert (len(budgets), sum(layer.total for layer in budgets)) == (layers, weights)


def registry_build(name, shape):
    from luigi_prune.compute.named import resolve

    row = registry.find("network", name)
    return resolve(row.path)(shape, shape[0] if row.vectors else 10, **row.settings)


@pytest.mark.parametrize(
    ("suffix", "solver"),
    [
        ("", Solver("rk4", False, 20)),
        ("_da", Solver("dopri5", True, atol=1e-4, rtol=1e-4)),
        ("_dopri_autograd", Solver("dopri5", False, atol=1e-4, rtol=1e-4)),
        ("_rk4_adjoint", Solver("rk4", True, 20)),
        ("_euler_autograd", Solver("euler", False, 80)),
    ],
)
def test_all_solvers_of_one_name_integrate_to_the_same_end_with_the_same_gradients(suffix, solver):
    exact, network = (small(f"node_l2_h8_tanh{each}") for each in ("_rk4_autograd", suffix))
    settings = Solver(**registry.find("network", f"node_l2_h8_tanh{suffix}").settings["solver"])
    assert (settings.method, settings.adjoint) == (solver.method, solver.adjoint)
    assert (settings.atol if solver.method == "dopri5" else settings.points) == (
        solver.atol if solver.method == "dopri5" else solver.points
    )
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    outputs = [each.train()(x) for each in (exact, network)]
    torch.testing.assert_close(*outputs, atol=5e-3, rtol=5e-3)
    gradients = [torch.autograd.grad(out.square().sum(), list(each.parameters())) for out, each in
                 zip(outputs, (exact, network), strict=True)]  # fmt: skip
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_an_exact_density_integrates_to_one_and_the_estimate_agrees_on_average(activation):
    cnf, ffjord = (small(f"{kind}_l3_h8_{activation}_da").eval() for kind in ("cnf", "ffjord"))
    ffjord.load_state_dict(cnf.state_dict())
    side = torch.linspace(-7, 7, 57)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        exact, estimate = (log_likelihoods(network(grid)) for network in (cnf, ffjord))
    cell = float(side[1] - side[0]) ** 2
    assert float(exact.exp().sum()) * cell == pytest.approx(1, abs=0.01)
    assert not torch.equal(exact, estimate)
    assert float((exact - estimate).mean()) == pytest.approx(0, abs=0.05)


def test_evaluation_of_an_estimate_repeats_and_does_not_depend_on_the_batch():
    network, x = small("ffjord_l2_h8_tanh_rk4_autograd").eval(), torch.randn(8, 2)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[3:5], network(x[3:5]))
        assert not torch.equal(network.train()(x), network(x))


def test_the_density_of_images_counts_the_change_by_logits():
    """The Jacobian of the whole map, by autograd, has the determinant that the flow reports."""
    flow = narrow(ImageFlow((1, 4, 4))).eval()
    for block in flow.blocks:
        block.exact, block.solver = True, Solver("rk4", False, 2)
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value)[:, 1:], x).reshape(16, 16)
    assert float(-flow(x)[0, 0].detach()) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), rel=5e-3)


def test_scales_of_images_keep_every_number():
    flow = build("ffjord_multiscale_mnist", (1, 16, 8), 10, seed=0).eval()
    assert (flow.scales, len(flow.blocks)) == (2, 6)
    with torch.no_grad():
        assert flow(torch.rand(2, 1, 16, 8)).shape == (2, 1 + 128)
    with pytest.raises(ConfigError, match="pixels from 0 to 1"):
        flow.train()(torch.full((2, 1, 16, 8), 2.0))
    with pytest.raises(ConfigError, match="not possible for 30x30; resize"):
        build("ffjord_multiscale_mnist", (1, 30, 30), 10, seed=0)


def test_other_inputs_and_outputs_are_refused():
    for name in ("node_l2_h4_tanh_da", "ffjord_l1_hm2_f1_tanh"):
        with pytest.raises(ConfigError, match=r"takes vectors, got inputs of shape \(1, 8, 8\)"):
            build(name, (1, 8, 8), 2, seed=0)
        with pytest.raises(ConfigError, match="as many outputs as features: expected 3, got 2"):
            build(name, (3,), 2, seed=0)


def test_a_solver_that_cannot_go_on_says_so_in_one_line():
    with pytest.raises(SolverFailure, match=r"dopri5 fails .*smaller learning rate") as caught:
        integrate(lambda t, z: z * z * 1e8, torch.ones(2, 1), Solver(), [], training=False)
    assert "\n" not in str(caught.value)


PRUNED = {
    "node_l3_h8_tanh_da": (2,),
    "ffjord_l3_h8_sigmoid_da": (2,),
    "cnf_l3_h8_softplus_rk4_autograd": (2,),
    "ffjord_l1_hm3_f2_tanh": (3,),
}


@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "PCANet", "SnipNet"])
@pytest.mark.parametrize("name", PRUNED)
def test_networks_of_continuous_depth_are_pruned_by_every_kind_of_method(name, method, tmp_path):
    (features,) = PRUNED[name]
    network = small(name, features)
    x = torch.randn(24, features, generator=torch.Generator().manual_seed(0))
    pruned = api.prune(
        network, method, 0.7, calibration=[(x, torch.zeros(24))], loss=lambda outputs, _: outputs.square().mean()
    )
    assert pruned.size < parameters_of(network)
    assert 0 < pruned.flops < pruned.original_flops
    assert all(layer.name.endswith("_layer") == hasattr(network, "is_compressible") for layer in pruned.layers)
    pruned.network.train()(x).square().mean().backward()
    pruned.save(tmp_path / "pruned.h5")
    loaded = api.load(tmp_path / "pruned.h5", small(name, features))
    with torch.no_grad():
        assert torch.equal(loaded.network.eval()(x), pruned.network.eval()(x))


def test_multiply_adds_are_those_of_one_evaluation_times_their_number():
    network, x = small("ffjord_l3_h8_sigmoid_da"), torch.randn(2, 2)
    pruned = api.prune(network, "ThresNet", 0.9, example_input=x)
    network.eval()(x)
    assert pruned.original_flops == network.evaluations * (2 * 8 + 8 * 8 + 8 * 2)


@pytest.mark.parametrize("method", ["FilterThresNet", "PFPNet"])
def test_an_image_flow_is_pruned_by_filters_and_channels(method):
    """The steps of its adaptive solver depend on the image, but no layer behind the first reads the image."""
    flow = narrow(build("ffjord_multiscale_mnist", (1, 4, 4), 10, seed=0))
    assert isinstance(flow, Flow)
    calibration = [(torch.rand(4, 1, 4, 4), torch.zeros(4))]
    pruned = api.prune(flow, method, 0.5, calibration=calibration, loss=lambda outputs, _: outputs.square().mean())
    assert pruned.keep_ratio == pytest.approx(0.5, abs=0.1)
    assert pruned.network.blocks[0].solver == flow.blocks[0].solver
    assert all(isinstance(pruned.network.get_submodule(layer.name), nn.Conv2d) for layer in pruned.layers)
    assert math.isfinite(float(pruned.network.eval()(torch.rand(1, 1, 4, 4)).sum()))
