"""Methods as sessions of TensorBoard's table of hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_STRING,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
    Status,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from luigi_prune.registry import METHODS

_PLUGIN = "hparams"


def session(method: str, metrics: Iterable[str]) -> list[Summary.Value]:
    """Return the summaries that enter a run into the table: the parts of its method, and the scalars to show."""
    row = METHODS.get(method)
    values = {"method": method}
    if row is not None:
        values |= {"prunes": row.granularity, "score": row.score_name, "allocation": str(row.allocation) or "none"}
    infos = []
    for name in values:
        info = HParamInfo(name=name, type=DATA_TYPE_STRING)
        info.domain_discrete.values.add(string_value=values[name])
        infos.append(info)
    shown = [MetricInfo(name=MetricName(tag=name)) for name in metrics]
    start = SessionStartInfo()
    for name, value in values.items():
        start.hparams[name].string_value = value
    return [
        _summary("experiment", HParamsPluginData(experiment=Experiment(hparam_infos=infos, metric_infos=shown))),
        _summary("session_start_info", HParamsPluginData(session_start_info=start)),
        _summary(
            "session_end_info",
            HParamsPluginData(session_end_info=SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))),
        ),
    ]


def _summary(name: str, content: HParamsPluginData) -> Summary.Value:
    data = SummaryMetadata.PluginData(plugin_name=_PLUGIN, content=content.SerializeToString(deterministic=True))
    return Summary.Value(tag=f"_hparams_/{name}", metadata=SummaryMetadata(plugin_data=data))
