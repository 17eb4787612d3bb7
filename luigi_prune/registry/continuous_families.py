"""The families of networks of continuous depth: names that say layers, units, activation and solver."""

from __future__ import annotations

import re
from typing import Any

from luigi_prune.errors import ConfigError
from luigi_prune.registry.rows import Family, NetworkRow

_NETWORKS = "luigi_prune.compute.networks"
_ACTIVATION = "(?P<activation>tanh|sigmoid|softplus|relu)"
_NUMBER = "[1-9][0-9]*"
_SOLVERS = "da|dopri_adjoint|da_autograd|dopri_autograd|rk4_adjoint|rk4_autograd|euler_adjoint|euler_autograd"
_POINTS = {"rk4": 20, "euler": 80}  # of the grid on [0, 1]
_DENSITY_POINTS = {"rk4": 20, "euler": 100}
_KINDS = {
    "node": "Neural ODE, a classifier (arXiv 1806.07366)",
    "ffjord": "Density by a flow with Hutchinson's estimate of the trace (arXiv 1810.01367)",
    "cnf": "Density by a flow with the exact trace (arXiv 1806.07366)",
}


def _vector_network(match: re.Match[str]) -> NetworkRow:
    kind, layers, hidden = match["kind"], int(match["layers"]), int(match["hidden"])
    if layers < 2:
        raise ConfigError("it needs at least two layers, such as l2: one into the hidden units and one out of them")
    tolerance = 1e-4 if kind == "node" or match["high_tol"] else 1e-5
    solver = _solver(match["solver"] or "rk4_autograd", _POINTS if kind == "node" else _DENSITY_POINTS, tolerance)
    if match["high_tol"] and solver["method"] != "dopri5":
        raise ConfigError("_high_tol is a tolerance of an adaptive solver; add it after _da or _dopri_autograd")
    settings = {"name": match[0], "layers": layers, "hidden": hidden, "activation": match["activation"]}
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.continuous:{'node' if kind == 'node' else 'density'}",
        summary=f"{_KINDS[kind]}: {layers} layers, {hidden} hidden units",
        settings={**settings, "solver": solver, **({} if kind == "node" else {"exact": kind == "cnf"})},
        density=kind != "node",
        vectors=True,
    )


def _solver(name: str, points: dict[str, int], tolerance: float) -> dict[str, Any]:
    """Return the settings of `compute.networks.ode.Solver`."""
    method, _, gradients = name.partition("_")
    adjoint = gradients == "adjoint" or name == "da"
    if method in ("da", "dopri"):
        return {"method": "dopri5", "adjoint": adjoint, "atol": tolerance, "rtol": tolerance}
    return {"method": method, "adjoint": adjoint, "points": points[method]}


def _tabular(match: re.Match[str]) -> NetworkRow:
    layers, factor, blocks = int(match["layers"]), int(match["factor"]), int(match["blocks"])
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.tabular_flow:tabular_flow",
        summary=f"FFJORD for tables: {blocks} integrations, {layers} hidden layers {factor} times as wide as the data",
        settings={
            **{"name": match[0], "layers": layers, "factor": factor, "blocks": blocks},
            "activation": match["activation"],
        },
        density=True,
        vectors=True,
    )


def _multiscale(match: re.Match[str]) -> NetworkRow:
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.image_flow:image_flow",
        summary="FFJORD's multiscale flow for images",
        smallest=4,
        settings={"name": match[0]},
        density=True,
    )


_SIZES = f"_l(?P<layers>{_NUMBER})_h(?P<hidden>{_NUMBER})_"

CONTINUOUS_FAMILIES: tuple[Family[NetworkRow], ...] = (
    *(
        Family(
            f"{kind}_l<layers>_h<units>_<activation>[_<solver>]",
            rf"(?P<kind>{kind}){_SIZES}{_ACTIVATION}(?:_(?P<solver>{_SOLVERS}))?(?P<high_tol>_high_tol)?",
            _vector_network,
            f"{summary}; solvers: `da` (dopri5, adjoint gradients), `<dopri|rk4|euler>_<adjoint|autograd>`; without: "
            "`rk4_autograd` (extra `ode`)",
            (f"{kind}_l{4 - 2 * (kind == 'node')}_h64_{'tanh' if kind == 'node' else 'sigmoid'}_da",),
        )
        for kind, summary in _KINDS.items()
    ),
    Family(
        "ffjord_l<layers>_hm<factor>_f<blocks>_<activation>",
        rf"ffjord_l(?P<layers>{_NUMBER})_hm(?P<factor>{_NUMBER})_f(?P<blocks>{_NUMBER})_{_ACTIVATION}",
        _tabular,
        "FFJORD for tables: hidden layers, their width as a multiple of the data's, integrations (extra `ode`)",
        (
            *("ffjord_l3_hm10_f5_tanh", "ffjord_l3_hm20_f5_tanh", "ffjord_l2_hm10_f10_softplus"),
            *("ffjord_l2_hm20_f1_softplus", "ffjord_l3_hm20_f2_softplus"),
        ),
    ),
    Family(
        "ffjord_multiscale_(mnist|cifar)",
        "ffjord_multiscale_(?:mnist|cifar)",
        _multiscale,
        "FFJORD's multiscale flow for images of the data set's size; `outputSize` has no meaning (extra `ode`)",
        ("ffjord_multiscale_mnist", "ffjord_multiscale_cifar"),
    ),
)
