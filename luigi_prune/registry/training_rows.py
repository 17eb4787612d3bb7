"""Optimizers, schedulers, losses and metrics: their names and keywords, valid for torch 2.6 or later."""

from __future__ import annotations

from luigi_prune.registry.rows import LossRow, MetricRow, OptimizerRow, SchedulerRow, by_name

_MOMENTS = ("lr", "betas", "eps", "weight_decay")
_COMMON = ("foreach", "maximize", "differentiable")
_CAPTURABLE = (*_COMMON, "capturable")


def _optimizer(name: str, *keywords: str, closure: bool = False) -> OptimizerRow:
    return OptimizerRow(name, f"torch.optim:{name}", optional=keywords, closure=closure)


OPTIMIZERS = by_name(
    [
        _optimizer("ASGD", "lr", "lambd", "alpha", "t0", "weight_decay", *_CAPTURABLE),
        _optimizer("Adadelta", "lr", "rho", "eps", "weight_decay", *_CAPTURABLE),
        _optimizer("Adafactor", "lr", "beta2_decay", "eps", "d", "weight_decay", "foreach", "maximize"),
        _optimizer("Adagrad", "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps", *_COMMON, "fused"),
        _optimizer("Adam", *_MOMENTS, "amsgrad", *_CAPTURABLE, "fused"),
        _optimizer("AdamW", *_MOMENTS, "amsgrad", *_CAPTURABLE, "fused"),
        _optimizer("Adamax", *_MOMENTS, *_CAPTURABLE),
        _optimizer(
            "LBFGS",
            *("lr", "max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size", "line_search_fn"),
            closure=True,
        ),
        _optimizer("NAdam", *_MOMENTS, "momentum_decay", "decoupled_weight_decay", *_CAPTURABLE),
        _optimizer("RAdam", *_MOMENTS, "decoupled_weight_decay", *_CAPTURABLE),
        _optimizer("RMSprop", "lr", "alpha", "eps", "weight_decay", "momentum", "centered", *_CAPTURABLE),
        _optimizer("Rprop", "lr", "etas", "step_sizes", *_CAPTURABLE),
        _optimizer("SGD", "lr", "momentum", "dampening", "weight_decay", "nesterov", *_COMMON, "fused"),
    ]
)

UNSUITABLE_OPTIMIZERS = {
    "SparseAdam": "takes sparse gradients only, which no supported network has",
    "Muon": "takes matrices only, and all networks have biases or convolutions",
}


def _scheduler(name: str, required: str, optional: str, epochs: str) -> SchedulerRow:
    path = f"torch.optim.lr_scheduler:{name}"
    return SchedulerRow(name, path, tuple(required.split()), tuple(optional.split()), tuple(epochs.split()))


_SCHEDULES = "luigi_prune.compute.training.schedules"

SCHEDULERS = by_name(
    [
        _scheduler("ConstantLR", "", "factor total_iters", "total_iters"),
        _scheduler("CosineAnnealingLR", "T_max", "eta_min", "T_max"),
        _scheduler("CosineAnnealingWarmRestarts", "T_0", "T_mult eta_min", "T_0"),
        _scheduler(
            "CyclicLR",
            "base_lr max_lr",
            "step_size_up step_size_down mode gamma scale_mode cycle_momentum base_momentum max_momentum",
            "step_size_up step_size_down",
        ),
        _scheduler("ExponentialLR", "gamma", "", ""),
        _scheduler("LinearLR", "", "start_factor end_factor total_iters", "total_iters"),
        _scheduler("MultiStepLR", "milestones", "gamma", "milestones"),
        _scheduler(
            "OneCycleLR",
            "max_lr",
            "total_steps epochs steps_per_epoch pct_start anneal_strategy cycle_momentum base_momentum max_momentum "
            "div_factor final_div_factor three_phase",
            "total_steps",
        ),
        _scheduler("PolynomialLR", "", "total_iters power", "total_iters"),
        _scheduler("StepLR", "step_size", "gamma", "step_size"),
        SchedulerRow("WarmupLR", f"{_SCHEDULES}:WarmupLR", ("warmup_epoch",), (), ("warmup_epoch",)),
        SchedulerRow("PolyLR", f"{_SCHEDULES}:PolyLR", ("max_epoch",), ("power",), ("max_epoch",)),
    ]
)

UNSUITABLE_SCHEDULERS = {
    "LambdaLR": "takes a function, which YAML cannot express",
    "MultiplicativeLR": "takes a function, which YAML cannot express",
    "ChainedScheduler": "is not needed: the schedulers of the list are chained",
    "SequentialLR": "is not needed: the schedulers of the list are chained",
    "ReduceLROnPlateau": "needs a metric, but schedulers are stepped at every optimization step",
    "LRScheduler": "is the base class of schedulers",
}


def _loss(name: str, optional: str = "", targets: str = "real", required: str = "") -> LossRow:
    keywords = ("reduction", *optional.split())
    return LossRow(
        name, f"torch.nn:{name}", tuple(required.split()), keywords, "class" if targets == "class" else "real"
    )


def _output_loss(name: str, *keywords: str) -> LossRow:
    path = f"luigi_prune.compute.metrics.output_losses:{name}"
    return LossRow(name, path, optional=keywords, whole_output=True)


_LIKELIHOODS = "luigi_prune.compute.metrics.likelihoods"
_NLL = ("NLLPrior", "NLLNats", "NLLBits")

LOSSES = by_name(
    [
        _loss("CrossEntropyLoss", "weight ignore_index label_smoothing", "class"),
        _loss("NLLLoss", "weight ignore_index", "class"),
        _loss("MultiMarginLoss", "p margin weight", "class"),
        _loss("BCELoss", "weight"),
        _loss("BCEWithLogitsLoss", "weight pos_weight"),
        _loss("HingeEmbeddingLoss", "margin"),
        _loss("HuberLoss", "delta"),
        _loss("KLDivLoss", "log_target"),
        _loss("L1Loss"),
        _loss("MSELoss"),
        _loss("MultiLabelSoftMarginLoss", "weight"),
        _loss("PoissonNLLLoss", "log_input full eps"),
        _loss("SmoothL1Loss", "beta"),
        _loss("SoftMarginLoss"),
        _output_loss("CrossEntropyLossWithAuxiliary", "reduction", "weight", "ignore_index", "label_smoothing"),
        _output_loss("LossFromInput", "reduction"),
        *(LossRow(f"{name}Loss", f"{_LIKELIHOODS}:{name}Loss", density=True) for name in _NLL),
    ]
)

_TRAINABLE = "has trainable weights, which the optimizer would not update"
_OTHER_INPUTS = "takes inputs other than outputs and targets"

UNSUITABLE_LOSSES = {
    "AdaptiveLogSoftmaxWithLoss": _TRAINABLE,
    "LinearCrossEntropyLoss": _TRAINABLE,
    "CTCLoss": _OTHER_INPUTS,
    "CosineEmbeddingLoss": _OTHER_INPUTS,
    "GaussianNLLLoss": _OTHER_INPUTS,
    "MarginRankingLoss": _OTHER_INPUTS,
    "MultiLabelMarginLoss": _OTHER_INPUTS,
    "TripletMarginLoss": _OTHER_INPUTS,
    "TripletMarginWithDistanceLoss": _OTHER_INPUTS,
}

_METRICS = "luigi_prune.compute.metrics.metric_set"

METRICS = by_name(
    [
        MetricRow("TopK", f"{_METRICS}:TopK", (), ("topk",), {"topk": 1}, ("topk",), True),
        MetricRow("IoU", f"{_METRICS}:IoU", higher_is_better=True),
        MetricRow("F1", f"{_METRICS}:F1", higher_is_better=True),
        MetricRow("MCorr", f"{_METRICS}:MCorr", higher_is_better=True),
        MetricRow("Pearson", f"{_METRICS}:Pearson", higher_is_better=True),
        MetricRow("SpearmanRank", f"{_METRICS}:SpearmanRank", higher_is_better=True),
        *(MetricRow(name, f"{_LIKELIHOODS}:{name}", higher_is_better=True, density=True) for name in _NLL),
        MetricRow("Dummy", f"{_METRICS}:Dummy", higher_is_better=True, placeholder=True),
    ]
)
