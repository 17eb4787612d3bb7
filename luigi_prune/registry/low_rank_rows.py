"""The rows of the methods that decompose layers; all keep the leading components of a layer."""

from __future__ import annotations

from luigi_prune.registry.rows import MethodRow

ALDS = "Liebenwein et al. 2021, arXiv 2107.11442"
LEARNED_RANK = "Idelbayev and Carreira-Perpinan, CVPR 2020"
MESSI = "Maalouf et al. 2021, arXiv 2010.04290"


def _row(
    name: str,
    short: str,
    label: str,
    color: str,
    marker: str,
    *,
    score: str,
    allocation: str,
    paper: str,
    summary: str,
    use: str,
    needs_data: bool = False,
    randomised: bool = False,
    from_original: bool = False,
) -> MethodRow:
    return MethodRow(
        name=name,
        short=short,
        label=label,
        color=color,
        marker=marker,
        granularity="rank",
        score=score,
        allocation=allocation,
        selection="top",
        needs_data=needs_data,
        randomised=randomised,
        retrained=True,
        paper=paper,
        summary=summary,
        use=use,
        from_original=from_original,
    )


LOW_RANK = [
    _row(
        "SVDNet", "SVD", "SVD", "#223366", "X",
        score="singular_values", allocation="rank_fraction", paper="Denton et al. 2014, arXiv 1404.0736",
        summary="Singular value decomposition, the same fraction of the full rank in every layer",
        use="Baseline: what plain low rank achieves with no choice of ranks at all",
    ),
    _row(
        "SVDErrorNet", "SVDError", "SVD, operator norm", "#009999", "*",
        score="singular_values", allocation="operator_error", paper=f"{ALDS} (ablation)",
        summary="Singular value decomposition, the same relative operator-norm error in every layer",
        use="To measure what the groups of ALDS gain: the same error in every layer, without groups",
    ),
    _row(
        "SVDNuclearNet", "SVDNuclear", "SVD, nuclear norm", "#998833", "<",
        score="singular_values", allocation="nuclear_error", paper="Alvarez and Salzmann 2017, arXiv 1711.02638",
        summary="Singular value decomposition, the same share of the nuclear norm in every layer",
        use="Layers with long flat spectra that should keep more ranks than under SVDFrobeniusNet",
    ),
    _row(
        "SVDFrobeniusNet", "SVDFrobenius", "SVD, energy", "#aa66ff", ">",
        score="singular_values", allocation="frobenius_error",
        paper="Wen et al. 2017, arXiv 1703.09746; Yu et al. 2018, arXiv 1812.02402",
        summary="Singular value decomposition, the same share of the sum of squares in every layer",
        use="Plain low rank by energy: layers with few large components get few ranks, long tails are cut",
    ),
    _row(
        "PCANet", "PCA", "PCA", "#aa0000", "D",
        score="principal_components", allocation="energy_per_flop", paper="Zhang et al. 2015, arXiv 1505.06798",
        summary="Principal components of every layer's outputs; those with little energy per multiply-add are removed",
        use="With calibration samples, to approximate the outputs of layers rather than their weights",
        needs_data=True,
    ),
    _row(
        "LearnedRankNet", "LRank", "L-Rank", "#cc4477", "p",
        score="singular_values_folding_1", allocation="price_per_flop", paper=LEARNED_RANK,
        summary="Two convolutions along one axis each; ranks that minimise squared error plus a price per multiply-add",
        use="When multiply-adds matter more than size; kernels that separate into a column and a row",
    ),
    _row(
        "LearnedRankNetScheme0", "LRank0", "L-Rank, folding 0", "#662233", "h",
        score="singular_values", allocation="price_per_flop", paper=LEARNED_RANK,
        summary="As LearnedRankNet, but a convolution followed by one of kernel size 1",
        use="As LearnedRankNet, if the second layer should be a cheap 1x1 convolution",
    ),
    _row(
        "MessiNet", "Messi", "Messi", "#009999", "o",
        score="subspace_clusters_3", allocation="rank_fraction", paper=MESSI,
        summary="Weights clustered around 3 subspaces per layer, of the same fraction of the full dimension",
        use="If the entries of filters form clusters; the slowest, and its zeros save no dense multiply-adds",
        randomised=True,
    ),
    _row(
        "MessiNet5", "Messi5", "Messi, 5 subspaces", "#998833", "D",
        score="subspace_clusters_5", allocation="rank_fraction", paper=MESSI,
        summary="As MessiNet with 5 subspaces",
        use="As MessiNet: more clusters fit better, but each dimension costs more weights",
        randomised=True,
    ),
    _row(
        "ALDSNet", "ALDS", "ALDS", "#7711dd", "P",
        score="singular_values_all_groups", allocation="largest_error", paper=ALDS,
        summary="Groups and ranks of all layers that make their largest relative operator-norm error the smallest",
        use="First choice for decompositions: no data, ranks and groups fitted to every layer",
    ),
    _row(
        "ALDSNetPlus", "ALDS+", "ALDS+", "#cc4477", "s",
        score="singular_values_all_foldings", allocation="largest_error", paper=ALDS,
        summary="As ALDSNet, with the folding of the kernel chosen, too",
        use="As ALDSNet at strong compression of large kernels; its search is several times slower",
    ),
    _row(
        "ALDSNetOne", "ALDS1", "ALDS, from the original", "#aa0000", "^",
        score="singular_values_all_groups", allocation="largest_error", paper=f"{ALDS} (ablation)",
        summary="As ALDSNet, but every step of a cascade decomposes the original network",
        use="To see whether a cascade gains anything from decomposing retrained layers",
        from_original=True,
    ),
    _row(
        "ALDSNetOptK", "ALDSOptK", "ALDS, same fraction", "#223366", "v",
        score="singular_values_all_groups", allocation="weight_fraction", paper=f"{ALDS} (ablation)",
        summary="The same fraction of the weights in every layer, with the groups that make its error the smallest",
        use="To see what ALDSNet gains by sharing the budget between layers",
    ),
    _row(
        "ALDSNetErrorOnly", "ALDSError", "ALDS, 3 groups", "#aa66ff", "X",
        score="singular_values_3_groups", allocation="operator_error", paper=f"{ALDS} (ablation)",
        summary="Three groups in every layer and the same relative operator-norm error",
        use="To see what ALDSNet gains by choosing the groups",
    ),
    _row(
        "ALDSNetSimple", "ALDSSimple", "ALDS, 3 groups, same fraction", "#662233", "P",
        score="singular_values_3_groups", allocation="rank_fraction", paper=f"{ALDS} (ablation)",
        summary="Three groups in every layer and the same fraction of the full rank",
        use="To see what ALDSNet gains by choosing groups and ranks: neither is chosen here",
    ),
    _row(
        "ALDSNetSimple5", "ALDSSimple5", "ALDS, 5 groups, same fraction", "#009999", "<",
        score="singular_values_5_groups", allocation="rank_fraction", paper=f"{ALDS} (ablation)",
        summary="As ALDSNetSimple with five groups",
        use="As ALDSNetSimple, to see whether the number of groups matters",
    ),
]  # fmt: skip
