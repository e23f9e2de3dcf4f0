"""Scale the channels of a product's input, so that none needs a much wider int8 range than the others.

After a layer norm one channel reaches 28 for the first token of each text, where half of the channels stay under 2:
with one scale for all, their values are 16 steps of 255. So x W becomes (x / s) (s W), with s chosen for each channel
so that inputs and weights share the difference: SmoothQuant (Xiao et al., 2022, https://arxiv.org/abs/2211.10438). In
fp32 the product is the same. Measurements: docs/decisions/0037-int8-calibration.md.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph.products import Products, Range, Ranges, give_weight, in_groups, inputs, insert_after, matrix, weights

# The share of the difference between channels that goes to the weights: 0 leaves the inputs as they are, at 1 all
# channels have the same range. 0.6 to 0.8 are equally good, 0.5 and 0.9 worse.
_MIGRATED = 0.7
# A channel that hardly moves in the calibration texts is taken as this share of the largest: others may move it.
_MIN_SHARE = 1e-3
# An input is equalized if a channel reaches this many times the median of all. The multiplication costs about 0.1 % of
# a run, and where channels differ less, as after attention, there is little to gain.
_MIN_RATIO = 3.0


def equalize(graph: onnx.GraphProto, products: Products, ranges: Ranges) -> None:
    """Give `products` an equalized input where it pays, whose range is added to `ranges`, and a weight to match."""
    for group in in_groups(products):
        largest = np.max([ranges[name].largest for name in inputs(group)], axis=0)
        if largest.max() < _MIN_RATIO * np.median(largest):
            continue
        scale = _scale(largest, np.max([np.abs(matrix(graph, name)).max(1) for name in weights(group)], axis=0))
        for name in weights(group):
            give_weight(graph, group, name, f"{name}_equalized", matrix(graph, name) * scale[:, None])
        for name in inputs(group):
            new, factor = f"{name}_equalized", f"{name}_factor"
            ranges[new] = Range(ranges[name].low / scale, ranges[name].high / scale)
            graph.initializer.append(numpy_helper.from_array(1 / scale, factor))
            insert_after(graph, name, [helper.make_node("Mul", [name, factor], [new], f"{name}_equalize")])
            for node in group:
                if node.input[0] == name:
                    node.input[0] = new


def _scale(of_input: NDArray[np.float32], of_weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What to divide each channel by, (channels,), from the largest absolute values."""
    x, w = (np.maximum(v, max(_MIN_SHARE * v.max(), np.finfo(np.float32).tiny)) for v in (of_input, of_weight))
    scale: NDArray[np.float32] = (x / x.max()) ** _MIGRATED / (w / w.max()) ** (1 - _MIGRATED)
    return scale.astype(np.float32)
