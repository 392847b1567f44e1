"""Stand in for training, export and conversion: write the models of this example, three wrong ones too.

``models/generator.onnx`` is what is deployed. ``models/wrong/`` holds what it could have become by mistake; each of
those runs without an error.
"""

import copy
import shutil
import warnings
from pathlib import Path

import onnx
import torch
from generator import Generator
from onnxscript import optimizer
from safetensors.torch import save_file
from torch import nn

import normswap

MODELS = Path("models")
WRONG = MODELS / "wrong"


def trained() -> Generator:
    """Return a generator whose BatchNorms have seen images of many brightnesses, as after training."""
    torch.manual_seed(0)
    generator = Generator().train()
    for module in generator.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(50):
            generator(torch.rand(8, 3, 32, 32) * torch.rand(8, 1, 1, 1))
    return generator


def export(generator: Generator, path: Path) -> None:
    """Export a generator in the mode that it is in, every BatchNorm an operator of its own."""
    with warnings.catch_warnings():
        # The default exporter folds BatchNorms into convolutions, in eval mode and in train mode. This one warns of
        # its age, and of train mode.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            copy.deepcopy(generator),
            (torch.rand(1, 3, 32, 32),),
            path,
            input_names=["image"],
            output_names=["made"],
            dynamic_axes={"image": {0: "batch"}, "made": {0: "batch"}},
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )


def without_eps(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a converted model as a converter that forgets eps would have written it."""
    wrong = copy.deepcopy(model)
    for node in wrong.graph.node:
        if node.op_type == "InstanceNormalization":
            (eps,) = (attribute for attribute in node.attribute if attribute.name == "epsilon")
            eps.f = 0.0
    return wrong


def main() -> None:
    """Write all files."""
    WRONG.mkdir(parents=True, exist_ok=True)
    generator = trained()
    save_file(generator.state_dict(), MODELS / "generator.safetensors")
    export(generator.eval(), MODELS / "exported.onnx")
    normswap.convert(MODELS / "exported.onnx", to="instance", output=MODELS / "generator.onnx", force=True)

    shutil.copy(MODELS / "exported.onnx", WRONG / "left_in_eval_mode.onnx")
    onnx.save(without_eps(onnx.load(MODELS / "generator.onnx")), WRONG / "eps_dropped.onnx")
    # Exported in train mode, which at batch size 1 is what was trained, then made smaller by an optimizer, which takes
    # every BatchNorm for one in eval mode.
    export(generator.train(), WRONG / "folded_by_an_optimizer.onnx")
    optimized = optimizer.optimize(onnx.load(WRONG / "folded_by_an_optimizer.onnx"))
    onnx.save(optimized, WRONG / "folded_by_an_optimizer.onnx")


if __name__ == "__main__":
    main()
