"""Bad experiment files: each gives one line that names file, line, key, value and what would be right."""

import pytest

from luigi_prune.config.loader import yaml_positions
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import ConfigError

GOOD = """\
network:
  name: lenet5
  dataset: MNIST
  outputSize: 10
training:
  batchSize: 32
  optimizer: SGD
  optimizerKwargs: {lr: 0.1, momentum: 0.9}
  numEpochs: 10
  loss: CrossEntropyLoss
  lossKwargs: {reduction: mean}
  transformsFinal:
    - {type: ToTensor}
    - {type: Normalize, kwargs: {mean: [0.1], std: [0.3]}}
  lrSchedulers:
    - {type: MultiStepLR, stepKwargs: {milestones: [5]}}
  metricsTest:
    - {type: TopK, kwargs: {topk: 1}}
retraining:
  startEpoch: 5
experiments:
  methods: [ThresNet, UniNet]
  mode: cascade
  numNets: 1
  spacing:
    - {type: geometric, numIntervals: 3, maxVal: 0.8, minVal: 0.2}
  retrainIterations: -1
  plotting: {minVal: 0.1, maxVal: 0.9}
directories: {results: ./r}
network_names: {ThresNet: WT}
network_colors: {ThresNet: red}
"""

IGNORING = "  retrainIterations: -1\n"

# Original text, its replacement, place and text of the error.
CHANGES = [
    (
        "name: lenet5",
        "name: resnet18",
        "2: network.name: resnet18 needs images of 3 channels, got 1; add the transform",
    ),
    (
        "name: lenet5",
        "name: node_l2_h3_tanh",
        "2: network.name: node_l2_h3_tanh takes vectors, but inputs of MNIST have the shape (1, 28, 28)",
    ),
    (
        "name: lenet5",
        "name: ffjord_multiscale_mnist",
        "is a density; choose NLLPriorLoss, NLLNatsLoss or NLLBitsLoss",
    ),
    (
        "name: lenet5\n  dataset: MNIST",
        "name: lenet300_100\n  dataset: Power",
        "Power has no labels, so only a density can be",
    ),
    (
        "name: lenet5\n  dataset: MNIST",
        "name: node_l2_h3_tanh\n  dataset: ToyMoons",
        "4: network.outputSize: node_l2_h3_tanh moves its input, so it has as many outputs as ToyMoons has features",
    ),
    (
        "name: lenet5",
        "name: wrn20_2",
        "2: network.name: 'wrn20_2' is not a network: a wide residual network has 6 n + 4",
    ),
    ("name: lenet5", "name: lenet6", "2: network.name: 'lenet6' is not a network; did you mean 'lenet5'?"),
    ("name: lenet5", "name: 5", "2: network.name: expected a string, got 5"),
    ("  name: lenet5\n", "", "1: network.name: is missing"),
    ("dataset: MNIST", "dataset: MINST", "3: network.dataset: 'MINST' is not a data set; did you mean 'MNIST'?"),
    ("outputSize: 10", "outputSize: 100", "4: network.outputSize: MNIST has 10 classes, so 100 outputs do not fit"),
    (
        "outputSize: 10",
        "outputsSize: 10",
        "4: network.outputsSize: 'outputsSize' is not a key of 'network'; did you mean",
    ),
    ("network:", "networks:", "1: networks: 'networks' is not a key; did you mean 'network'?"),
    (
        IGNORING,
        IGNORING + "  ignoreLayers: [conv1, fc*, conw2]\n",
        "28: experiments.ignoreLayers[2]: lenet5 has no compressible layer 'conw2'; did you mean 'conv2'?",
    ),
    (
        IGNORING,
        IGNORING + "  ignoreLayers: '*'\n",
        "28: experiments.ignoreLayers: leaves none of the 5 layers to prune",
    ),
    (IGNORING, IGNORING + "  ignoreLayers: 3\n", "28: experiments.ignoreLayers: "),
    (
        IGNORING,
        IGNORING + "  includeLayers: [emb]\n",
        "28: experiments.includeLayers[0]: lenet5 has no embedding 'emb'",
    ),
    (
        "[ThresNet, UniNet]",
        "[ThresNet, SiPPNet]\n  includeLayers: emb",
        "23: experiments.includeLayers: SiPPNet ranks weights by shares of a sum, which embeddings do not have",
    ),
    ("batchSize: 32", "batchSize: 0", "6: training.batchSize: must be at least 1, got 0"),
    ("batchSize: 32", "batchSize: many", "6: training.batchSize: expected an integer, got 'many'"),
    ("batchSize: 32", "batchSize: 1.5", "6: training.batchSize: expected an integer, got 1.5"),
    ("batchSize: 32", "batchSize: true", "6: training.batchSize: expected an integer, got true"),
    ("batchSize: 32", "batchSize: [32]", "6: training.batchSize: expected an integer, got [32]"),
    ("batchSize: 32", "batch_size: 32\n  batchSize: 3", "7: training.batchSize: appears twice, in two spellings"),
    ("batchSize: 32", "batchSize: 32\n  batchSize: 3", "7: the key 'batchSize' appears twice (first in line 6)"),
    ("optimizer: SGD", "optimizer: SDG", "7: training.optimizer: 'SDG' is not an optimizer; did you mean 'SGD'?"),
    ("optimizer: SGD", "optimizer: Adam", "8: training.optimizerKwargs.momentum: Adam has no keyword 'momentum'"),
    ("momentum: 0.9", "nomentum: 0.9", "8: training.optimizerKwargs.nomentum: SGD has no keyword 'nomentum'; did you"),
    ("lr: 0.1", "lr: fast", "8: training.optimizerKwargs.lr: expected a number, got 'fast'"),
    ("lr: 0.1", "lr: -0.1", "8: training.optimizerKwargs.lr: expected a number of at least 0, got -0.1"),
    ("lr: 0.1", "lr: .nan", "8: training.optimizerKwargs.lr: expected a finite number, got nan"),
    ("lr: 0.1", "lr: .inf", "8: training.optimizerKwargs.lr: expected a finite number, got inf"),
    ("lr: 0.1", "lr: '1e999'", "8: training.optimizerKwargs.lr: expected a finite number, got 1e999"),
    ("lr: 0.1", "lr: -1e400", "8: training.optimizerKwargs.lr: expected a finite number, got -1e400"),
    ("batchSize: 32", "batchSize: 1e400", "6: training.batchSize: expected a finite number, got 1e400"),
    (
        "[ThresNet, UniNet]",
        "[ThresNet, WT]",
        "22: experiments.methods[1]: the method ThresNet appears twice, as 'ThresNet' and as 'WT'",
    ),
    (
        "{ThresNet: red}",
        "{ThresNet: 112233}",
        "31: network_colors.ThresNet: expected a colour, got 112233: hexadecimal",
    ),
    ("{ThresNet: red}", "{ThresNet: '112233'}", "'112233' is not a colour; did you mean '#112233'?"),
    (
        "{type: geometric, numIntervals: 3, maxVal: 0.8, minVal: 0.2}",
        "{type: manual, values: [0.8, '0.5']}",
        "26: experiments.spacing[0].values[1]: expected a number, got the text '0.5': remove its quotes",
    ),
    ("lr: 0.1", "betas: [0.9, -.inf]", "8: training.optimizerKwargs.betas[1]: expected a finite number, got -inf"),
    ("std: [0.3]", "std: [.nan]", "14: training.transformsFinal[1].kwargs.std[0]: expected a finite number, got nan"),
    ("reduction: mean", "label_smoothing: .inf", "11: training.lossKwargs.label_smoothing: expected a finite number"),
    (
        "milestones: [5]",
        "milestones: [.inf]",
        "16: training.lrSchedulers[0].stepKwargs.milestones[0]: expected a finite",
    ),
    (
        "minVal: 0.1, maxVal",
        "minVal: .nan, maxVal",
        "28: experiments.plotting.minVal: must be at most 1, got nan",
    ),
    ("numNets: 1", "numNets: .inf", "24: experiments.numNets: expected a finite number, got inf"),
    (
        "  dataset: MNIST\n  outputSize: 10",
        "  dataset: CIFAR",
        "3: network.dataset: 'CIFAR' is not a data set; did you mean 'CIFAR10",
    ),
    (
        "  dataset: MNIST\n  outputSize: 10",
        "  dataset: ToyMoons",
        "2: network.name: lenet5 takes images, but inputs of",
    ),
    (
        "  dataset: MNIST\n  outputSize: 10",
        "  dataset: ObjectNet",
        "3: network.dataset: ObjectNet is a test set; name it",
    ),
    ("MNIST", "Digits", "2: network.name: lenet5 needs images of at least 10x10, but those of Digits are 8x8; pad or"),
    ("  dataset: MNIST\n  outputSize: 10", "  outputSize: 10", "1: network.dataset: is missing"),
    ("  dataset: MNIST\n  outputSize: 10", "  dataset: 3", "3: network.dataset: expected a string, got 3"),
    (
        "numNets: 1",
        "numNets: 1000000000",
        "24: experiments.numNets: 1000000000 (numNets) x 1 (numRepetitions) x 3 (methods) x 1 (",
    ),
    ("numNets: 1", "numRepetitions: 1e9", "24: experiments.numRepetitions: 1 (numNets) x 1000000000 (numRepetitions)"),
    ("lr: 0.1", "eps: {a: 1}", "8: training.optimizerKwargs.eps: SGD has no keyword 'eps'"),
    ("lr: 0.1", "dampening: [a]", "8: training.optimizerKwargs.dampening: expected a list of numbers, got ['a']"),
    ("mean: [0.1]", "mean: gray", "14: training.transformsFinal[1].kwargs.mean: expected a number, got 'gray'"),
    ("mean: [0.1]", "mean: [x]", "14: training.transformsFinal[1].kwargs.mean: expected a list of numbers, got ['x']"),
    (
        "Normalize, kwargs: {mean: [0.1]",
        "Resize, kwargs: {size: 8, interpolation: 2",
        "14: training.transformsFinal[1].kwargs",
    ),
    ("results: ./r", "results: ''", "29: directories.results: expected a non-empty string, got ''"),
    ("momentum: 0.9", "nesterov: true", "8: training.optimizerKwargs.nesterov: Nesterov's method needs a momentum"),
    ("{lr: 0.1, momentum: 0.9}", "[0.1]", "8: training.optimizerKwargs: expected a dictionary, got [0.1]"),
    ("numEpochs: 10", "numEpochs: -1", "9: training.numEpochs: must be at least 0, got -1"),
    (
        "numEpochs: 10",
        "numEpoch: 10",
        "9: training.numEpoch: 'numEpoch' is not a key of 'training'; did you mean 'numEpochs'?",
    ),
    ("numEpochs: 10", "numEpochs: 3", "20: retraining.startEpoch: retraining cannot start at epoch 5: it has 3 epochs"),
    ("numEpochs: 10", "enableAMP: maybe", "9: training.enableAMP: expected true or false, got 'maybe'"),
    (
        "CrossEntropyLoss",
        "CrossEntropie",
        "10: training.loss: 'CrossEntropie' is not a loss; did you mean 'CrossEntropyLoss'?",
    ),
    ("CrossEntropyLoss", "CTCLoss", "10: training.loss: 'CTCLoss' takes inputs other than"),
    ("reduction: mean", "reduction: none", "11: training.lossKwargs.reduction: 'none' does not return a scalar"),
    (
        "reduction: mean",
        "redaction: mean",
        "11: training.lossKwargs.redaction: CrossEntropyLoss has no keyword 'redaction'",
    ),
    (
        "type: ToTensor",
        "type: ToTenser",
        "13: training.transformsFinal[0].type: 'ToTenser' is not a transform; did you",
    ),
    (
        "type: ToTensor",
        "type: SegToTensor",
        "13: training.transformsFinal[0].type: SegToTensor is for images with masks, which MNIST does not have",
    ),
    ("type: ToTensor", "type: Compose", "13: training.transformsFinal[0].type: 'Compose' is not needed"),
    ("type: ToTensor", "kwargs: {}", "13: training.transformsFinal[0].type: is missing"),
    ("{type: ToTensor}", "ToTensor", "13: training.transformsFinal[0]: expected a dictionary, got 'ToTensor'"),
    (", std: [0.3]", "", "14: training.transformsFinal[1].kwargs: Normalize needs the keyword 'std'"),
    ("std: [0.3]", "std: [0.3], p: 1", "14: training.transformsFinal[1].kwargs.p: Normalize has no keyword 'p'"),
    (
        "MultiStepLR",
        "MultistepLRs",
        "16: training.lrSchedulers[0].type: 'MultistepLRs' is not a learning-rate scheduler",
    ),
    ("MultiStepLR", "LambdaLR", "16: training.lrSchedulers[0].type: 'LambdaLR' takes a function"),
    (
        "milestones: [5]",
        "milestone: [5]",
        "16: training.lrSchedulers[0].stepKwargs.milestone: MultiStepLR has no keyword",
    ),
    (
        "milestones: [5]",
        "milestones: 5",
        "16: training.lrSchedulers[0].stepKwargs.milestones: expected a list of epochs",
    ),
    (
        "milestones: [5]",
        "milestones: [five]",
        "16: training.lrSchedulers[0].stepKwargs.milestones: expected a number of epochs",
    ),
    (
        "milestones: [5]",
        "gamma: 0.1",
        "16: training.lrSchedulers[0].stepKwargs.gamma: 'gamma' is not counted in epochs",
    ),
    (
        "stepKwargs: {milestones: [5]}",
        "kwargs: {}",
        "16: training.lrSchedulers[0].kwargs: MultiStepLR needs the keyword",
    ),
    (
        "stepKwargs",
        "stepKwarg",
        "16: training.lrSchedulers[0].stepKwarg: 'stepKwarg' is not a key of 'training.lrSchedulers[0]'",
    ),
    ("type: TopK", "type: TopKay", "18: training.metricsTest[0].type: 'TopKay' is not a metric; did you mean 'TopK'?"),
    ("topk: 1", "topk: 0", "18: training.metricsTest[0].kwargs.topk: expected a positive integer, got 0"),
    (
        "    - {type: TopK, kwargs: {topk: 1}}\n",
        "    - {type: IoU}\n    - {type: IoU}\n",
        "19: training.metricsTest[1]: the metric",
    ),
    (
        "\n    - {type: TopK, kwargs: {topk: 1}}",
        " []",
        "17: training.metricsTest: expected at least one entry",
    ),
    (
        "startEpoch: 5",
        "startEpoch: 11",
        "20: retraining.startEpoch: retraining cannot start at epoch 11: it has 10 epochs",
    ),
    ("startEpoch: 5", "optimizer: Adam", "8: retraining.optimizerKwargs.momentum: Adam has no keyword 'momentum'"),
    ("startEpoch: 5", "file: nowhere.yaml", "20: retraining.file: there is no file 'nowhere.yaml'"),
    ("startEpoch: 5", "file: training/cifar/resnets.yaml", "did you mean 'training/cifar/resnet.yaml'?"),
    ("startEpoch: 5", "file: .", "20: retraining.file: .: is a folder, not a file"),
    ("startEpoch: 5", "file: ''", "20: retraining.file: expected a file name, got ''"),
    ("startEpoch: 5", "file: ' '", "20: retraining.file: expected a file name, got ' '"),
    ("startEpoch: 5", "file: [a]", "20: retraining.file: expected a file name, got ['a']"),
    ("lr: 0.1", "file: .", "8: training.optimizerKwargs.file: .: is a folder, not a file"),
    ("results: ./r", "file: .", "29: directories.file: .: is a folder, not a file"),
    ("ThresNet: WT", "file: .", "30: network_names.file: .: is a folder, not a file"),
    ("network:", "file: .\nnetwork:", "1: file: .: is a folder, not a file"),
    ("startEpoch: 5", "file: 7", "20: retraining.file: expected a file name, got 7"),
    ("startEpoch: 5", "file: e.yaml", "20: retraining.file: the file includes itself: e.yaml -> e.yaml"),
    ("ThresNet, UniNet", "ThresNett", "22: experiments.methods[0]: 'ThresNett' is not a pruning method; did you mean"),
    (
        "ThresNet, UniNet",
        "UniNet, SVDNett",
        "22: experiments.methods[1]: 'SVDNett' is not a pruning method; did you mean 'SVDNet'?",
    ),
    ("ThresNet, UniNet", "ThresNet, WT", "22: experiments.methods[1]: the method ThresNet appears twice"),
    ("[ThresNet, UniNet]", "ThresNet", "22: experiments.methods: expected a list, got 'ThresNet'"),
    ("mode: cascade", "mode: cascades", "23: experiments.mode: 'cascades' is not a choice; did you mean 'cascade'?"),
    ("  mode: cascade\n", "", "21: experiments.mode: is missing"),
    ("numNets: 1", "numNets: 0", "24: experiments.numNets: must be at least 1, got 0"),
    ("numNets: 1", "rules: papers", "24: experiments.rules: 'papers' is not a choice; did you mean 'paper'?"),
    (
        "numNets: 1",
        "datasetTest: CIFAR100",
        "24: experiments.datasetTest[0]: CIFAR100 has 100 classes, but the network has 10",
    ),
    (
        "numNets: 1",
        "datasetTest: [MNIST, MNIST_C_Fog_3]",
        "24: experiments.datasetTest[1]: 'MNIST_C_Fog_3' is not a data set: Fog needs files",
    ),
    (
        "numNets: 1",
        "datasetTest: [MNIST, MNIST]",
        "24: experiments.datasetTest[1]: the test set MNIST appears twice",
    ),
    ("numNets: 1", "seed: -3", "24: experiments.seed: must be at least 0, got -3"),
    (
        "type: geometric",
        "type: geometrical",
        "26: experiments.spacing[0].type: 'geometrical' is not a choice; did you mean",
    ),
    ("minVal: 0.2", "minVal: 0.9", "26: experiments.spacing[0].minVal: minVal 0.9 is above maxVal 0.8"),
    (
        "maxVal: 0.8",
        "maxVal: 1.8",
        "26: experiments.spacing[0].maxVal: a keep ratio must be above 0 and at most 1, got 1.8",
    ),
    (", minVal: 0.2", "", "26: experiments.spacing[0]: a geometric spacing needs 'minVal'"),
    ("numIntervals: 3", "numIntervals: 0", "26: experiments.spacing[0].numIntervals: must be above 0, got 0"),
    (
        "numIntervals: 3",
        "numIntervals: 9000",
        "25: experiments.spacing: 1 (numNets) x 1 (numRepetitions) x 3 (methods) x 1 (datasetTest) x 40504500",
    ),
    ("numIntervals: 3", "intervals: 3", "26: experiments.spacing[0].intervals: 'intervals' is not a key of"),
    (
        "geometric, numIntervals: 3, maxVal: 0.8, minVal: 0.2",
        "manual, values: [0.5, 0.5]",
        "26: experiments.spacing[0]: the",
    ),
    (
        "geometric, numIntervals: 3, maxVal: 0.8, minVal: 0.2",
        "manual, values: [0.2, 0.5]",
        "25: experiments.spacing: in a cascade",
    ),
    (
        "\n    - {type: geometric, numIntervals: 3, maxVal: 0.8, minVal: 0.2}",
        " []",
        "25: experiments.spacing: mode 'cascade' needs",
    ),
    (
        "retrainIterations: -1",
        "retrainIterations: 4",
        "27: experiments.retrainIterations: expected at most 3, the number of keep ratios, got 4",
    ),
    (
        "{minVal: 0.1, maxVal: 0.9}",
        "{minVal: 0.9, maxVal: 0.1}",
        "28: experiments.plotting.minVal: minVal 0.9 is above",
    ),
    ("{minVal: 0.1, maxVal: 0.9}", "{minVal: 2}", "28: experiments.plotting.minVal: must be at most 1, got 2"),
    (
        "results: ./r",
        "result: ./r",
        "29: directories.result: 'result' is not a key of 'directories'; did you mean 'results'?",
    ),
    ("results: ./r", "results: 3", "29: directories.results: expected a string, got 3"),
    (
        "{ThresNet: WT}",
        "{ThresNett: WT}",
        "30: network_names.ThresNett: 'ThresNett' is not a pruning method; did you mean",
    ),
    ("{ThresNet: red}", "{ThresNet: redd}", "31: network_colors.ThresNet: 'redd' is not a colour; did you mean 'red'?"),
    ("{ThresNet: red}", "{WT: tab:mauve}", "31: network_colors.WT: 'tab:mauve' is not a colour"),
    ("{ThresNet: red}", "{WT: xkcd:skyy}", "31: network_colors.WT: 'xkcd:skyy' is not a colour"),
    (
        "{ThresNet: red}",
        "{ThresNet: red, WT: b}",
        "31: network_colors.WT: is the method ThresNet, as is 'ThresNet' above",
    ),
    ("{ThresNet: WT}", "{WT: a, ThresNet: b}", "30: network_names.ThresNet: is the method ThresNet, as is 'WT' above"),
    (
        "{ThresNet: WT}",
        "{WT: a, UniNet: ' a'}",
        "30: network_names.UniNet: the label 'a' of UniNet is also that of ThresNet",
    ),
    (
        "{ThresNet: WT}",
        "{WT: Uniform  weights}",
        "30: network_names.WT: the label 'Uniform weights' of ThresNet is also that of UniNet",
    ),
    ("results: ./r}", "results: ./r}\ncoresets: {deltaS: 16}", "30: coresets.deltaS: must be below 16, got 16"),
    ("results: ./r}", "results: ./r}\ncoresets: {deltaS: 0}", "30: coresets.deltaS: must be above 0, got 0"),
    ("results: ./r}", "results: ./r}\ncoresets: {deltaS: .inf}", "30: coresets.deltaS: must be below 16, got inf"),
    ("{ThresNet: red}", "red", "31: network_colors: expected a dictionary, got 'red'"),
    ("directories: {results: ./r}", "training: {}", "29: the key 'training' appears twice (first in line 5)"),
    ("  batchSize: 32", "\tbatchSize: 32", "6: not valid YAML: found character '\\t' that cannot start any token"),
    ("optimizerKwargs: {lr: 0.1", "optimizerKwargs: {lr: 0.1]", "8: not valid YAML:"),
    ("name: lenet5", "name: *nowhere", "2: not valid YAML: found undefined alias"),
    ("name: lenet5", "name: !!python/object/apply:os.system [ls]", "2: unsupported type 'os.system'"),
    ("name: lenet5", "5: lenet5", "2: a key must be a string, got 5"),
    ("directories:", "customizations:", "29: customizations: expected a list of entries with 'key' and 'value'"),
]

SWEEPS = [
    (
        "{key: [training, batchSize], value: [32, 64]}",
        "33: training.batchSize: expected an integer, got [32, 64]; a sweep has an entry of `customizations` for each",
    ),
    (
        "{key: [training, batchSice], value: 3}",
        "33: customizations[0].key: 'batchSice' is not a known key; did you mean",
    ),
    (
        "{key: [trainings, batchSize], value: 3}",
        "33: customizations[0].key: 'trainings' is not a known key; did you mean",
    ),
    (
        "{key: [training, optimizer, lr], value: 3}",
        "33: customizations[0].key: 'training.optimizer' has no keys, so 'lr'",
    ),
    ("{key: [experiments, spacing, minVal], value: 3}", "33: customizations[0].key: 'experiments.spacing' has no keys"),
    ("{key: training, value: 3}", "33: customizations[0].key: expected a list of names, got 'training'"),
    ("{key: [training, batchSize]}", "33: customizations[0]: 'value' is missing"),
    (
        "{keys: [training, batchSize], value: 3}",
        "33: customizations[0]: unknown key 'keys'; did you mean 'key'?",
    ),
    ("training", "33: customizations[0]: expected a dictionary with 'key' and 'value', got 'training'"),
    (
        "{key: [training, optimizer], value: SDG}",
        "33: training.optimizer: 'SDG' is not an optimizer; did you mean 'SGD'?",
    ),
    ("{key: [retraining, startEpoch], value: 30}", "33: retraining.startEpoch: retraining cannot start at epoch 30"),
    ("{key: [training], value: 3}", "33: training: expected a dictionary, got 3"),
    (
        "{key: [training, batchSize], value: 3}\n  - {key: [training, batch_size], value: 3}",
        "34: customizations[1]: the same as the customization in line 33",
    ),
]


def message(name="e.yaml"):
    with pytest.raises(ConfigError) as error:
        load_experiments(name)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_itself_is_good(folder):
    (folder / "e.yaml").write_text(GOOD)
    (experiment,) = load_experiments("e.yaml")
    assert experiment.retraining.start_epoch == 5


@pytest.mark.parametrize(("old", "new", "words"), CHANGES, ids=[f"{new.strip()[:40]}" for _, new, _ in CHANGES])
def test_one_line_per_mistake(folder, old, new, words):
    assert old in GOOD
    (folder / "e.yaml").write_text(GOOD.replace(old, new, 1))
    text = message()
    assert text.startswith("e.yaml:")
    assert (f"e.yaml:{words}" if words[0].isdigit() else words) in text


@pytest.mark.parametrize(("entry", "words"), SWEEPS, ids=[entry[:40] for entry, _ in SWEEPS])
def test_one_line_per_mistake_in_a_sweep(folder, entry, words):
    (folder / "e.yaml").write_text(f"{GOOD}customizations:\n  - {entry}\n")
    assert f"e.yaml:{words}" in message()


@pytest.mark.parametrize("section", ["network", "training", "experiments"])
def test_missing_section(folder, section):
    lines = GOOD.splitlines(keepends=True)
    start = lines.index(f"{section}:\n")
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" "))
    (folder / "e.yaml").write_text("".join(lines[:start] + lines[end:]))
    assert message() == f"e.yaml: {section}: is missing"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "e.yaml:1: is empty"),
        (b"# only a comment\n", "e.yaml:1: is empty"),
        (b"- a\n- b\n", "e.yaml:1: expected a dictionary, got a list"),
        (b"just text", "e.yaml:1: expected a dictionary, got 'just text'"),
        (b"\xff\xfe\x00\x01\x80", "e.yaml:1: is not UTF-8, but UTF-16"),
        (GOOD.encode("utf-16"), "e.yaml:1: is not UTF-8, but UTF-16"),
        (GOOD.encode("utf-16-be"), "e.yaml:1: is not UTF-8, but UTF-16"),
        (b"a: 1\nb: \xe9t\xe9\n", "e.yaml:2: is not UTF-8 (byte 0xe9); save it as UTF-8"),
        (b"a: \x07", "e.yaml: is not a text file"),
        (b"a: 1\n---\nb: 2\n", "e.yaml:2: not valid YAML: but found another document"),
        (b"a: &x [*x]", "e.yaml:1: an alias contains itself"),
        (b"a: &x {<<: *x}", "e.yaml:1: an alias contains itself"),
        (b"a: {<<: 3}", "e.yaml:1: '<<' merges dictionaries, got 3"),
        (b"a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n", "e.yaml:4: the key '<<' appears twice"),
        (b"[" * 3000, "e.yaml: is nested too deeply"),
    ],
)
def test_what_is_no_experiment_at_all(folder, content, words):
    (folder / "e.yaml").write_bytes(content)
    assert message().startswith(words)


def nested_aliases(levels: int, entry: str) -> str:
    """Return a file of a few lines whose last one stands for 10^levels values; `entry` has a hole for an alias."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels + 1):
        lines.append(entry.format(level, ", ".join([f"*a{level - 1}"] * 10)))
    return "\n".join(lines)


def test_aliases_that_stand_for_too_many_values_are_refused_and_built_once(folder, monkeypatch):
    built = []
    construct = yaml_positions._Loader.construct_object
    monkeypatch.setattr(
        yaml_positions._Loader, "construct_object", lambda *arguments: built.append(arguments) or construct(*arguments)
    )
    (folder / "e.yaml").write_text(nested_aliases(12, "a{0}: &a{0} [{1}]"))
    assert message() == ("e.yaml: has 2345679012345 values after expanding aliases; at most 100000 are allowed")
    assert len(built) == 1


def test_merge_keys_that_name_one_dictionary_again_and_again_are_one_dictionary(folder):
    path = folder / "e.yaml"
    path.write_text(nested_aliases(12, "a{0}: &a{0} {{<<: [{1}]}}"))
    assert yaml_positions.read_yaml(path, "e.yaml").plain() == {f"a{level}": {"k": 1} for level in range(13)}


def test_a_folder_and_a_file_that_is_nowhere(folder):
    (folder / "e.yaml").mkdir()
    assert message() == "e.yaml: is a folder, not a file"
    assert message("") == "config: expected a file name, got ''"
    assert message(".").endswith(": is a folder, not a file")
    assert message("sample/digit.yaml").endswith("did you mean 'sample/digits.yaml'?")
    assert "did you mean" not in message("nope.yaml")
    assert "file" in message("x" * 5000)  # whether its length is the reason depends on the Python
    assert "there is no file" in message("a\0b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "f.yaml:1: is empty"),
        ("\u00e9".encode("utf-16"), "f.yaml:1: is not UTF-8, but UTF-16"),
        (b"a: \x07", "f.yaml: is not a text file"),
    ],
)
def test_an_included_file_that_is_unreadable_as_a_whole_is_named_after_the_key_that_includes_it(folder, content, words):
    (folder / "e.yaml").write_text("# comment\ntraining: {file: f.yaml}\n")
    (folder / "f.yaml").write_bytes(content)
    assert message().startswith(f"e.yaml:2: training.file: {words}")


def test_a_cycle_over_two_files(folder):
    (folder / "e.yaml").write_text("file: f.yaml\n")
    (folder / "f.yaml").write_text("training:\n  batchSize: 3\n  file: e.yaml\n")
    assert message() == "f.yaml:3: training.file: the file includes itself: e.yaml -> f.yaml -> e.yaml"


def test_the_error_names_the_file_where_the_key_stands(folder):
    (folder / "training.yaml").write_text("batchSize: 3\n\noptimizer: SDG\n")
    text = GOOD.replace("  batchSize: 32\n  optimizer: SGD\n", "  file: training.yaml\n")
    (folder / "e.yaml").write_text(text)
    assert message() == "training.yaml:3: training.optimizer: 'SDG' is not an optimizer; did you mean 'SGD'?"


def test_a_training_file_is_not_an_experiment():
    assert "include a file of training settings as 'training: {file: ...}'" in message("sample/training_tutorial.yaml")


def test_rewinding_would_replace_fresh_weights(folder):
    text = GOOD.replace("mode: cascade", "mode: cascade-rewind").replace("[ThresNet, UniNet]", "[ThresNet, ScratchNet]")
    (folder / "e.yaml").write_text(text)
    assert message() == (
        "e.yaml:22: experiments.methods[1]: ScratchNet draws weights anew, which mode cascade-rewind overwrites; "
        "use mode retrain or cascade"
    )


def test_rewinding_beyond_the_training(folder):
    text = GOOD.replace("mode: cascade", "mode: cascade-rewind").replace(
        "startEpoch: 5", "startEpoch: 15\n  numEpochs: 20"
    )
    (folder / "e.yaml").write_text(text)
    assert (
        message() == "e.yaml:20: retraining.startEpoch: weights cannot be rewound to epoch 15: training has 10 epochs"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "error"),
    [
        (
            "'torchvision:resnet19'",
            r"e\.yaml:1: network\.name: torchvision has no .*'resnet19'; did you mean 'resnet18'",
        ),
        ("'timm:resnet19'", r"e\.yaml:1: network\.name: timm has no network 'resnet19'; did you mean 'resnet18'"),
        ("'hf:vit', kwargs: {depth: 3}", r"e\.yaml:1: network\.kwargs: the configuration of hf:vit has no 'depth'"),
    ],
)
def test_names_that_only_a_library_has_are_checked_before_any_job(network, error, tmp_path):
    pytest.importorskip({"timm": "timm", "hf": "transformers"}.get(network[1:].split(":")[0], "torchvision"))
    file = tmp_path / "e.yaml"
    file.write_text(
        f"network: {{name: {network}, dataset: CIFAR10}}\ntraining: {{numEpochs: 1}}\n"
        "experiments: {methods: [WT], mode: retrain, spacing: [{type: manual, values: [0.5]}]}\n"
    )
    with pytest.raises(ConfigError, match=error):
        load_experiments(str(file))
